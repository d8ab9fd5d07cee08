"""The smallest image that a network takes."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import ImageTooSmallError

LARGEST_MINIMUM = 2048


def smallest_size(attempt: Callable[[int], Any]) -> int | None:
    """The smallest size for which an attempt raises no ImageTooSmallError.

    Sizes that work have no gaps. A dozen attempts at most; trace, do not compute.

    Args:
      attempt: builds the network for images of this many pixels along every axis.

    Returns:
      None if no size up to 2,048 works.

    Example:
      >>> def attempt(size):
      ...     if size < 11:
      ...         raise ImageTooSmallError(f"{size} is too small")
      >>> smallest_size(attempt)
      11
    """
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


def smallest_image(model: nn.Module, *, rank: int = 2) -> int | None:
    """The smallest number of pixels along every axis that a classifier or segmenter takes; nothing is computed.

    Args:
      model: with `in_channels` and `logits`, as in `nn.heads.Classifier`.
      rank: the number of spatial axes.

    Returns:
      None if no size up to 2,048 works.

    Raises:
      UserError: the model takes images of certain sizes only.
    """
    init = functools.partial(model.init, train=False, method="logits")

    def attempt(size: int) -> None:
        image = jax.ShapeDtypeStruct((1, *(size,) * rank, model.in_channels), jnp.float32)
        jax.eval_shape(init, jax.random.key(0), image)

    return smallest_size(attempt)


def with_smallest_image(
    model: nn.Module, x: Float[Array, "B *space C"], error: ImageTooSmallError
) -> ImageTooSmallError:
    """The error of a layer together with the smallest image that the whole network takes.

    Args:
      model: bound, as it is within its own call.
      x: the image that was too small.
      error: what the layer said.
    """
    space = x.shape[1:-1]
    smallest = smallest_image(model.clone(parent=None, _deep_clone=True), rank=len(space))
    at_least = f"; it takes at least {_times((smallest,) * len(space))}" if smallest else ""
    return ImageTooSmallError(f"images of {_times(space)} are too small for this network{at_least} ({error})")


def _times(sizes: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in sizes)
