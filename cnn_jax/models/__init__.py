"""Model families, one a file, and the literal table of everything that a config can name."""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from cnn_jax.errors import UserError, unknown_name
from cnn_jax.models import resnet_names
from cnn_jax.models.classic_stack import classic_stack
from cnn_jax.models.lenet import lenet5
from cnn_jax.models.lenet_1998 import lenet5_1998
from cnn_jax.models.mlp import mlp
from cnn_jax.models.resnet_presets import resnet_cifar, resnet_imagenet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "classic_stack": classic_stack,
    "lenet5": lenet5,
    "lenet5_1998": lenet5_1998,
    "mlp": mlp,
    "resnet_cifar": resnet_cifar,
    "resnet20": resnet_names.resnet20,
    "resnet32": resnet_names.resnet32,
    "resnet44": resnet_names.resnet44,
    "resnet56": resnet_names.resnet56,
    "resnet110": resnet_names.resnet110,
    "resnet1202": resnet_names.resnet1202,
    "plain20": resnet_names.plain20,
    "plain32": resnet_names.plain32,
    "plain44": resnet_names.plain44,
    "plain56": resnet_names.plain56,
    "plain110": resnet_names.plain110,
    "resnet_imagenet": resnet_imagenet,
    "resnet18": resnet_names.resnet18,
    "resnet34": resnet_names.resnet34,
    "resnet50": resnet_names.resnet50,
    "resnet101": resnet_names.resnet101,
    "resnet152": resnet_names.resnet152,
}
"""Models by the name that configs use: functions of keyword-only arguments, as `inspect.signature` shows them."""


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
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    parameters = inspect.signature(MODELS[name]).parameters
    for key in kwargs:
        if key not in parameters:
            raise unknown_name(f"argument of model {name!r}:", key, parameters)
    missing = [
        key for key, parameter in parameters.items() if parameter.default is parameter.empty and key not in kwargs
    ]
    if missing:
        raise UserError(f"model {name!r} needs the argument {', '.join(missing)}")
    return MODELS[name](**kwargs)
