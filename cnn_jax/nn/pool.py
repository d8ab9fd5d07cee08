"""Pooling over one, two or three spatial axes, channels last."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.nn.checks import require_known, require_positive
from cnn_jax.nn.window import pad_amounts, per_axis, require_output
from cnn_jax.ops.pool import max_pool

PADDINGS = ("valid", "same")
"""Padding of a pool by name; a number pads that many pixels on both sides."""


class MaxPool(nn.Module):
    """The largest value in each window; padding is minus infinity, so it never wins.

    Attributes:
      window: one size for all spatial axes or one for each, in pixels.
      stride: step of the window, in pixels, for all spatial axes or for each; None is the window's size.
      padding: "valid", "same" (ceil(n / stride), see `window.pad_amounts`) or a number of pixels.
      ceil_mode: a last window may reach beyond the image, if it starts within it or its leading padding: torch's rule.

    Raises:
      ImageTooSmallError: the output would be empty.
      UserError: sizes below 1, a window of another rank than the input, an unknown padding, or more than half the
        window.
    """

    window: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: str | int = "valid"
    ceil_mode: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *out C"]:
        """Pools `[B, *space, C]` to `[B, *out, C]`."""
        window, strides, pads = _geometry(self, x.shape, ceil_mode=self.ceil_mode)
        return max_pool(x, window=window, stride=strides, padding=pads)


class AveragePool(nn.Module):
    """The mean of each window, summed in float32.

    Attributes:
      window: one size for all spatial axes or one for each, in pixels.
      stride: step of the window, in pixels, for all spatial axes or for each; None is the window's size.
      padding: "valid", "same" (ceil(n / stride), see `window.pad_amounts`) or a number of pixels.
      ceil_mode: as in `MaxPool`.
      count_include_pad: divide by the window's pixels inside image and padding (True, as torch and Flax do unless
        told), so that padding counts as zeros; or by those inside the image (False). What `ceil_mode` adds never
        counts.

    Raises:
      ImageTooSmallError: the output would be empty.
      UserError: sizes below 1, a window of another rank than the input, an unknown padding, or more than half the
        window.
    """

    window: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: str | int = "valid"
    ceil_mode: bool = False
    count_include_pad: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *out C"]:
        """Pools `[B, *space, C]` to `[B, *out, C]`."""
        window, strides, pads = _geometry(self, x.shape, ceil_mode=self.ceil_mode)
        sums = nn.pool(x.astype(jnp.float32), 0.0, jax.lax.add, window, strides, pads)
        counts = 1
        for axis, (size, step, (before, after)) in enumerate(
            zip(window, strides, pad_amounts(window, self.padding), strict=True), start=1
        ):
            starts = np.arange(sums.shape[axis]) * step - before
            first, last = (-before, x.shape[axis] + after) if self.count_include_pad else (0, x.shape[axis])
            inside = np.minimum(starts + size, last) - np.maximum(starts, first)
            # [out] -> [1, ..., out, ..., 1]
            counts = counts * inside.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        return (sums / jnp.asarray(counts, jnp.float32)).astype(x.dtype)


class L2Pool(nn.Module):
    """The root of the mean square of each window, in float32; where all of a window is 0, so is its gradient.

    Of values that are not negative it lies between mean and maximum: Lp pooling with P = 2 (Sermanet et al. 2012,
    "Convolutional neural networks applied to house numbers digit classification"), where torch's LPPool has the sum.

    Attributes:
      window: one size for all spatial axes or one for each, in pixels.
      stride: step of the window, in pixels, for all spatial axes or for each; None is the window's size.
      padding: as in `AveragePool`; it counts as zeros.

    Raises:
      ImageTooSmallError: the output would be empty.
      UserError: as `AveragePool`.
    """

    window: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: str | int = "valid"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *out C"]:
        """Pools `[B, *space, C]` to `[B, *out, C]`."""
        mean = AveragePool(self.window, self.stride, self.padding, name="squares")(jnp.square(x.astype(jnp.float32)))
        # The root has no gradient at 0; `where` keeps its infinity out of the product.
        positive = mean > 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, mean, 1.0)), 0.0).astype(x.dtype)


class AdaptiveAveragePool(nn.Module):
    """The means of bins that share the image out evenly, `output_size` of them on every spatial axis.

    Bin i of o on an axis of n pixels reaches from floor(i n / o) to ceil((i + 1) n / o), as in torch: bins overlap
    where o does not divide n, and repeat pixels where the image is smaller than the output.

    Attributes:
      output_size: bins along each axis.

    Raises:
      ImageTooSmallError: the image has no pixels.
      UserError: fewer than one bin.
    """

    output_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *out C"]:
        """Pools `[B, *space, C]` to `[B, *(output_size,) * rank, C]`."""
        bins = self.output_size
        require_positive("output_size", bins)
        for axis, size in enumerate(x.shape[1:-1], start=1):
            if size == 0:
                raise ImageTooSmallError(f"layer {'/'.join(self.path)!r} gets an image without pixels")
            if size % bins == 0:
                # [..., n, ...] -> [..., o, n / o, ...]
                x = x.reshape((*x.shape[:axis], bins, size // bins, *x.shape[axis + 1 :])).mean(axis=axis + 1)
                continue
            means = [
                jax.lax.slice_in_dim(x, i * size // bins, -(-(i + 1) * size // bins), axis=axis).mean(axis=axis)
                for i in range(bins)
            ]
            x = jnp.stack(means, axis=axis)
        return x


class GlobalAveragePool(nn.Module):
    """The mean over all of space, in float32 (Lin et al. 2014, Section 3.2)."""

    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B C"]:
        """Pools `[B, *space, C]` to float32 `[B, C]`."""
        return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim - 1)))


def _up_to_the_last_window(size: int, window: int, stride: int, pads: tuple[int, int]) -> tuple[int, int]:
    """The padding of one axis with which a last window that starts within image or leading padding is a whole one."""
    before, after = pads
    windows = -(-(size + before + after - window) // stride) + 1
    if (windows - 1) * stride >= size + before:
        windows -= 1
    return before, max(after, (windows - 1) * stride + window - size - before)


def _geometry(
    pool: MaxPool | AveragePool, shape: tuple[int, ...], *, ceil_mode: bool
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
    pads = pad_amounts(window, pool.padding)
    if ceil_mode:
        pads = tuple(map(_up_to_the_last_window, space, window, strides, pads))
        # torch's too: one window may hold all of an image that is smaller than it.
        if all(size + sum(pad) >= taps for size, taps, pad in zip(space, window, pads, strict=True)) and min(space) > 0:
            return window, strides, pads
    require_output("/".join(pool.path) or type(pool).__name__, space, window, pool.padding)
    return window, strides, pads
