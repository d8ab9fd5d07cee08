"""GoogLeNet, Inception-v3 and Inception-v4: documented sizes at every rank, smallest images, auxiliary heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.nn.inception import Convolution, Inception, Style

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

NARROW = {
    "googlenet": {"width_multiplier": 0.05},
    "inception_v3": {"width_multiplier": 0.05},
    "inception_v4": {"width_multiplier": 0.05, "stage_sizes": (1, 1, 1)},
}
SMALLEST = {"googlenet": 15, "inception_v3": 75, "inception_v4": 75}


def create(name, **arguments):
    return models.create(name, num_classes=5, in_channels=2, **{**NARROW[name], **arguments})


def features_of(model, *space):
    """Shapes of the feature maps and of the backbone's variables."""
    x = jax.ShapeDtypeStruct((2, *space, model.in_channels), jnp.float32)
    init = functools.partial(model.init_with_output, train=False, method="features")
    return jax.eval_shape(init, jax.random.key(0), x)


def documented(name, n):
    """Pixels of every feature map, from the docstrings' rules."""
    if name == "googlenet":
        stem = -(-n // 2)
        third = stem // 2 // 2 // 2
        return {
            **{"stem": stem, "stage1": stem // 2, "stage2": stem // 2 // 2},
            **{"stage3_block1": third, "stage3_block4": third, "stage3": third, "stage4": -(-third // 2)},
        }
    sizes = {"stem": (n - 1) // 2 - 2}
    sizes["stage1"] = (sizes["stem"] - 1) // 2 - 2
    for i in (2, 3, 4):
        sizes[f"stage{i}"] = (sizes[f"stage{i - 1}"] - 1) // 2
    return sizes


# Rank and pixels; None is the smallest image.
SIZES = [(1, 96), (2, None), (2, 96), (2, 113), (3, 113)]


@pytest.mark.parametrize(("rank", "size"), SIZES)
@pytest.mark.parametrize("name", NARROW)
def test_documented_sizes_at_every_rank(name, rank, size):
    size = size or SMALLEST[name]
    maps, _ = features_of(create(name), *(size,) * rank)
    expected = {key: (2, *(pixels,) * rank) for key, pixels in documented(name, size).items()}
    assert {key: leaf.shape[:-1] for key, leaf in maps.items()} == expected
    assert min(expected["stage4"]) >= 1


@pytest.mark.parametrize("name", NARROW)
def test_an_image_that_is_too_small(name):
    with pytest.raises(ImageTooSmallError, match="too small for its kernel"):
        features_of(create(name), SMALLEST[name], SMALLEST[name] - 1)


@pytest.mark.parametrize("size", [298, 299])
def test_the_auxiliary_head_of_inception_v3_needs_the_published_image(size):
    model = create("inception_v3", auxiliary=True)
    x = jax.ShapeDtypeStruct((2, size, 299, 2), jnp.float32)
    init = functools.partial(model.init, train=False)
    if size == 299:
        variables = jax.eval_shape(init, jax.random.key(0), x)
        assert variables["params"]["auxiliary1"]["output"]["kernel"].shape[-1] == 5
        assert set(variables["batch_stats"]) == {"backbone", "auxiliary1"}
        return
    with pytest.raises(ImageTooSmallError, match="layer 'auxiliary1/conv/conv' gets an image of 4×5 pixels"):
        jax.eval_shape(init, jax.random.key(0), x)


@pytest.mark.parametrize(("rank", "expected"), [(1, (7,)), (2, (1, 7)), (3, (1, 1, 7))])
def test_a_flat_kernel_lies_along_the_last_axis_and_its_counterpart_along_the_others(rank, expected):
    style = Style(
        width_multiplier=1.0, activation="relu", norm="none", kernel_init=jax.nn.initializers.ones, dtype="float32"
    )
    block = Inception(((Convolution(8, (1, 7)), (Convolution(8, (7, 1)), Convolution(16))),), style)
    x = jax.ShapeDtypeStruct((1, *(9,) * rank, 3), jnp.float32)
    y, variables = jax.eval_shape(functools.partial(block.init_with_output, train=False), jax.random.key(0), x)
    kernels = {name: layer["conv"]["kernel"].shape for name, layer in variables["params"].items()}
    others = tuple(8 - size for size in expected)  # 7 where the first has 1, and 1 where it has 7
    assert kernels == {
        "branch1_conv1": (*expected, 3, 8),
        "branch1_conv2a": (*others, 8, 8),
        "branch1_conv2b": (*(1,) * rank, 8, 16),
    }
    assert y.shape == (1, *(9,) * rank, 24)


def test_auxiliary_heads_are_parameters_beside_the_network_and_no_part_of_a_call():
    plain, model = create("googlenet"), create("googlenet", auxiliary=True)
    x = jax.ShapeDtypeStruct((2, 32, 32, 2), jnp.float32)
    expected, variables = (
        jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), x) for net in (plain, model)
    )
    for name, tree in variables.items():
        assert set(tree) - set(expected[name]) == {"auxiliary1", "auxiliary2"}
        assert {key: tree[key] for key in expected[name]} == expected[name]
    # Without their parameters, a call of the same network.
    call = functools.partial(model.apply, train=False)
    assert jax.eval_shape(call, expected, x).shape == (2, 5)
    logits, extra = jax.eval_shape(functools.partial(call, method="with_auxiliary"), variables, x)
    assert set(extra) == {"stage3_block1", "stage3_block4"}
    assert {(leaf.shape, leaf.dtype) for leaf in (logits, *extra.values())} == {((2, 5), jnp.dtype("float32"))}


@pytest.mark.parametrize(("name", "pixels"), [("googlenet", (6, 7)), ("googlenet", (2, 3)), ("inception_v3", (17, 18))])
def test_every_parameter_of_an_auxiliary_head_gets_a_gradient(name, pixels, random_variables):
    head, *_ = create(name, auxiliary=True).auxiliary.values()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, *pixels, 4), dtype=np.float32))
    variables = random_variables(head, x)

    @jax.jit
    def gradients(variables, x):
        def loss(params, x):
            return jnp.sum(jnp.square(head.apply({**variables, "params": params}, x, train=False)))

        return jax.grad(loss, argnums=(0, 1))(variables["params"], x)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(variables, x)):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_dropout_of_an_auxiliary_head_is_on_in_training_alone(random_variables):
    head, *_ = create("googlenet", auxiliary=True, norm="none").auxiliary.values()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 4, 8), dtype=np.float32))
    variables = random_variables(head, x)
    run = jax.jit(lambda key, train: head.apply(variables, x, train=train, rngs={"dropout": key}), static_argnums=1)
    first, second = jax.random.split(jax.random.key(0))
    assert np.abs(run(first, True) - run(second, True)).max() > 1e-3
    np.testing.assert_array_equal(run(first, False), run(second, False))


def test_rates_of_the_heads():
    model = create("googlenet", auxiliary=True, dropout_rate=0.1, auxiliary_dropout_rate=0.6)
    assert model.head.dropout_rate == 0.1
    assert {head.dropout_rate for head in model.auxiliary.values()} == {0.6}
