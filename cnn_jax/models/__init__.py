"""Model families, one a file, and the literal table of everything that a config can name."""

import inspect
import numbers
import types
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn

from cnn_jax.errors import UserError, unknown_name
from cnn_jax.models.airbench import airbench94
from cnn_jax.models.alexnet import alexnet, alexnet_2012
from cnn_jax.models.all_cnn import all_cnn
from cnn_jax.models.capsule_network import capsule_network
from cnn_jax.models.classic_stack import classic_stack
from cnn_jax.models.convnext_presets import convnext, convnextv2
from cnn_jax.models.densenet_presets import densenet_cifar, densenet_imagenet
from cnn_jax.models.efficientnet_presets import efficientnet, efficientnet_lite, efficientnet_v2
from cnn_jax.models.googlenet import googlenet
from cnn_jax.models.inception_v3 import inception_v3
from cnn_jax.models.inception_v4 import inception_v4
from cnn_jax.models.lenet import lenet5
from cnn_jax.models.lenet_1998 import lenet5_1998
from cnn_jax.models.mlp import mlp
from cnn_jax.models.mnasnet import mnasnet
from cnn_jax.models.mobilenet_v1 import mobilenet_v1
from cnn_jax.models.mobilenet_v2 import mobilenet_v2
from cnn_jax.models.mobilenet_v3 import mobilenet_v3
from cnn_jax.models.nin import nin
from cnn_jax.models.preact_resnet import preact_resnet_cifar, resnetv2
from cnn_jax.models.regnet import DESIGNS as REGNETS
from cnn_jax.models.regnet import regnet
from cnn_jax.models.resnet_presets import resnet_cifar, resnet_imagenet
from cnn_jax.models.segmentation import deeplabv3_resnet, fcn_resnet
from cnn_jax.models.shufflenet_v2 import CHANNELS as SHUFFLENET_CHANNELS
from cnn_jax.models.shufflenet_v2 import shufflenet_v2
from cnn_jax.models.squeezenet import squeezenet
from cnn_jax.models.vgg import vgg
from cnn_jax.models.video_resnet import video_resnet
from cnn_jax.models.wide_resnet import wide_resnet
from cnn_jax.models.xception import xception

