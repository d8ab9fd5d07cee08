"""MobileNetV1 and V3, MNASNet and ShuffleNetV2: strides at every rank, the smallest image, and what each has alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.models.mobilenet_v1 import SeparableBlock
from cnn_jax.models.shufflenet_v2 import ShuffleUnit

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

NARROW = {"width_multiplier": 0.1}
NETWORKS = {
    "mnasnet": (NARROW, ("stem", *(f"stage{i}" for i in range(1, 8)), "final"), (2, 2, 4, 8, 16, 16, 32, 32, 32)),
    "mobilenet_v1": (NARROW, ("stem", *(f"stage{i}" for i in range(1, 6))), (2, 2, 4, 8, 16, 32)),
    "mobilenet_v3_large": (
        NARROW,
        ("stem", *(f"stage{i}" for i in range(1, 7)), "final"),
        (2, 2, 4, 8, 16, 16, 32, 32),
    ),
    "mobilenet_v3_small": (
        NARROW,
        ("stem", *(f"stage{i}" for i in range(1, 6)), "final"),
        (2, 4, 8, 16, 16, 32, 32),
    ),
    "shufflenet_v2": (
        {"blocks": (2, 1, 1), "channels": (4, 6, 8, 10)},
        ("stem", "pool", "stage1", "stage2", "stage3", "final"),
        (2, 4, 8, 16, 32, 32),
    ),
}
"""A narrow build of each, its feature maps in their order, and their strides."""


@pytest.mark.parametrize("space", [(49,), (64, 49), (33, 64, 2)])
@pytest.mark.parametrize("name", NETWORKS)
def test_documented_strides_at_every_rank(name, space):
    arguments, names, strides = NETWORKS[name]
    model = models.create(name, num_classes=5, in_channels=2, **arguments)
    x = jax.ShapeDtypeStruct((1, *space, 2), jnp.float32)
    order = []

    def features(key, x):
        maps, _ = model.init_with_output(key, x, train=False, method="features")
        order.extend(maps)
        return maps

    maps = jax.eval_shape(features, jax.random.key(0), x)
    assert tuple(order) == names
    expected = {key: (1, *(-(-n // stride) for n in space)) for key, stride in zip(names, strides, strict=True)}
    assert {key: leaf.shape[:-1] for key, leaf in maps.items()} == expected


@pytest.mark.parametrize(
    ("name", "momentum"),
    [("mnasnet", 0.9997), ("mobilenet_v1", 0.9), ("mobilenet_v3_small", 0.99), ("shufflenet_v2", 0.9)],
)
def test_the_smallest_image_and_the_momentum_of_every_norm(name, momentum, random_variables):
    arguments, _, _ = NETWORKS[name]
    model = models.create(name, num_classes=5, dropout_rate=0.0, **arguments)
    # One space axis of one pixel, equal in the whole batch, whose variance is then 0: the momentum of the running
    # variance is all that is left.
    x = jnp.ones((2, 1, 3))
    variables = random_variables(model, x)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})
    def run(variables, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    logits, updated = run(variables, x)
    assert np.isfinite(logits).all()
    before, after = (
        {path: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if path[-1].key == "var"}
        for tree in (variables["batch_stats"], updated["batch_stats"])
    )
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_allclose(after[path], momentum * value, rtol=1e-5, err_msg=str(path))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_without_pixels(name):
    model = models.create(name, num_classes=5, **NETWORKS[name][0])
    with pytest.raises(ImageTooSmallError, match=r"backbone/stem/conv.* image of 0×4 pixels"):
        model.init(jax.random.key(0), jnp.ones((2, 0, 4, 3)), train=False)


def test_mobilenet_v1_adds_nothing_and_has_an_activation_behind_each_half(random_variables):
    block = SeparableBlock(4, stride=1, activation="relu6", norm="none", dtype="float32")
    x = jnp.ones((1, 1, 4))
    variables = jax.tree.map(jnp.zeros_like, random_variables(block, x))
    apply = jax.jit(functools.partial(block.apply, train=False))
    np.testing.assert_array_equal(apply(variables, x), np.zeros(x.shape))
    variables["params"]["depthwise"]["conv"]["bias"] += 9.0
    variables["params"]["pointwise"]["conv"]["kernel"] += 0.5
    np.testing.assert_array_equal(apply(variables, x), np.full(x.shape, 6.0))  # 4 × 0.5 × min(9, 6) = 12, cut at 6


def test_mobilenet_v3_has_hard_swish_where_zoo_json_counts_it():
    model = models.create("mobilenet_v3_small", num_classes=5, activation="tanh", **NARROW)
    x = jax.ShapeDtypeStruct((1, 32, 3), jnp.float32)
    traced = jax.make_jaxpr(functools.partial(model.init_with_output, train=False))(jax.random.key(0), x)
    # The stem, eight blocks twice each, the last convolution and the hidden layer; the other stages keep ReLU.
    assert str(traced).count(" = tanh ") + str(traced).count("= tanh[") == 19


def test_half_of_the_channels_pass_a_shuffle_unit(random_variables):
    unit = ShuffleUnit(6, stride=1, activation="relu", norm="none", dtype="float32")
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 6))
    variables = random_variables(unit, x)
    apply = jax.jit(functools.partial(unit.apply, train=False))
    y = apply(variables, x)
    np.testing.assert_array_equal(y[..., ::2], x[..., :3])
    # The other half is made of the other half.
    changed = apply(variables, x.at[..., :3].set(0.0))
    np.testing.assert_array_equal(y[..., 1::2], changed[..., 1::2])
    assert (y[..., 1::2].max(axis=(0, 1, 2)) > 0).any()
