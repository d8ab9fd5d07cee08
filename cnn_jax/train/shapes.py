"""Shapes of a model's variables for images of one size, and the smallest size that a model takes."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.nn.smallest import smallest_size
from cnn_jax.types import PyTree


def abstract_variables(model: nn.Module, image_shape: Sequence[int], *, name: str) -> PyTree:
    """Shapes and types of a model's variables, without computing any.

    Args:
      model: the network.
      image_shape: `[*space, C]`.
      name: model and data, for errors.

    Raises:
      UserError: the images do not fit the network; for small ones the message has the smallest size that works.
    """
    space = tuple(image_shape[:-1])
    try:
        return _variables(model, image_shape)
    except ImageTooSmallError as error:
        smallest = smallest_image(model, image_shape)
        at_least = f"; it takes at least {'×'.join([str(smallest)] * len(space))}" if smallest else ""
        shown = "×".join(str(size) for size in space)
        raise UserError(f"{name}: images of {shown} are too small for this network{at_least} ({error})") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def smallest_image(model: nn.Module, image_shape: Sequence[int]) -> int | None:
    """The smallest number of pixels along every axis that a model takes; None if none up to 2,048 works.

    Args:
      model: the network.
      image_shape: `[*space, C]`, of which the rank and the channels are read.

    Raises:
      UserError: the model takes images of certain sizes only.
    """
    rank, channels = len(image_shape) - 1, image_shape[-1]
    return smallest_size(lambda size: _variables(model, (*(size,) * rank, channels)))


def _variables(model: nn.Module, image_shape: Sequence[int]) -> PyTree:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