MODELS: dict[str, Callable[..., nn.Module]] = {
    "airbench94": airbench94,
    "alexnet": alexnet,
    "alexnet_2012": alexnet_2012,
    "all_cnn_c": partial(all_cnn, subsampling="conv"),
    "conv_pool_cnn_c": partial(all_cnn, subsampling="conv_pool"),
    "model_c": partial(all_cnn, subsampling="pool"),
    "strided_cnn_c": partial(all_cnn, subsampling="stride"),
    "capsule_network": capsule_network,
    "classic_stack": classic_stack,
    "convnext": convnext,
    "convnext_atto": partial(convnext, size="atto"),
    "convnext_femto": partial(convnext, size="femto"),
    "convnext_pico": partial(convnext, size="pico"),
    "convnext_nano": partial(convnext, size="nano"),
    "convnext_tiny": partial(convnext, size="tiny"),
    "convnext_small": partial(convnext, size="small"),
    "convnext_base": partial(convnext, size="base"),
    "convnext_large": partial(convnext, size="large"),
    "convnextv2": convnextv2,
    "convnextv2_atto": partial(convnextv2, size="atto"),
    "convnextv2_tiny": partial(convnextv2, size="tiny"),
    "deeplabv3_resnet": deeplabv3_resnet,
    "deeplabv3_resnet50": partial(deeplabv3_resnet, depth=50),
    "deeplabv3_resnet101": partial(deeplabv3_resnet, depth=101),
    "densenet_cifar": densenet_cifar,
    "densenet40_12": partial(densenet_cifar, depth=40, growth_rate=12, bottleneck=False, compression=1.0),
    "densenet100_12": partial(densenet_cifar, depth=100, growth_rate=12, bottleneck=False, compression=1.0),
    "densenet_bc100_12": partial(densenet_cifar, depth=100, growth_rate=12, bottleneck=True, compression=0.5),
    "densenet_bc250_24": partial(densenet_cifar, depth=250, growth_rate=24, bottleneck=True, compression=0.5),
    "densenet_bc190_40": partial(densenet_cifar, depth=190, growth_rate=40, bottleneck=True, compression=0.5),
    "densenet_imagenet": densenet_imagenet,
    "densenet121": partial(densenet_imagenet, depth=121),
    "densenet161": partial(densenet_imagenet, depth=161),
    "densenet169": partial(densenet_imagenet, depth=169),
    "densenet201": partial(densenet_imagenet, depth=201),
    "efficientnet_b0": partial(efficientnet, scale=0),
    "efficientnet_b1": partial(efficientnet, scale=1),
    "efficientnet_b2": partial(efficientnet, scale=2),
    "efficientnet_b3": partial(efficientnet, scale=3),
    "efficientnet_b4": partial(efficientnet, scale=4),
    "efficientnet_b5": partial(efficientnet, scale=5),
    "efficientnet_b6": partial(efficientnet, scale=6),
    "efficientnet_b7": partial(efficientnet, scale=7),
    "efficientnet_lite0": partial(efficientnet_lite, scale=0),
    "efficientnet_lite1": partial(efficientnet_lite, scale=1),
    "efficientnet_lite2": partial(efficientnet_lite, scale=2),
    "efficientnet_lite3": partial(efficientnet_lite, scale=3),
    "efficientnet_lite4": partial(efficientnet_lite, scale=4),
    "efficientnet_v2_s": partial(efficientnet_v2, size="s"),
    "efficientnet_v2_m": partial(efficientnet_v2, size="m"),
    "efficientnet_v2_l": partial(efficientnet_v2, size="l"),
    "fcn_resnet": fcn_resnet,
    "fcn_resnet50": partial(fcn_resnet, depth=50),
    "fcn_resnet101": partial(fcn_resnet, depth=101),
    "googlenet": googlenet,
    "inception_v3": inception_v3,
    "inception_v4": inception_v4,
    "lenet5": lenet5,
    "lenet5_1998": lenet5_1998,
    "mlp": mlp,
    "mnasnet": mnasnet,
    "mnasnet0_5": partial(mnasnet, width_multiplier=0.5),
    "mnasnet0_75": partial(mnasnet, width_multiplier=0.75),
    "mnasnet1_0": partial(mnasnet, width_multiplier=1.0),
    "mnasnet1_3": partial(mnasnet, width_multiplier=1.3),
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": partial(mobilenet_v3, size="large"),
    "mobilenet_v3_small": partial(mobilenet_v3, size="small"),
    "nin": nin,
    "preact_resnet_cifar": preact_resnet_cifar,
    "preact_resnet164": partial(preact_resnet_cifar, depth=164),
    "preact_resnet1001": partial(preact_resnet_cifar, depth=1001),
    "regnet": regnet,
    "regnet_x_400mf": partial(regnet, **REGNETS["x_400mf"]._asdict()),
    "regnet_x_800mf": partial(regnet, **REGNETS["x_800mf"]._asdict()),
    "regnet_x_1_6gf": partial(regnet, **REGNETS["x_1_6gf"]._asdict()),
    "regnet_x_3_2gf": partial(regnet, **REGNETS["x_3_2gf"]._asdict()),
    "regnet_x_8gf": partial(regnet, **REGNETS["x_8gf"]._asdict()),
    "regnet_x_16gf": partial(regnet, **REGNETS["x_16gf"]._asdict()),
    "regnet_x_32gf": partial(regnet, **REGNETS["x_32gf"]._asdict()),
    "regnet_y_400mf": partial(regnet, **REGNETS["y_400mf"]._asdict()),
    "regnet_y_800mf": partial(regnet, **REGNETS["y_800mf"]._asdict()),
    "regnet_y_1_6gf": partial(regnet, **REGNETS["y_1_6gf"]._asdict()),
    "regnet_y_3_2gf": partial(regnet, **REGNETS["y_3_2gf"]._asdict()),
    "regnet_y_8gf": partial(regnet, **REGNETS["y_8gf"]._asdict()),
    "regnet_y_16gf": partial(regnet, **REGNETS["y_16gf"]._asdict()),
    "regnet_y_32gf": partial(regnet, **REGNETS["y_32gf"]._asdict()),
    "regnet_y_128gf": partial(regnet, **REGNETS["y_128gf"]._asdict()),
    "resnet_cifar": resnet_cifar,
    "resnet20": partial(resnet_cifar, depth=20),
    "resnet32": partial(resnet_cifar, depth=32),
    "resnet44": partial(resnet_cifar, depth=44),
    "resnet56": partial(resnet_cifar, depth=56),
    "resnet110": partial(resnet_cifar, depth=110),
    "resnet1202": partial(resnet_cifar, depth=1202),
    "plain20": partial(resnet_cifar, depth=20, shortcut="none"),
    "plain32": partial(resnet_cifar, depth=32, shortcut="none"),
    "plain44": partial(resnet_cifar, depth=44, shortcut="none"),
    "plain56": partial(resnet_cifar, depth=56, shortcut="none"),
    "plain110": partial(resnet_cifar, depth=110, shortcut="none"),
    "plain1202": partial(resnet_cifar, depth=1202, shortcut="none"),
    "resnet_imagenet": resnet_imagenet,
    "resnet18": partial(resnet_imagenet, depth=18),
    "resnet34": partial(resnet_imagenet, depth=34),
    "resnet50": partial(resnet_imagenet, depth=50),
    "resnet101": partial(resnet_imagenet, depth=101),
    "resnet152": partial(resnet_imagenet, depth=152),
    "resnext50_32x4d": partial(resnet_imagenet, depth=50, groups=32, width_per_group=4),
    "resnext101_32x8d": partial(resnet_imagenet, depth=101, groups=32, width_per_group=8),
    "resnext101_64x4d": partial(resnet_imagenet, depth=101, groups=64, width_per_group=4),
    "seresnet18": partial(resnet_imagenet, depth=18, squeeze_reduction=16),
    "seresnet34": partial(resnet_imagenet, depth=34, squeeze_reduction=16),
    "seresnet50": partial(resnet_imagenet, depth=50, squeeze_reduction=16),
    "seresnet101": partial(resnet_imagenet, depth=101, squeeze_reduction=16),
    "seresnet152": partial(resnet_imagenet, depth=152, squeeze_reduction=16),
    "seresnext50_32x4d": partial(resnet_imagenet, depth=50, groups=32, width_per_group=4, squeeze_reduction=16),
    "wide_resnet50_2": partial(resnet_imagenet, depth=50, width_per_group=128),
    "wide_resnet101_2": partial(resnet_imagenet, depth=101, width_per_group=128),
    "resnetv2": resnetv2,
    "resnetv2_18": partial(resnetv2, depth=18),
    "resnetv2_34": partial(resnetv2, depth=34),
    "resnetv2_50": partial(resnetv2, depth=50),
    "resnetv2_101": partial(resnetv2, depth=101),
    "resnetv2_152": partial(resnetv2, depth=152),
    "shufflenet_v2": shufflenet_v2,
    "shufflenet_v2_x0_5": partial(shufflenet_v2, channels=SHUFFLENET_CHANNELS["x0_5"]),
    "shufflenet_v2_x1_0": partial(shufflenet_v2, channels=SHUFFLENET_CHANNELS["x1_0"]),
    "shufflenet_v2_x1_5": partial(shufflenet_v2, channels=SHUFFLENET_CHANNELS["x1_5"]),
    "shufflenet_v2_x2_0": partial(shufflenet_v2, channels=SHUFFLENET_CHANNELS["x2_0"]),
    "squeezenet1_0": partial(squeezenet, version="1_0"),
    "squeezenet1_1": partial(squeezenet, version="1_1"),
    "vgg11": partial(vgg, depth=11),
    "vgg11_bn": partial(vgg, depth=11, norm="batch"),
    "vgg13": partial(vgg, depth=13),
    "vgg13_bn": partial(vgg, depth=13, norm="batch"),
    "vgg16": partial(vgg, depth=16),
    "vgg16_bn": partial(vgg, depth=16, norm="batch"),
    "vgg19": partial(vgg, depth=19),
    "vgg19_bn": partial(vgg, depth=19, norm="batch"),
    "video_resnet": video_resnet,
    "r3d_18": partial(video_resnet, depth=18, convolutions=("3d", "3d", "3d", "3d", "3d")),
    "mc3_18": partial(video_resnet, depth=18, convolutions=("3d", "3d", "2d", "2d", "2d")),
    "r2plus1d_18": partial(
        video_resnet, depth=18, convolutions=("2plus1d", "2plus1d", "2plus1d", "2plus1d", "2plus1d")
    ),
    "wide_resnet": wide_resnet,
    "wide_resnet16_4": partial(wide_resnet, depth=16, widening=4),
    "wide_resnet16_8": partial(wide_resnet, depth=16, widening=8),
    "wide_resnet28_10": partial(wide_resnet, depth=28, widening=10),
    "wide_resnet40_2": partial(wide_resnet, depth=40, widening=2),
    "wide_resnet40_4": partial(wide_resnet, depth=40, widening=4),
    "xception": xception,
}
"""Models by the name that configs use: functions of keyword-only arguments; all have `num_classes` and `in_channels`.

What a name fixes, such as the depth of "resnet20", is no argument of it.
"""


