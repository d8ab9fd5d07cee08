"""Pre-activation networks: strides at every rank, the order within a block, and where each kind subsamples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.models.preact_resnet import PreActivationBlock

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

CIFAR = {"stem": 1, "stage1": 1, "stage2": 2, "stage3": 4}
IMAGENET = {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
STRIDES = {
    "preact_resnet_cifar": ({"depth": 11}, CIFAR, 4),
    "resnetv2_18": ({}, IMAGENET, 1),
    "resnetv2": ({"depth": 18, "stem": "cifar"}, {**CIFAR, "stage4": 8}, 1),
}


def feature_maps(name, size, rank, arguments):
    model = models.create(name, num_classes=5, in_channels=2, width=4, **arguments)
    x = jax.ShapeDtypeStruct((1, *(size,) * rank, 2), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    return jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)


@pytest.mark.parametrize(("rank", "size"), [(1, 49), (2, 64), (2, 49), (2, 1), (3, 64)])
@pytest.mark.parametrize("name", STRIDES)
def test_documented_strides_at_every_rank(name, rank, size):
    arguments, strides, expansion = STRIDES[name]
    last = f"stage{len(strides) - 1}"
    expected = {key: (1, *(-(-size // stride),) * rank) for key, stride in strides.items()}
    expected["final"] = expected[last]
    maps = feature_maps(name, size, rank, arguments)
    assert {key: leaf.shape[:-1] for key, leaf in maps.items()} == expected
    channels = {key: leaf.shape[-1] for key, leaf in maps.items()}
    stages = {f"stage{i}": 4 * 2 ** (i - 1) * expansion for i in range(1, len(strides))}
    assert channels == {"stem": 4, **stages, "final": stages[last]}


def convolve(x, kernel, stride=1):
    pad = [(kernel.shape[0] // 2,) * 2] * 2
    out = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    return np.asarray(out)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kind", "strided", "inputs"),
    [("basic", 1, 6), ("bottleneck", 2, 24), ("bottleneck_2016", 1, 24), ("bottleneck_2016", 1, 6)],
)
def test_a_block_is_norm_activation_convolution_added_to_its_input(kind, strided, inputs, stride, random_variables):
    block = PreActivationBlock(
        kind, 6, stride=stride, activation="relu", norm="batch", dropout_rate=0.0, dtype="float32"
    )
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 8, inputs), dtype=np.float32))
    variables = random_variables(block, x)
    params, statistics = jax.device_get((variables["params"], variables["batch_stats"]))  # NumPy's arithmetic
    y = shortcut = np.asarray(x)
    for i in range(1, 3 if kind == "basic" else 4):
        norm, running = params[f"norm{i}"], statistics[f"norm{i}"]
        scale = norm["scale"] / np.sqrt(running["var"] + 1e-5)
        y = np.maximum(scale * (y - running["mean"]) + norm["bias"], 0)
        if i == 1 and "shortcut" in params:
            shortcut = convolve(y, params["shortcut"]["kernel"], stride)
        y = convolve(y, params[f"conv{i}"]["kernel"], stride if i == strided else 1)
    # Where the shape stays, the input passes as it is: neither normalised nor activated.
    assert ("shortcut" in params) == (stride != 1 or inputs != y.shape[-1])
    np.testing.assert_allclose(block.apply(variables, x, train=False), y + shortcut, rtol=1e-4, atol=1e-4)
