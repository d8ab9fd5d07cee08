"""The smallest image that a network takes."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from cnn_jax.errors import ImageTooSmallError, UserError

LARGEST_MINIMUM = 2048


def smallest_size(attempt: Callable[[int], Any], *, above: int = 0) -> int | None:
    """The smallest size for which an attempt raises no ImageTooSmallError.

    Sizes that work have no gaps. A dozen attempts at most; trace, do not compute.

    Args:
      attempt: builds the network for images of this many pixels along every axis.
      above: a size that is known not to work.

    Returns:
      None if no size up to 2,048 works.

    Example:
      >>> def attempt(size):
      ...     if size < 11:
      ...         raise ImageTooSmallError(f"{size} is too small")
      >>> smallest_size(attempt)
      11
    """
    low, high = above, max(1, 2 * above)
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


def smallest_image(model: nn.Module, *, rank: int = 2, above: int = 0) -> int | None:
    """The smallest number of pixels along every axis that a classifier or segmenter takes; nothing is computed.

    Args:
      model: with `in_channels` and `logits`, as in `nn.heads.Classifier`; its auxiliary heads count, if it has any.
      rank: the number of spatial axes.
      above: a size that is known not to work.

    Returns:
      None if no size up to 2,048 works.

    Raises:
      UserError: the model takes images of certain sizes only.
    """
    init = functools.partial(model.init, train=False, method="logits")

    def attempt(size: int) -> None:
        image = jax.ShapeDtypeStruct((1, *(size,) * rank, model.in_channels), jnp.float32)
        jax.eval_shape(init, jax.random.key(0), image)

    return smallest_size(attempt, above=above)


@contextlib.contextmanager
def smallest_image_in_errors(model: nn.Module, x: Float[Array, "B *space C"], *, auxiliary: bool) -> Iterator[None]:
    """Adds the smallest image that the whole network takes to the error of a layer that got too small a one.

    Args:
      model: bound, as it is within its own call.
      x: the image.
      auxiliary: whether the model's auxiliary heads are called too.
    """
    try:
        yield
    except ImageTooSmallError as error:
        space = x.shape[1:-1]
        free = model.clone(parent=None, _deep_clone=True)
        if not auxiliary:
            free = free.clone(auxiliary=FrozenDict())
        try:
            # A square of the shortest axis is too small, whichever axis the layer complained of.
            smallest = smallest_image(free, rank=len(space), above=min(space))
        except UserError:  # It takes images of certain sizes only, and has said so.
            raise error from None
        at_least = f"; it takes at least {_times((smallest,) * len(space))}" if smallest else ""
        message = f"images of {_times(space)} are too small for this network{at_least} ({error})"
        raise ImageTooSmallError(message) from None


def _times(sizes: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in sizes)
