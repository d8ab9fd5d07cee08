"""Shapes of a model's variables for images of one size, and the smallest size that a model takes."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.types import PyTree

LARGEST_MINIMUM = 2048


def abstract_variables(model: nn.Module, image_shape: Sequence[int], *, name: str) -> PyTree:
    """Shapes and types of a model's variables, without computing any.

    Args:
      model: the network.
      image_shape: `[*space, C]`.
      name: model and data, for errors.

    Raises:
      UserError: the images do not fit the network; for small ones the message has the smallest size that works.
    """

    def variables(space: Sequence[int]) -> PyTree:
        image = jax.ShapeDtypeStruct((1, *space, image_shape[-1]), jnp.float32)
        return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)

    space = tuple(image_shape[:-1])
    try:
        return variables(space)
    except ImageTooSmallError as error:
        smallest = _smallest(lambda size: variables((size,) * len(space)))
        at_least = f"; it takes at least {'×'.join([str(smallest)] * len(space))}" if smallest else ""
        shown = "×".join(str(size) for size in space)
        raise UserError(f"{name}: images of {shown} are too small for this network{at_least} ({error})") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _smallest(attempt) -> int | None:
    """The smallest size for which an attempt raises no ImageTooSmallError; sizes that work have no gaps."""
    low, high = 0, 1
    while high <= LARGEST_MINIMUM:
        try:
            attempt(high)
            break
        except ImageTooSmallError:
            low, high = high, 2 * high
    else:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        try:
            attempt(middle)
            high = middle
        except ImageTooSmallError:
            low = middle
    return high
