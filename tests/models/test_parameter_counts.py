"""Parameters that zoo.json does not count: numbers typed from papers or layer arithmetic, never from our own output."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from cnn_jax import models

# Counts by layer arithmetic: (inputs + 1 bias) × outputs per layer.
MLP_COUNT = (28 * 28 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 10
NARROW_STACK_COUNT = (
    *(((5 * 5 * 3 + 1) * 8, (3 * 3 * 8) * 12 + 12)),  # conv 8 5×5, conv 12 3×3
    *((2 * 8, 2 * 12)),  # GroupNorm scales and biases
    *(((8 * 8 * 12 + 1) * 20, (20 + 1) * 7)),  # 32 → 16 → 8 pixels, dense 20, dense 7
)
# airbench94_muon.py: 24 filters 2×2 with biases, three groups of two 3×3 convolutions without, a bias per norm and
# channel (no scale), and a head of 256 × 10 without bias.
AIRBENCH_COUNT = (
    *((2 * 2 * 3 + 1) * 24, 9 * 24 * 64, 9 * 64 * 64, 9 * 64 * 256, 3 * 9 * 256 * 256),
    *(2 * (64 + 256 + 256), 256 * 10),
)

# Sandler et al. 2018, Table 2 with half the channels, rounded to multiples of 8; the last convolution stays. Per block:
# t, inputs, outputs; kernels 1×1, 3×3 per channel, 1×1; a norm has two numbers per channel.
HALF_MOBILENET_BLOCKS = (
    *((1, 16, 8), (6, 8, 16), (6, 16, 16), (6, 16, 16), (6, 16, 16), (6, 16, 16)),
    *((6, 16, 32), *[(6, 32, 32)] * 3, (6, 32, 48), *[(6, 48, 48)] * 2, (6, 48, 80), *[(6, 80, 80)] * 2, (6, 80, 160)),
)
HALF_MOBILENET_COUNT = (
    (27 + 2) * 16  # stem
    + sum(
        (n * t * n + 2 * t * n) * (t > 1) + (9 + 2) * t * n + t * n * out + 2 * out
        for t, n, out in HALF_MOBILENET_BLOCKS
    )
    + (160 + 2) * 1280
    + (1280 + 1) * 1000
)

IMAGENET = {"num_classes": 1000}
CIFAR = {"num_classes": 10}
MNIST = {"num_classes": 10, "in_channels": 1}

# name, arguments, image, parameters, source
REFERENCES = [
    ("airbench94", {**CIFAR}, (32, 32, 3), sum(AIRBENCH_COUNT), "airbench94_muon.py, layer arithmetic"),
    ("classic_stack", {**CIFAR}, (32, 32, 3), 167_562, "numbers.md, Worked examples"),
    ("classic_stack", {**MNIST, "dense": ()}, (28, 28, 1), 34_826, "numbers.md, Worked examples"),
    (
        "classic_stack",
        {
            "num_classes": 7,
            "channels": (8, 12),
            "kernel_size": (5, 3),
            "padding": "same",
            "norm": "group",
            "dense": (20,),
        },
        (32, 32, 3),
        sum(NARROW_STACK_COUNT),
        "layer arithmetic",
    ),
    ("lenet5", {**MNIST}, (28, 28, 1), 61_706, "numbers.md, Others"),
    ("lenet5_1998", {**MNIST}, (32, 32, 1), 60_000, "numbers.md, Others; LeCun et al. 1998"),
    ("mlp", {**MNIST}, (28, 28, 1), MLP_COUNT, "layer arithmetic"),
    ("mobilenet_v2", {**IMAGENET, "width_multiplier": 0.5}, (64, 64, 3), HALF_MOBILENET_COUNT, "layer arithmetic"),
    ("mobilenet_v2", {**CIFAR, "stem": "cifar"}, (32, 32, 3), 3_504_872 - 990 * 1281, "stems differ in strides alone"),
    ("plain20", {**CIFAR}, (32, 32, 3), 269_722, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain32", {**CIFAR}, (32, 32, 3), 464_154, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain44", {**CIFAR}, (32, 32, 3), 658_586, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain56", {**CIFAR}, (32, 32, 3), 853_018, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain110", {**CIFAR}, (32, 32, 3), 1_727_962, "numbers.md: plain equals the ResNet of equal depth"),
    ("resnet_imagenet", {**IMAGENET, "depth": 50}, (224, 224, 3), 25_557_032, "numbers of resnet50"),
    ("wide_resnet", {**CIFAR, "depth": 40, "widening": 4}, (32, 32, 3), 8_949_210, "numbers.md, CIFAR"),
]


def shapes(name, image, **arguments):
    init = functools.partial(models.create(name, **arguments).init, train=False)
    return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image), jnp.float32))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "arguments", "image", "expected"),
    [
        pytest.param(
            *row[:4],
            id="-".join([row[0], *(f"{key}={value}" for key, value in row[1].items() if key != "num_classes")]),
        )
        for row in REFERENCES
    ],
)
def test_parameter_count(name, arguments, image, expected):
    assert count(shapes(name, image, **arguments)["params"]) == expected


def test_a_dense_layer_on_an_imagenet_image():
    # numbers.md: a dense layer on a 224×224×3 image has 150,528 inputs
    params = shapes("mlp", (224, 224, 3), num_classes=10, hidden=(16,))["params"]
    assert params["head"]["dense1"]["kernel"].shape == (150_528, 16)
