"""Images in another number of pixels."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float


def resize_linear(x: Float[Array, "B *space C"], space: Sequence[int]) -> Float[Array, "B *out C"]:
    """Interpolates linearly along every axis of space: bilinear for images.

    Pixels are areas whose centres lie at i + 1/2, and outside the first and last centre their values continue: torch's
    `interpolate` with `align_corners=False` and without antialiasing, also where the image gets smaller.

    Args:
      x: images, `[B, *space, C]`.
      space: pixels along each axis of the result.

    Returns:
      `[B, *out, C]`, of the same type; x itself if it has that size.

    Example:
      >>> import jax.numpy as jnp
      >>> row = jnp.array([0.0, 4.0]).reshape(1, 2, 1)  # [2] -> [B, width, C]
      >>> resize_linear(row, (4,))[0, :, 0].tolist()
      [0.0, 1.0, 3.0, 4.0]
    """
    if tuple(space) == x.shape[1:-1]:
        return x
    return jax.image.resize(x, (x.shape[0], *space, x.shape[-1]), "linear", antialias=False)
