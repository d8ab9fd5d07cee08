"""Parameters that zoo.json does not count: numbers typed from papers or layer arithmetic, never from our own output."""

import functools
import itertools
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

# Liu et al. 2022, Section 3: a factor per channel of each of the 3, 3, 9 and 3 blocks.
CONVNEXT_SCALES = 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768

# Szegedy et al. 2015, Table 1: channels before and of the 5×5 convolutions, which torchvision builds as 3×3.
GOOGLENET_5X5 = ((16, 32), (32, 96), (16, 48), (24, 64), (24, 64), (32, 64), (32, 128), (32, 128), (48, 128))
GOOGLENET_MORE = sum((25 - 9) * inputs * outputs for inputs, outputs in GOOGLENET_5X5)

# Tran et al. 2018, Table 1: 3, 4, 6 and 3 blocks of two 3×3×3 convolutions, a projection where the channels change.
VIDEO_STAGES = ((64, 64, 3), (64, 128, 4), (128, 256, 6), (256, 512, 3))
R3D_34_COUNT = (
    (3 * 7 * 7 * 3 + 2) * 64  # stem
    + sum(
        27 * n * out + (2 * blocks - 1) * 27 * out * out + 2 * blocks * 2 * out + (n * out + 2 * out) * (n != out)
        for n, out, blocks in VIDEO_STAGES
    )
    + (512 + 1) * 400
)


def preact_resnet_count(blocks, classes=10):
    """resnet-pre-act.lua: stem 3×3, bottlenecks of norm and 1×1, norm and 3×3, norm and 1×1, projected at first."""
    count, n = 27 * 16, 16
    for middle in (16, 32, 64):
        out = 4 * middle
        for inputs in (n, *[out] * (blocks - 1)):
            count += 2 * inputs + inputs * middle + 2 * middle + 9 * middle**2 + 2 * middle + middle * out
        count, n = count + n * out, out
    return count + 2 * n + (n + 1) * classes


# torchvision's ResNet and, in each block of c output channels, c × r + r and r × c + c: Hu et al. 2018, Section 3, with
# c / r = 16, and r at least 8 as in timm.
BASIC, BOTTLENECK = ((64, 8), (128, 8), (256, 16), (512, 32)), ((256, 16), (512, 32), (1024, 64), (2048, 128))


def se_resnet_count(plain, gates, blocks):
    return plain + sum((2 * c * r + r + c) * n for (c, r), n in zip(gates, blocks, strict=True))


# Howard et al. 2017, Table 1 with a quarter of the channels. Per block: a 3×3 per channel, a 1×1, two norms.
QUARTER_MOBILENET_CHANNELS = (8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256)
QUARTER_MOBILENET_COUNT = (
    (27 + 2) * 8  # stem
    + sum((9 + 2) * n + (n + 2) * out for n, out in itertools.pairwise(QUARTER_MOBILENET_CHANNELS))
    + (256 + 1) * 1000
)

IMAGENET = {"num_classes": 1000}
CIFAR = {"num_classes": 10}
MNIST = {"num_classes": 10, "in_channels": 1}

