"""Model families, one a file, and the literal table of everything that a config can name."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn

from cnn_jax.errors import UserError, unknown_name
from cnn_jax.models.airbench import airbench94
from cnn_jax.models.classic_stack import classic_stack
from cnn_jax.models.lenet import lenet5
from cnn_jax.models.lenet_1998 import lenet5_1998
from cnn_jax.models.mlp import mlp
from cnn_jax.models.mobilenet_v2 import mobilenet_v2
from cnn_jax.models.resnet_presets import resnet_cifar, resnet_imagenet
from cnn_jax.models.wide_resnet import wide_resnet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "airbench94": airbench94,
    "classic_stack": classic_stack,
    "lenet5": lenet5,
    "lenet5_1998": lenet5_1998,
    "mlp": mlp,
    "mobilenet_v2": mobilenet_v2,
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
    "resnet_imagenet": resnet_imagenet,
    "resnet18": partial(resnet_imagenet, depth=18),
    "resnet34": partial(resnet_imagenet, depth=34),
    "resnet50": partial(resnet_imagenet, depth=50),
    "resnet101": partial(resnet_imagenet, depth=101),
    "resnet152": partial(resnet_imagenet, depth=152),
    "wide_resnet": wide_resnet,
    "wide_resnet16_4": partial(wide_resnet, depth=16, widening=4),
    "wide_resnet16_8": partial(wide_resnet, depth=16, widening=8),
    "wide_resnet28_10": partial(wide_resnet, depth=28, widening=10),
    "wide_resnet40_2": partial(wide_resnet, depth=40, widening=2),
    "wide_resnet40_4": partial(wide_resnet, depth=40, widening=4),
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
      A Flax module: `model.apply(variables, images, train=False)` gives logits `[B, num_classes]`, and with
      `method="features"` the named feature maps.

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
    return MODELS[name](**kwargs)
