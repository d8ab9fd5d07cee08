"""Grouped, wider, gated and dilated bottlenecks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.models.resnet import Block

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

# Xie et al. 2017, Table 1 (32×4d), and torchvision's table: channels of the 3×3 convolution in stages 1 to 4, and of
# one of its groups.
INNER = {
    "resnet50": ((64, 64), (128, 128), (256, 256), (512, 512)),
    "resnext50_32x4d": ((128, 4), (256, 8), (512, 16), (1024, 32)),
    "resnext101_32x8d": ((256, 8), (512, 16), (1024, 32), (2048, 64)),
    "resnext101_64x4d": ((256, 4), (512, 8), (1024, 16), (2048, 32)),
    "wide_resnet50_2": ((128, 128), (256, 256), (512, 512), (1024, 1024)),
}


def shapes(model, space):
    x = jax.ShapeDtypeStruct((1, *space, model.in_channels), jnp.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x), x


@pytest.mark.parametrize("name", INNER)
def test_channels_and_groups(name):
    variables, _ = shapes(models.create(name, num_classes=5), (32, 32))
    for i, (channels, per_group) in enumerate(INNER[name], start=1):
        block = variables["params"]["backbone"][f"stage{i}"]["block2"]
        assert block["conv2"]["kernel"].shape == (3, 3, per_group, channels)
        assert block["conv3"]["kernel"].shape == (1, 1, channels, 256 * 2 ** (i - 1))


STRIDES = {
    ("imagenet", 32): (2, 4, 8, 16, 32),
    ("imagenet", 16): (2, 4, 8, 16, 16),
    ("imagenet", 8): (2, 4, 8, 8, 8),
    ("imagenet", 4): (2, 4, 4, 4, 4),
    ("cifar", 8): (1, 1, 2, 4, 8),
    ("cifar", 2): (1, 1, 2, 2, 2),
    ("cifar", 1): (1, 1, 1, 1, 1),
}


@pytest.mark.parametrize("space", [(64, 64), (49, 49), (33,)])
@pytest.mark.parametrize(("stem", "output_stride"), STRIDES)
def test_documented_strides(stem, output_stride, space):
    model = models.create("resnet_imagenet", num_classes=5, depth=14, width=4, stem=stem, output_stride=output_stride)
    variables, x = shapes(model, space)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    names = ("stem", *(f"stage{i}" for i in range(1, 5)))
    for name, stride in zip(names, STRIDES[stem, output_stride], strict=True):
        assert maps[name].shape[1:-1] == tuple(-(-size // stride) for size in space), name


@pytest.mark.parametrize("size", [40, 49])
def test_a_dilated_network_is_the_strided_one_at_every_offset(size, random_variables):
    # Where the strided network has a pixel, the dilated one has the same: the "algorithme à trous".
    arguments = {"num_classes": 5, "depth": 26, "width": 4, "groups": 2, "stem": "cifar"}
    strided, dilated = (models.create("resnet_imagenet", output_stride=stride, **arguments) for stride in (8, 2))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, size, 3), dtype=np.float32))
    variables = random_variables(strided, x)
    expected, found = (
        jax.jit(functools.partial(model.apply, train=False, method="features"))(variables, x)
        for model in (strided, dilated)
    )
    for stage, every in (("stage2", 1), ("stage3", 2), ("stage4", 4)):
        assert found[stage].shape[1] == -(-size // 2)
        np.testing.assert_allclose(found[stage][:, ::every], expected[stage], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "reduced"), [("basic", 8), ("bottleneck", 16)])
def test_the_gate_scales_the_residual_branch_alone(kind, reduced):
    make = functools.partial(
        Block,
        kind,
        features=16 if kind == "basic" else 64,
        stride=1,
        shortcut="B",
        activation="identity",
        norm="batch",
        zero_init_residual=False,
        kernel_init=nn.initializers.normal(0.1),
        dtype="float32",
    )
    plain, gated = make(), make(squeeze_reduction=16)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 4, 16 if kind == "basic" else 256)), jnp.float32)
    variables = jax.jit(functools.partial(gated.init, train=False))(jax.random.key(0), x)
    gate = variables["params"]["squeeze_excite"]
    assert gate["reduce"]["kernel"].shape == (1, 1, x.shape[-1], reduced)
    params = {key: value for key, value in variables["params"].items() if key != "squeeze_excite"}
    branch = plain.apply({**variables, "params": params}, x, train=False) - x
    opened = {**gate, "expand": jax.tree.map(jnp.zeros_like, gate["expand"])}  # sigmoid(0) is a half.
    found = gated.apply({**variables, "params": {**params, "squeeze_excite": opened}}, x, train=False)
    np.testing.assert_allclose(found, x + branch / 2, rtol=1e-5, atol=1e-5)


def test_gates_take_their_mean_in_float32(random_variables):
    model, low = (
        models.create("seresnet18", num_classes=5, width=4, stem="cifar", dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16, 16, 3), dtype=np.float32))
    variables = random_variables(model, x)
    full, logits = (jax.jit(functools.partial(net.apply, train=False))(variables, x) for net in (model, low))
    assert logits.dtype == jnp.float32
    assert 0 < float(jnp.abs(full - logits).max()) < 0.1 * float(jnp.abs(full).max())


def test_one_pixel_is_enough():
    arguments = {"depth": 14, "width": 4, "groups": 2, "squeeze_reduction": 4, "output_stride": 8}
    model = models.create("resnet_imagenet", num_classes=5, **arguments)
    variables, x = shapes(model, (1, 1))
    assert jax.eval_shape(functools.partial(model.apply, train=False), variables, x).shape == (1, 5)