def arguments(name: str) -> dict[str, inspect.Parameter]:
    """The arguments that the model of this name takes.

    Raises:
      UserError: an unknown name.

    Example:
      >>> "depth" in arguments("resnet_cifar"), "depth" in arguments("resnet20")
      (True, False)
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    preset = MODELS[name]
    fixed = preset.keywords if isinstance(preset, partial) else {}
    return {key: value for key, value in inspect.signature(preset).parameters.items() if key not in fixed}


def create(name: str, **kwargs: Any) -> nn.Module:
    """Builds the model of this name; no array is allocated.

    Args:
      name: a key of `MODELS`.
      **kwargs: its arguments.

    Returns:
      A Flax module: `model.apply(variables, images, train=False)` gives logits `[B, num_classes]` (networks for
      segmentation: `[B, *space, num_classes]`), and with `method="features"` the named feature maps.

    Raises:
      UserError: an unknown name or argument, a missing argument, or a value that the model does not take.

    Example:
      >>> create("resnet20", num_classes=10).in_channels
      3
    """
    takes = arguments(name)
    for key in kwargs:
        if key not in takes:
            raise unknown_name(f"argument of model {name!r}:", key, takes)
    missing = [key for key, value in takes.items() if value.default is value.empty and key not in kwargs]
    if missing:
        raise UserError(f"model {name!r} needs the argument {', '.join(missing)}")
    preset = MODELS[name]
    hints = typing.get_type_hints(preset.func if isinstance(preset, partial) else preset)
    for key, value in kwargs.items():
        if not _is_a(value, hints[key]):
            shown = hints[key].__name__ if isinstance(hints[key], type) else hints[key]
            raise UserError(f"model {name!r}: {key} is {value!r}; it must be of type {shown}")
    return preset(**kwargs)


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; an int is a float too, and a bool no number."""
    if isinstance(hint, types.UnionType):
        return any(_is_a(value, member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple | list) and all(_is_a(item, typing.get_args(hint)[0]) for item in value)
    if hint in (int, float):
        # NumPy's integers too.
        return isinstance(value, numbers.Integral if hint is int else numbers.Real) and not isinstance(value, bool)
    return isinstance(value, hint)
