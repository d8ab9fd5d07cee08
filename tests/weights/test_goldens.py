"""Converted weights give the logits and feature maps that torchvision and timm give: every reference in golden/."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, weights
from cnn_jax.models.reference import PROVEN


@dataclasses.dataclass(frozen=True)
class Golden:
    """One file in golden/ and how to compute it.

    Attributes:
      model: a key of MODELS.
      taps: our feature maps and what the reference calls them, in the order of the network.
      arguments: of the model, besides classes and channels.
      slow: not one of the few that the fast suite proves.
    """

    model: str
    taps: Mapping[str, str]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    slow: bool = True


LAYERS = {"stem": "relu", **{f"stage{i}": f"layer{i}" for i in range(1, 5)}}
DILATED = {ours: f"backbone.{theirs}" for ours, theirs in LAYERS.items()}
DENSENET = {"stem": "features.relu0", **{f"stage{i}": f"features.denseblock{i}" for i in range(1, 5)}}
CONVNEXT = {"stem": "features.0", **{f"stage{i}": f"features.{2 * i - 1}" for i in range(1, 5)}}
CONVNEXT_TIMM = {"stem": "stem", **{f"stage{i}": f"stages.{i - 1}" for i in range(1, 5)}}
MOBILENET_V2 = {
    "stem": "features.0",
    **{f"stage{i}": f"features.{last}" for i, last in enumerate((1, 3, 6, 10, 13, 16, 17), start=1)},
    "final": "features.18",
}
MOBILENET_V3_LARGE = {
    "stem": "features.0",
    **{f"stage{i}": f"features.{last}" for i, last in enumerate((1, 3, 6, 10, 12, 15), start=1)},
    "final": "features.16",
}
MOBILENET_V3_SMALL = {
    "stem": "features.0",
    **{f"stage{i}": f"features.{last}" for i, last in enumerate((1, 3, 6, 8, 11), start=1)},
    "final": "features.12",
}
EFFICIENTNET = {"stem": "features.0", **{f"stage{i}": f"features.{i}" for i in range(1, 8)}, "final": "features.8"}
EFFICIENTNET_V2 = {"stem": "features.0", **{f"stage{i}": f"features.{i}" for i in range(1, 7)}, "final": "features.7"}
EFFICIENTNET_LITE = {"stem": "bn1", **{f"stage{i}": f"blocks.{i - 1}" for i in range(1, 8)}, "final": "bn2"}
REGNET = {"stem": "stem", **{f"stage{i}": f"trunk_output.block{i}" for i in range(1, 5)}}
MNASNET = {"stem": "layers.2", **{f"stage{i}": f"layers.{i + 6}" for i in range(1, 8)}, "final": "layers.16"}
SHUFFLENET_V2 = {
    **{"stem": "conv1", "pool": "maxpool"},
    **{f"stage{i}": f"stage{i + 1}" for i in range(1, 4)},
    "final": "conv5",
}
RESNETV2 = {"stem": "stem.conv", **{f"stage{i}": f"stages.{i - 1}" for i in range(1, 5)}, "final": "norm"}
GOOGLENET = {
    **{"stem": "conv1", "stage1": "conv3", "stage2": "inception3b"},
    **{"stage3_block1": "inception4a", "stage3_block4": "inception4d", "stage3": "inception4e"},
    "stage4": "inception5b",
}
INCEPTION_V3 = {
    **{"stem": "Conv2d_2b_3x3", "stage1": "Conv2d_4a_3x3"},
    **{"stage2": "Mixed_5d", "stage3": "Mixed_6e", "stage4": "Mixed_7c"},
}
INCEPTION_V4 = {
    name: f"features.{last}" for name, last in zip(("stem", *(f"stage{i}" for i in range(1, 5))), (2, 4, 9, 17, 21))
}
VIDEO = {"stem": "stem", **{f"stage{i}": f"layer{i}" for i in range(1, 5)}}


def vgg_taps(convolutions, *, norm):
    """torchvision counts the convolutions, norms, activations and pools."""
    taps, index = {}, -1
    for i, layers in enumerate(convolutions, start=1):
        for j in range(1, layers + 1):
            index += 2 + norm
            taps[f"stage{i}_conv{j}"] = f"features.{index}"
        index += 1
        taps[f"stage{i}"] = f"features.{index}"
    return taps


ALEXNET = {
    **{"stage1_conv1": "features.1", "stage1": "features.2", "stage2_conv1": "features.4", "stage2": "features.5"},
    **{f"stage3_conv{j}": f"features.{2 * j + 5}" for j in range(1, 4)},
    "stage3": "features.12",
}


def squeezenet_taps(*stages):
    return {"stem": "features.1", **{f"stage{i}": f"features.{last}" for i, last in enumerate(stages, start=1)}}


GOLDENS = {
    "alexnet": Golden("alexnet", ALEXNET, slow=False),
    "squeezenet1_0": Golden("squeezenet1_0", squeezenet_taps(5, 10, 12)),
    "squeezenet1_1": Golden("squeezenet1_1", squeezenet_taps(4, 7, 12), slow=False),
    "vgg11": Golden("vgg11", vgg_taps((1, 1, 2, 2, 2), norm=False)),
    "vgg16_bn": Golden("vgg16_bn", vgg_taps((2, 2, 3, 3, 3), norm=True)),
    "googlenet_aux": Golden("googlenet", GOOGLENET, {"auxiliary": True}),
    "googlenet_noaux": Golden("googlenet", GOOGLENET),
    "inception_v3_noaux": Golden("inception_v3", INCEPTION_V3),
    "timm_inception_v4": Golden("inception_v4", INCEPTION_V4),
    "convnext_tiny": Golden("convnext_tiny", CONVNEXT),
    # Its "final" is the reference's norm5 behind a ReLU, which has no tap.
    "densenet121": Golden("densenet121", DENSENET),
    "efficientnet_b0": Golden("efficientnet_b0", EFFICIENTNET),
    "efficientnet_v2_s": Golden("efficientnet_v2_s", EFFICIENTNET_V2),
    "mnasnet1_0": Golden("mnasnet1_0", MNASNET),
    "mobilenet_v2": Golden("mobilenet_v2", MOBILENET_V2),
    "mobilenet_v3_large": Golden("mobilenet_v3_large", MOBILENET_V3_LARGE),
    "mobilenet_v3_small": Golden("mobilenet_v3_small", MOBILENET_V3_SMALL),
    "mc3_18": Golden("mc3_18", VIDEO),
    "r2plus1d_18": Golden("r2plus1d_18", VIDEO),
    "r3d_18": Golden("r3d_18", VIDEO),
    "regnet_y_400mf": Golden("regnet_y_400mf", REGNET),
    "resnet18": Golden("resnet18", LAYERS, slow=False),
    "resnet50": Golden("resnet50", LAYERS),
    "resnext50_32x4d": Golden("resnext50_32x4d", LAYERS),
    "wide_resnet50_2": Golden("wide_resnet50_2", LAYERS),
    "timm_seresnet50": Golden("seresnet50", {**LAYERS, "stem": "act1"}),
    "fcn_resnet50": Golden("fcn_resnet50", DILATED),
    "deeplabv3_resnet50": Golden("deeplabv3_resnet50", DILATED),
    "shufflenet_v2_x1_0": Golden("shufflenet_v2_x1_0", SHUFFLENET_V2),
    "timm_efficientnet_lite0": Golden("efficientnet_lite0", EFFICIENTNET_LITE),
    "timm_resnetv2_50": Golden("resnetv2_50", RESNETV2),
    "timm_mobilenetv1_100": Golden(
        "mobilenet_v1", {"stem": "bn1", **{f"stage{i}": f"blocks.{i - 1}" for i in range(1, 6)}}, slow=False
    ),
    "timm_convnextv2_atto": Golden("convnextv2_atto", CONVNEXT_TIMM),
}
"""By the name of the file."""


def test_every_reference_is_computed(golden):
    assert set(GOLDENS) == set(golden.names())
    assert {row.model for row in GOLDENS.values()} == set(PROVEN)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if row.slow else []) for name, row in GOLDENS.items()]
)
def test_logits_equal_the_reference(name, golden):
    row = GOLDENS[name]
    state, x, meta = golden.load(name)
    variables = weights.convert(row.model, state, **row.arguments)
    classes = meta["outputs"]["logits"]["shape"][-1]
    model = models.create(row.model, num_classes=classes, **row.arguments)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})
    def run(variables, x):
        return model.apply(variables, x, train=False), model.apply(variables, x, train=False, method="features")

    logits, maps = run(variables, jnp.asarray(x))
    # Or 100 times the reference's own error in float32, where that is more: deep networks.
    bound = max(1e-4, 100 * meta["float32_vs_float64"]["logits"])
    # In the order of the network: the first that differs is where the fault is.
    for ours, theirs in row.taps.items():
        assert golden.compare(maps[ours], meta["taps"][theirs]) <= bound, ours
    assert golden.compare(logits, meta["outputs"]["logits"]) <= bound
    assert set(row.taps) <= set(maps)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "resnet18" else [pytest.mark.slow]) for name in GOLDENS],
)
def test_the_way_back_is_exact(name, golden):
    row = GOLDENS[name]
    _, _, meta = golden.load(name)
    # Every number is another one, so that no two can be exchanged unseen.
    sizes = {key: int(np.prod(shape)) for key, (shape, *_) in meta["tensors"].items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()])[:-1] % 2**24, strict=True))
    state = {
        key: (np.arange(sizes[key], dtype=np.float32) + np.float32(starts[key])).reshape(shape)
        for key, (shape, *_) in meta["tensors"].items()
        if not key.endswith("num_batches_tracked")
    }
    back = weights.to_torch(row.model, weights.convert(row.model, state, **row.arguments))
    assert set(back) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)
