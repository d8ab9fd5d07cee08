"""Pooling over one, two or three spatial axes, channels last."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.checks import require_known
from cnn_jax.nn.window import pad_amounts, per_axis, require_output
from cnn_jax.ops.pool import max_pool

PADDINGS = ("valid", "same")
"""Padding of a pool by name; a number pads that many pixels on both sides."""


class MaxPool(nn.Module):
    """The largest value in each window; padding is minus infinity, so it never wins.

    Attributes:
      window: one size for all spatial axes or one for each, in pixels.
      stride: step of the window, in pixels; None is the window's size.
      padding: "valid", "same" (ceil(n / stride), see `window.pad_amounts`) or a number of pixels.

    Raises:
      ImageTooSmallError: the output would be empty.
      UserError: sizes below 1, a window of another rank than the input, an unknown padding, or more than half the
        window.
    """

    window: int | tuple[int, ...]
    stride: int | None = None
    padding: str | int = "valid"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *out C"]:
        """Pools `[B, *space, C]` to `[B, *out, C]`."""
        window, strides, pads = _geometry(self, x.shape)
        return max_pool(x, window=window, stride=strides, padding=pads)


class AveragePool(nn.Module):
    """The mean of each window.

    Attributes:
      window: one size for all spatial axes or one for each, in pixels.
      stride: step of the window, in pixels; None is the window's size.
      padding: "valid", "same" (ceil(n / stride), see `window.pad_amounts`) or a number of pixels.
      count_include_pad: divide by the window's size everywhere (True, as torch and Flax do unless told), so that
        padding counts as zeros; or by the pixels inside the image (False).

    Raises:
      ImageTooSmallError: the output would be empty.
      UserError: sizes below 1, a window of another rank than the input, an unknown padding, or more than half the
        window.
    """

    window: int | tuple[int, ...]
    stride: int | None = None
    padding: str | int = "valid"
    count_include_pad: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *out C"]:
        """Pools `[B, *space, C]` to `[B, *out, C]`."""
        window, strides, pads = _geometry(self, x.shape)
        return nn.avg_pool(
            x, window_shape=window, strides=strides, padding=pads, count_include_pad=self.count_include_pad
        )


class GlobalAveragePool(nn.Module):
    """The mean over all of space, in float32 (Lin et al. 2014, Section 3.2)."""

    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B C"]:
        """Pools `[B, *space, C]` to float32 `[B, C]`."""
        return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim - 1)))


def _geometry(
    pool: MaxPool | AveragePool, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
    """(window, strides, pads) per spatial axis for an image `[B, *space, C]` of this shape."""
    space = shape[1:-1]
    rank = len(space)
    window = per_axis("pool window", pool.window, rank)
    strides = window if pool.stride is None else per_axis("pool stride", pool.stride, rank)
    if isinstance(pool.padding, str):
        require_known("pool padding", pool.padding, PADDINGS)
    elif 2 * pool.padding > min(window):
        # A window could then lie in the padding alone, where a maximum is minus infinity and a mean 0 / 0.
        raise UserError(f"pool padding is {pool.padding}; it must be at most half the window {window}")
    require_output("/".join(pool.path) or type(pool).__name__, space, window, pool.padding)
    return window, strides, pad_amounts(window, pool.padding)