# name, arguments, image, parameters, source
REFERENCES = [
    ("airbench94", {**CIFAR}, (32, 32, 3), sum(AIRBENCH_COUNT), "airbench94_muon.py, layer arithmetic"),
    ("capsule_network", {**MNIST}, (28, 28, 1), 8_215_568, "numbers.md, Others"),
    ("conv_pool_cnn_c", {**CIFAR}, (32, 32, 3), 1_369_738, "numbers.md, CIFAR"),
    ("model_c", {**CIFAR}, (32, 32, 3), 954_730, "numbers.md, CIFAR"),
    ("strided_cnn_c", {**CIFAR}, (32, 32, 3), 954_730, "numbers.md, CIFAR"),
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
    ("convnext", {**IMAGENET, "size": "small"}, (64, 64, 3), 50_223_688, "numbers of convnext_small"),
    ("convnext", {**IMAGENET, "layer_scale": None}, (64, 64, 3), 28_589_128 - CONVNEXT_SCALES, "layer arithmetic"),
    ("convnextv2", {**IMAGENET, "size": "tiny"}, (64, 64, 3), 28_635_496, "zoo.json, timm/convnextv2_tiny"),
    ("densenet_cifar", {**CIFAR}, (32, 32, 3), 1_019_722, "numbers.md, CIFAR"),
    ("densenet_imagenet", {**IMAGENET, "depth": 169}, (64, 64, 3), 14_149_480, "numbers of densenet169"),
    ("densenet121", {**IMAGENET, "stem": "cifar"}, (32, 32, 3), 7_978_856 - (49 - 9) * 3 * 64 - 128, "its stem alone"),
    ("googlenet", {**IMAGENET, "large_kernel_size": 5}, (64, 64, 3), 6_624_904 + GOOGLENET_MORE, "Table 1, 5×5"),
    ("lenet5", {**MNIST}, (28, 28, 1), 61_706, "numbers.md, Others"),
    ("lenet5_1998", {**MNIST}, (32, 32, 1), 60_000, "numbers.md, Others; LeCun et al. 1998"),
    ("mlp", {**MNIST}, (28, 28, 1), MLP_COUNT, "layer arithmetic"),
    ("mobilenet_v2", {**IMAGENET, "width_multiplier": 0.5}, (64, 64, 3), HALF_MOBILENET_COUNT, "layer arithmetic"),
    ("mobilenet_v2", {**CIFAR, "stem": "cifar"}, (32, 32, 3), 3_504_872 - 990 * 1281, "stems differ in strides alone"),
    ("mnasnet", {**IMAGENET}, (64, 64, 3), 4_383_312, "numbers of mnasnet1_0"),
    ("mnasnet", {**IMAGENET, "width_multiplier": 0.35}, (64, 64, 3), 1_788_232, "torchvision 0.28: MNASNet(0.35)"),
    ("mobilenet_v1", {**IMAGENET, "width_multiplier": 0.25}, (64, 64, 3), QUARTER_MOBILENET_COUNT, "layer arithmetic"),
    ("mobilenet_v3_large", {**IMAGENET, "width_multiplier": 0.75}, (64, 64, 3), 3_377_576, "torchvision 0.28"),
    ("mobilenet_v3_small", {**IMAGENET, "width_multiplier": 0.75}, (64, 64, 3), 1_653_920, "torchvision 0.28"),
    ("plain20", {**CIFAR}, (32, 32, 3), 269_722, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain32", {**CIFAR}, (32, 32, 3), 464_154, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain44", {**CIFAR}, (32, 32, 3), 658_586, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain56", {**CIFAR}, (32, 32, 3), 853_018, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain110", {**CIFAR}, (32, 32, 3), 1_727_962, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain1202", {**CIFAR}, (32, 32, 3), 19_421_274, "zoo.json, ResNet-1202: plain equals it"),
    ("preact_resnet_cifar", {**CIFAR, "depth": 11}, (32, 32, 3), preact_resnet_count(1), "layer arithmetic"),
    ("preact_resnet164", {**CIFAR}, (32, 32, 3), preact_resnet_count(18), "layer arithmetic; Table 4: 1.7 M"),
    ("preact_resnet1001", {**CIFAR}, (8, 8, 3), preact_resnet_count(111), "layer arithmetic; Table 4: 10.2 M"),
    ("resnetv2", {**IMAGENET, "depth": 50}, (64, 64, 3), 25_549_352, "zoo.json, timm/resnetv2_50"),
    ("resnetv2_18", {**IMAGENET}, (64, 64, 3), 11_687_720, "timm 1.0.31"),
    ("resnetv2_34", {**IMAGENET}, (64, 64, 3), 21_795_880, "timm 1.0.31"),
    ("resnetv2_101", {**IMAGENET}, (64, 64, 3), 44_541_480, "timm 1.0.31"),
    ("resnetv2_152", {**IMAGENET}, (64, 64, 3), 60_185_128, "timm 1.0.31"),
    ("video_resnet", {"num_classes": 400, "depth": 34}, (4, 32, 32, 3), R3D_34_COUNT, "layer arithmetic"),
    ("resnet_imagenet", {**IMAGENET, "depth": 50}, (224, 224, 3), 25_557_032, "numbers of resnet50"),
    *(
        (name, {**IMAGENET}, (64, 64, 3), se_resnet_count(*counts), "zoo.json's ResNet and layer arithmetic")
        for name, *counts in (
            ("seresnet18", 11_689_512, BASIC, (2, 2, 2, 2)),
            ("seresnet34", 21_797_672, BASIC, (3, 4, 6, 3)),
            ("seresnet50", 25_557_032, BOTTLENECK, (3, 4, 6, 3)),
            ("seresnet101", 44_549_160, BOTTLENECK, (3, 4, 23, 3)),
            ("seresnet152", 60_192_808, BOTTLENECK, (3, 8, 36, 3)),
        )
    ),
    ("fcn_resnet", {"num_classes": 21}, (64, 64, 3), 32_957_013, "zoo.json, fcn_resnet50"),
    ("deeplabv3_resnet", {"num_classes": 21}, (64, 64, 3), 39_638_869, "zoo.json, deeplabv3_resnet50"),
    ("shufflenet_v2", {**IMAGENET}, (64, 64, 3), 2_278_604, "numbers of shufflenet_v2_x1_0"),
    ("wide_resnet", {**CIFAR, "depth": 40, "widening": 4}, (32, 32, 3), 8_949_210, "numbers.md, CIFAR"),
]
SLOW = {"preact_resnet1001"}


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
            marks=[pytest.mark.slow] if row[0] in SLOW else [],
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
