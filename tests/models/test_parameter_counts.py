"""Every model has the parameters its paper counts: numbers typed from outside, never from our own output."""

import functools
import json
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
    ("lenet5", {**MNIST, "padding": 0}, (32, 32, 1), 61_706, "numbers.md, Others"),
    ("lenet5_1998", {**MNIST}, (32, 32, 1), 60_000, "numbers.md, Others; LeCun et al. 1998"),
    ("mlp", {**MNIST}, (28, 28, 1), MLP_COUNT, "layer arithmetic"),
    ("mobilenet_v2", {**IMAGENET}, (224, 224, 3), 3_504_872, "zoo.json, mobilenet_v2"),
    ("mobilenet_v2", {**IMAGENET, "width_multiplier": 0.5}, (64, 64, 3), HALF_MOBILENET_COUNT, "layer arithmetic"),
    ("mobilenet_v2", {**CIFAR, "stem": "cifar"}, (32, 32, 3), 3_504_872 - 990 * 1281, "stems differ in strides alone"),
    ("resnet_cifar", {**CIFAR, "shortcut": "B"}, (32, 32, 3), 272_474, "zoo.json, classic/cifar_resnet20_B"),
    ("resnet20", {**CIFAR}, (32, 32, 3), 269_722, "numbers.md, CIFAR"),
    ("resnet32", {**CIFAR}, (32, 32, 3), 464_154, "numbers.md, CIFAR"),
    ("resnet44", {**CIFAR}, (32, 32, 3), 658_586, "numbers.md, CIFAR"),
    ("resnet56", {**CIFAR}, (32, 32, 3), 853_018, "numbers.md, CIFAR"),
    ("resnet110", {**CIFAR}, (32, 32, 3), 1_727_962, "numbers.md, CIFAR"),
    ("resnet1202", {**CIFAR}, (32, 32, 3), 19_421_274, "zoo.json, classic/cifar_resnet1202_A"),
    ("plain20", {**CIFAR}, (32, 32, 3), 269_722, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain32", {**CIFAR}, (32, 32, 3), 464_154, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain44", {**CIFAR}, (32, 32, 3), 658_586, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain56", {**CIFAR}, (32, 32, 3), 853_018, "numbers.md: plain equals the ResNet of equal depth"),
    ("plain110", {**CIFAR}, (32, 32, 3), 1_727_962, "numbers.md: plain equals the ResNet of equal depth"),
    ("resnet_imagenet", {**IMAGENET, "depth": 50}, (224, 224, 3), 25_557_032, "zoo.json, resnet50"),
    ("resnet18", {**CIFAR, "stem": "cifar"}, (32, 32, 3), 11_173_962, "numbers.md, CIFAR"),
    ("resnet18", {**IMAGENET}, (224, 224, 3), 11_689_512, "zoo.json, resnet18"),
    ("resnet34", {**IMAGENET}, (224, 224, 3), 21_797_672, "zoo.json, resnet34"),
    ("resnet50", {**IMAGENET}, (224, 224, 3), 25_557_032, "zoo.json, resnet50"),
    ("resnet101", {**IMAGENET}, (224, 224, 3), 44_549_160, "zoo.json, resnet101"),
    ("resnet152", {**IMAGENET}, (224, 224, 3), 60_192_808, "zoo.json, resnet152"),
    ("wide_resnet", {**CIFAR, "depth": 40, "widening": 4}, (32, 32, 3), 8_949_210, "numbers.md, CIFAR"),
    ("wide_resnet16_4", {**CIFAR}, (32, 32, 3), 2_748_890, "numbers.md, CIFAR"),
    ("wide_resnet16_8", {**CIFAR}, (32, 32, 3), 10_961_370, "numbers.md, CIFAR"),
    ("wide_resnet28_10", {**CIFAR}, (32, 32, 3), 36_479_194, "numbers.md, CIFAR"),
    ("wide_resnet40_2", {**CIFAR}, (32, 32, 3), 2_243_546, "numbers.md, CIFAR"),
    ("wide_resnet40_4", {**CIFAR}, (32, 32, 3), 8_949_210, "numbers.md, CIFAR"),
]

# Names of zoo.json for the rows that it has too.
ZOO = {
    "lenet5": "classic/lenet5_modern",
    "lenet5_1998": "classic/lenet5_original",
    "mobilenet_v2": "mobilenet_v2",
    **{f"resnet{depth}": f"classic/cifar_resnet{depth}_A" for depth in (20, 32, 44, 56, 110, 1202)},
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
}


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
            marks=[pytest.mark.slow] if row[0] == "resnet1202" else [],
        )
        for row in REFERENCES
    ],
)
def test_parameter_count(name, arguments, image, expected):
    assert count(shapes(name, image, **arguments)["params"]) == expected


def test_every_model_has_a_reference():
    assert {row[0] for row in REFERENCES} == set(models.MODELS)


def test_references_equal_the_zoo(repository):
    zoo = json.loads((repository / "tests" / "reference" / "zoo.json").read_text())["models"]
    for name, arguments, _, expected, _ in REFERENCES:
        if name in ZOO and arguments.get("stem") != "cifar" and "width_multiplier" not in arguments:
            assert expected == zoo[ZOO[name]]["params"], name
    assert zoo["classic/cifar_resnet20_B"]["params"] == 272_474
    assert zoo["classic/resnet18_cifar_kuangliu"]["params"] == 11_173_962


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnet_stages_equal_the_zoo(depth, repository):
    zoo = json.loads((repository / "tests" / "reference" / "zoo.json").read_text())["models"]
    children = zoo[f"resnet{depth}"]["children"]
    params = shapes(f"resnet{depth}", (64, 64, 3), num_classes=1000)["params"]
    stages = {f"layer{i}": count(params["backbone"][f"stage{i}"]) for i in range(1, 5)}
    stem = {"conv1": count(params["backbone"]["stem"]["conv"]), "bn1": count(params["backbone"]["stem"]["norm"])}
    assert {**stem, **stages, "fc": count(params["head"])} == children


def test_a_dense_layer_on_an_imagenet_image():
    # numbers.md: a dense layer on a 224×224×3 image has 150,528 inputs
    params = shapes("mlp", (224, 224, 3), num_classes=10, hidden=(16,))["params"]
    assert params["head"]["dense1"]["kernel"].shape == (150_528, 16)
