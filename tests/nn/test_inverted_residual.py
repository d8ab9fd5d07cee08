"""The inverted residual: which of its parts exist, where its input is added, and the channels of a scaled network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.nn.channels import require_width_multiplier, scaled_channels
from cnn_jax.nn.inverted_residual import InvertedResidual


@pytest.mark.parametrize(
    ("features", "arguments", "added"),
    [
        (4, {}, True),
        (5, {}, False),
        (4, {"stride": 2}, False),
        (4, {"residual": False}, False),
    ],
)
@pytest.mark.parametrize("size", [6, 1])  # A stride of 2 keeps the shape of one pixel.
def test_the_input_is_added_where_stride_and_channels_stay(features, arguments, added, size):
    block = InvertedResidual(features, expanded=24, norm="none", **arguments)
    x = jax.random.normal(jax.random.key(0), (2, size, size, 4))
    shapes = jax.eval_shape(functools.partial(block.init, train=False), jax.random.key(1), x)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    y = jax.jit(functools.partial(block.apply, train=False))(nothing, x)
    np.testing.assert_array_equal(y, x if added else np.zeros(y.shape))


@pytest.mark.parametrize(
    ("expanded", "squeeze_excite", "parts"),
    [
        (4, 0, {"depthwise", "project"}),
        (12, 0, {"expand", "depthwise", "project"}),
        (4, 2, {"depthwise", "squeeze_excite", "project"}),
    ],
)
def test_only_the_parts_that_are_needed(expanded, squeeze_excite, parts):
    block = InvertedResidual(4, expanded=expanded, squeeze_excite=squeeze_excite)
    params = jax.eval_shape(
        functools.partial(block.init, train=False), jax.random.key(0), jax.ShapeDtypeStruct((1, 5, 5, 4), jnp.float32)
    )["params"]
    assert set(params) == parts
    assert all(set(params[part]) == {"conv", "norm"} for part in parts - {"squeeze_excite"})


def test_every_argument_reaches_its_layer():
    block = InvertedResidual(
        4,
        expanded=8,
        kernel_size=5,
        squeeze_excite=2,
        squeeze_excite_activation="silu",
        squeeze_excite_gate="hard_sigmoid",
        activation="hard_swish",
        epsilon=0.5,
        momentum=0.25,
    )
    x = jax.random.normal(jax.random.key(0), (2, 7, 7, 4))
    variables = block.init(jax.random.key(1), x, train=False)
    y, updated = block.apply(variables, x, train=True, mutable=["batch_stats"])
    assert variables["params"]["depthwise"]["conv"]["kernel"].shape == (5, 5, 1, 8)
    kernel = variables["params"]["expand"]["conv"]["kernel"][0, 0]
    np.testing.assert_allclose(
        updated["batch_stats"]["expand"]["norm"]["mean"], 0.75 * (x @ kernel).mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6
    )
    for other in (
        {"squeeze_excite_activation": "relu"},
        {"squeeze_excite_gate": "sigmoid"},
        {"activation": "relu"},
        {"epsilon": 1e-5},
    ):
        changed, _ = block.clone(**other).apply(variables, x, train=True, mutable=["batch_stats"])
        assert float(jnp.abs(changed - y).max()) > 1e-4, other


def test_stochastic_depth_leaves_the_branch_out_in_training_only():
    block = InvertedResidual(4, expanded=8, stochastic_depth_rate=0.5, norm="none")
    x = jax.random.normal(jax.random.key(0), (64, 3, 3, 4))
    variables = block.init(jax.random.key(1), x, train=False)
    branch = block.apply(variables, x, train=False) - x
    trained = block.apply(variables, x, train=True, rngs={"dropout": jax.random.key(2)}) - x
    kept = np.abs(trained).max(axis=(1, 2, 3)) > 0
    assert 16 < kept.sum() < 48
    np.testing.assert_allclose(trained[kept], 2 * branch[kept], rtol=1e-4, atol=1e-5)


def test_no_pixels():
    with pytest.raises(ImageTooSmallError, match="image of 0×4 pixels"):
        InvertedResidual(4, expanded=4).init(jax.random.key(0), jnp.zeros((1, 0, 4, 4)), train=False)


def test_scaled_channels_round_to_multiples_but_lose_at_most_a_tenth():
    # By hand: 0.7 × 26 = 18.2 rounds to 16, below 0.9 × 18.2 = 16.38, so it becomes 24.
    assert scaled_channels(26, multiplier=0.7) == 24
    assert scaled_channels(3, multiplier=0.1) == 8
    assert scaled_channels(30, divisor=10) == 30


def test_a_width_without_channels():
    with pytest.raises(UserError, match=r"width_multiplier is -0\.5; it must be above 0"):
        require_width_multiplier(-0.5)
