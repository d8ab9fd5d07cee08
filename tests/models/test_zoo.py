"""Parameters and multiply-accumulates of every network that zoo.json counts, as its reference builds it."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import pytest

from cnn_jax import models
from cnn_jax.methods.summarize import summarize

TORCHVISION = {
    "alexnet": {},
    **{f"squeezenet{version}": {} for version in ("1_0", "1_1")},
    **{f"vgg{depth}{norm}": {} for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
    **{f"convnext_{size}": {} for size in ("tiny", "small", "base", "large")},
    **{f"densenet{depth}": {} for depth in (121, 161, 169, 201)},
    **{f"efficientnet_b{scale}": {} for scale in range(8)},
    **{f"efficientnet_v2_{size}": {} for size in ("s", "m", "l")},
    **{f"mnasnet{width}": {} for width in ("0_5", "0_75", "1_0", "1_3")},
    "mobilenet_v2": {},
    **{f"mobilenet_v3_{size}": {} for size in ("large", "small")},
    **{f"regnet_x_{macs}": {} for macs in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")},
    **{f"regnet_y_{macs}": {} for macs in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")},
    **{f"{name}_18": {} for name in ("r3d", "mc3", "r2plus1d")},
    **{f"resnet{depth}": {} for depth in (18, 34, 50, 101, 152)},
    **{f"resnext{kind}": {} for kind in ("50_32x4d", "101_32x8d", "101_64x4d")},
    **{f"wide_resnet{depth}_2": {} for depth in (50, 101)},
    **{f"{head}_resnet{depth}": {} for head in ("fcn", "deeplabv3") for depth in (50, 101)},
    **{f"shufflenet_v2_{width}": {} for width in ("x0_5", "x1_0", "x1_5", "x2_0")},
}
"""Models that have torchvision's name, and the arguments with which they are torchvision's."""

OTHERS = {
    "googlenet_aux": ("googlenet", {"auxiliary": True}),
    "googlenet_noaux": ("googlenet", {}),
    "inception_v3_aux": ("inception_v3", {"auxiliary": True}),
    "inception_v3_noaux": ("inception_v3", {}),
    "timm/inception_v3": ("inception_v3", {}),
    "timm/inception_v4": ("inception_v4", {}),
    "timm/legacy_xception": ("xception", {}),
    **{f"classic/densenet_{depth}_12": (f"densenet{depth}_12", {}) for depth in (40, 100)},
    **{f"classic/densenet_bc_{depth}_{k}": (f"densenet_bc{depth}_{k}", {}) for depth, k in ((100, 12), (250, 24))},
    "classic/densenet_bc_190_40": ("densenet_bc190_40", {}),
    **{f"timm/convnext_{size}": (f"convnext_{size}", {}) for size in ("atto", "femto", "pico", "nano")},
    **{f"timm/convnextv2_{size}": (f"convnextv2_{size}", {}) for size in ("atto", "tiny")},
    "classic/alexnet_original": ("alexnet_2012", {}),
    "classic/all_cnn_c": ("all_cnn_c", {}),
    "classic/nin_cifar": ("nin", {}),
    "classic/lenet5_modern": ("lenet5", {"padding": 0}),
    "classic/cifar_resnet20_B": ("resnet_cifar", {"depth": 20, "shortcut": "B"}),
    **{f"classic/cifar_resnet{depth}_A": (f"resnet{depth}", {}) for depth in (20, 32, 44, 56, 110, 1202)},
    "classic/resnet18_cifar_kuangliu": ("resnet18", {"stem": "cifar"}),
    "classic/wrn_22_8": ("wide_resnet", {"depth": 22, "widening": 8}),
    **{f"classic/wrn_{depth}_{k}": (f"wide_resnet{depth}_{k}", {}) for depth, k in ((28, 10), (16, 8), (40, 4))},
    **{f"classic/wrn_{depth}_{k}": (f"wide_resnet{depth}_{k}", {}) for depth, k in ((16, 4), (40, 2))},
    **{f"timm/efficientnet_lite{scale}": (f"efficientnet_lite{scale}", {}) for scale in range(5)},
    "timm/regnety_004": ("regnet", {}),
    "timm/resnetv2_50": ("resnetv2_50", {}),
    **{
        f"{head}_resnet{depth}_aux": (f"{head}_resnet{depth}", {"auxiliary": True})
        for head in ("fcn", "deeplabv3")
        for depth in (50, 101)
    },
    "timm/seresnet50": ("seresnet50", {}),
    "timm/seresnext50_32x4d": ("seresnext50_32x4d", {}),
    "timm/mnasnet_100": ("mnasnet1_0", {}),
    "timm/mobilenetv1_100": ("mobilenet_v1", {}),
    "timm/mobilenetv1_125": ("mobilenet_v1", {"width_multiplier": 1.25}),
}
"""Names of zoo.json, our models and their arguments, where they differ."""

ROWS = {**{name: (name, arguments) for name, arguments in TORCHVISION.items()}, **OTHERS}
COUNTED_ELSEWHERE = {
    *("convnext", "convnextv2", "densenet_cifar", "densenet_imagenet"),
    *("airbench94", "classic_stack", "lenet5_1998", "mlp"),
    *("capsule_network", "conv_pool_cnn_c", "model_c", "strided_cnn_c"),
    *("mnasnet", "shufflenet_v2"),
    *("preact_resnet_cifar", "preact_resnet164", "preact_resnet1001", "video_resnet"),
    *("resnetv2", "resnetv2_18", "resnetv2_34", "resnetv2_101", "resnetv2_152"),
    *("plain20", "plain32", "plain44", "plain56", "plain110", "plain1202", "resnet_imagenet"),
    *("seresnet18", "seresnet34", "seresnet101", "seresnet152", "fcn_resnet", "deeplabv3_resnet"),
}
"""Models whose numbers stand in REFERENCES of test_parameter_counts.py."""
SLOW = {
    *(
        "classic/cifar_resnet1202_A",
        "classic/densenet_100_12",
        "classic/densenet_bc_190_40",
        "classic/densenet_bc_250_24",
    ),
    *("densenet161", "densenet201", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l"),
}
"""Rows whose trace takes seconds; their numbers of parameters are in `test_multiply_accumulates`, too."""


@pytest.fixture(scope="module")
def zoo(repository):
    return json.loads((repository / "tests" / "reference" / "zoo.json").read_text(encoding="utf-8"))["models"]


def build(name, reference):
    """The model of a row, and an image of its reference."""
    model, arguments = ROWS[name]
    channels, *space = reference["input"]
    output = reference["output"]
    classes = (output["out"] if isinstance(output, dict) else output)[1]
    return models.create(model, **{"num_classes": classes, "in_channels": channels, **arguments}), (*space, channels)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in ROWS])
def test_parameters(name, zoo):
    model, image = build(name, zoo[name])
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), jax.ShapeDtypeStruct((1, *image), jnp.float32)
    )
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])) == zoo[name]["params"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_multiply_accumulates(name, zoo):
    model, image = build(name, zoo[name])
    output = zoo[name]["output"]
    # torchvision's networks for segmentation compute the auxiliary logits at every call.
    method = "with_auxiliary" if isinstance(output, dict) and "aux" in output else "__call__"
    totals = summarize(model, image, method=method).totals
    assert totals.parameters == zoo[name]["params"]
    assert abs(totals.macs / (zoo[name]["gmacs"] * 1e9) - 1) <= 1e-3


def test_every_model_has_a_reference():
    assert {model for model, _ in ROWS.values()} | COUNTED_ELSEWHERE == set(models.MODELS)
