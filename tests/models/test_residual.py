"""Residual networks: strides at every rank, shortcuts, and starts."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.models.resnet import Block, Shortcut
from cnn_jax.nn.conv import he_fan_in, he_fan_out

STRIDES = {
    ("resnet20", "cifar"): {"stem": 1, "stage1": 1, "stage2": 2, "stage3": 4},
    ("resnet18", "cifar"): {"stem": 1, "stage1": 1, "stage2": 2, "stage3": 4, "stage4": 8},
    ("resnet18", "imagenet"): {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32},
    ("resnet50", "imagenet"): {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32},
}


@pytest.mark.parametrize("size", [64, 49])
@pytest.mark.parametrize("rank", [2, *(pytest.param(rank, marks=pytest.mark.slow) for rank in (1, 3))])
@pytest.mark.parametrize(("name", "stem"), STRIDES)
def test_documented_strides_at_every_rank(name, stem, rank, size):
    arguments = {} if name == "resnet20" else {"stem": stem}
    model = models.create(name, num_classes=5, in_channels=2, width=4, **arguments)
    x = jax.ShapeDtypeStruct((1, *(size,) * rank, 2), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    logits = jax.eval_shape(functools.partial(model.apply, train=False), variables, x)
    expected = {key: (1, *(-(-size // stride),) * rank) for key, stride in STRIDES[name, stem].items()}
    assert {key: leaf.shape[:-1] for key, leaf in maps.items()} == expected
    expansion = 4 if name == "resnet50" else 1
    for i in range(1, len(maps)):
        assert maps[f"stage{i}"].shape[-1] == 4 * 2 ** (i - 1) * expansion
    assert logits.shape == (1, 5)


def shortcut(kind, features, stride):
    return Shortcut(features, stride, kind=kind, norm="batch", kernel_init=he_fan_in, dtype="float32")


@pytest.mark.parametrize("space", [(7,), (7, 6), (4, 5, 6)])
def test_option_a_subsamples_and_appends_zeros(space):
    x = jax.random.normal(jax.random.key(0), (2, *space, 3))
    layer = shortcut("A", 5, 2)
    y, variables = layer.init_with_output(jax.random.key(0), x, train=False)
    assert variables == {}
    every_other = np.asarray(x)[(slice(None), *(slice(None, None, 2),) * len(space))]
    np.testing.assert_array_equal(y[..., :3], every_other)
    np.testing.assert_array_equal(y[..., 3:], 0)


@pytest.mark.parametrize("kind", ["A", "B"])
def test_a_shortcut_of_equal_shape_is_the_input(kind):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    y, variables = shortcut(kind, 3, 1).init_with_output(jax.random.key(0), x, train=False)
    assert variables == {}
    np.testing.assert_array_equal(y, x)


def test_option_b_is_a_strided_matrix():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    y, variables = shortcut("B", 6, 2).init_with_output(jax.random.key(0), x, train=False)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])[0, 0]
    np.testing.assert_allclose(y, np.asarray(x)[:, ::2, ::2] @ kernel / np.sqrt(1 + 1e-5), atol=1e-5)


NARROW = {"num_classes": 5, "depth": 8, "width": 4}


def normal(shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def test_small_images_with_bottlenecks():
    # Figure 5, right: c -> 1×1 f, 3×3 f, 1×1 4f, each with a norm of two numbers per channel; option A adds nothing.
    model = models.create("resnet_cifar", num_classes=5, depth=11, width=4, block="bottleneck")
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    shapes = {"stem": (16, 16, 4), "stage1": (16, 16, 16), "stage2": (8, 8, 32), "stage3": (4, 4, 64)}
    assert {name: leaf.shape[1:] for name, leaf in maps.items()} == shapes
    blocks = [c * f + 9 * f * f + 4 * f * f + 2 * (f + f + 4 * f) for c, f in ((4, 4), (16, 8), (32, 16))]
    stem, head = 9 * 3 * 4 + 2 * 4, (64 + 1) * 5
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == stem + sum(blocks) + head


def test_plain_is_the_resnet_without_its_shortcuts(random_variables):
    x = normal((2, 16, 16, 3))
    model, plain = (models.create("resnet_cifar", shortcut=shortcut, **NARROW) for shortcut in ("A", "none"))
    variables = random_variables(model, x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, random_variables(plain, x))
    maps, plain_maps = (
        jax.jit(functools.partial(net.apply, train=False, method="features"))(variables, x) for net in (model, plain)
    )
    np.testing.assert_allclose(maps["stem"], plain_maps["stem"], atol=1e-6)
    # At the first block, F(x) is known where the plain net is positive: relu(F + x) = F + x there, as x is positive.
    positive = np.asarray(plain_maps["stage1"]) > 0
    difference = np.asarray(maps["stage1"] - plain_maps["stage1"])
    np.testing.assert_allclose(difference[positive], np.asarray(maps["stem"])[positive], atol=1e-5)


@pytest.mark.parametrize(("kind", "last"), [("basic", "norm2"), ("bottleneck", "norm3")])
def test_zero_init_residual_starts_a_block_as_its_shortcut(kind, last):
    block = Block(
        kind,
        features=4,
        stride=2,
        shortcut="A",
        activation="relu",
        norm="batch",
        zero_init_residual=True,
        kernel_init=nn.initializers.constant(0.3),
        dtype="float32",
    )
    x = normal((1, 4, 4, 2))
    y, variables = block.init_with_output(jax.random.key(0), x, train=False)
    for name, layer in variables["params"].items():
        if name.startswith("norm"):
            np.testing.assert_array_equal(layer["scale"], 0.0 if name == last else 1.0)
        else:
            np.testing.assert_array_equal(layer["kernel"], np.float32(0.3))
    np.testing.assert_array_equal(y[..., :2], np.maximum(x[:, ::2, ::2], 0))
    np.testing.assert_array_equal(y[..., 2:], 0)


def test_the_families_start_from_the_variances_of_their_sources():
    # He et al. 2016, Section 4.2 after He et al. 2015, Eq. 10; torchvision's resnet.py: fan_out
    assert models.create("resnet20", num_classes=5).backbone.kernel_init is he_fan_in
    assert models.create("resnet18", num_classes=5).backbone.kernel_init is he_fan_out


def test_batch_norm_leaves_no_bias_and_no_norm_brings_it_back():
    for norm, leaves in (("batch", {"kernel"}), ("none", {"kernel", "bias"})):
        model = models.create("resnet_cifar", norm=norm, shortcut="B", **NARROW)
        x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
        variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
        backbone = variables["params"]["backbone"]
        assert set(backbone["stem"]["conv"]) == leaves
        assert set(backbone["stage1"]["block1"]["conv1"]) == leaves
        assert set(backbone["stage2"]["block1"]["shortcut"]["conv"]) == leaves


@pytest.mark.parametrize("arguments", [{}, {"norm": "group", "shortcut": "B", "activation": "prelu"}])
def test_every_parameter_gets_a_gradient(arguments, random_variables):
    model = models.create("resnet_cifar", **NARROW, **arguments)
    x = normal((2, 16, 16, 3))
    variables = random_variables(model, x)
    weights = normal((2, 5))

    @jax.jit
    def run(params):
        def loss(params):
            logits, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(weights * logits)

        return jax.grad(loss)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(run(variables["params"])):
        assert np.abs(leaf).max() > 1e-5, jax.tree_util.keystr(path)


def test_a_bottleneck_has_its_stride_on_the_3x3_convolution():
    # torchvision's resnet.py, "v1.5"; He et al. 2016 have it on the first 1×1.
    model = models.create("resnet50", num_classes=5, width=4)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    run = functools.partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    _, captured = jax.eval_shape(run, variables, x)
    block = captured["intermediates"]["backbone"]["stage2"]["block1"]
    sizes = [block[f"conv{i}"]["__call__"][0].shape[1] for i in (1, 2, 3)]
    assert sizes == [16, 8, 8]
