"""The smallest image that a network takes."""

from collections.abc import Callable
from typing import Any

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
