"""Other forms of the same convolution, which XLA's CPU backend compiles to faster code than its convolution.

* `pointwise`: a window of one pixel is a matrix product;
* `folded`: few channels leave the vector units empty, so pixels of a row move into the channels.

`fold_factor` says when to fold. The forms for images about as small as the window are in `conv_small`.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FOLDS = ((48, 4), (128, 2))
"""Largest product of input and output channels and stride, and how many pixels of a row become channels then."""


def channels_last(rank: int) -> jax.lax.ConvDimensionNumbers:
    """Where batch, channels and space are for images `[B, *space, C]` and kernels `[*space, C, F]`.

    Args:
      rank: the number of spatial axes.
    """
    image = (0, rank + 1, *range(1, rank + 1))
    return jax.lax.ConvDimensionNumbers(lhs_spec=image, rhs_spec=(rank + 1, rank, *range(rank)), out_spec=image)


def stock(
    x: Array,
    kernel: Array,
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int],
    feature_group_count: int = 1,
) -> Array:
    """XLA's own convolution.

    An image that is cropped, by negative padding, is cropped before: where it is moved, by as many pixels of padding on
    the other side, XLA's CPU backend convolves 32-bit images as if they were not padded at all.
    """
    if any(size < 0 for size in itertools.chain(*padding)):
        moved = [edges if min(edges) < 0 else (0, 0) for edges in padding]
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*edges, 0) for edges in moved), (0, 0, 0)])
        padding = [(0, 0) if min(edges) < 0 else edges for edges in padding]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides,
        padding,
        rhs_dilation=rhs_dilation,
        dimension_numbers=channels_last(len(window_strides)),
        feature_group_count=feature_group_count,
    )


def stock_input_gradient(
    cotangent: Array, kernel: Array, *, space: Sequence[int], feature_group_count: int = 1, **geometry: Any
) -> Array:
    """XLA's own gradient for an image of `space` pixels."""
    images = jax.ShapeDtypeStruct((len(cotangent), *space, kernel.shape[-2] * feature_group_count), cotangent.dtype)
    convolution = functools.partial(stock, kernel=kernel, feature_group_count=feature_group_count, **geometry)
    return jax.linear_transpose(convolution, images)(cotangent)[0]


def stock_kernel_gradient(
    x: Array, cotangent: Array, *, window: Sequence[int], feature_group_count: int = 1, **geometry: Any
) -> Array:
    """XLA's own gradient for a kernel of `window` taps."""
    shape = (*window, x.shape[-1] // feature_group_count, cotangent.shape[-1])
    convolution = functools.partial(stock, x, feature_group_count=feature_group_count, **geometry)
    return jax.linear_transpose(convolution, jax.ShapeDtypeStruct(shape, cotangent.dtype))(cotangent)[0]


def is_pointwise(kernel_shape: Sequence[int], padding: Sequence[tuple[int, int]]) -> bool:
    """Whether a convolution sees one pixel at a time, `[1, ..., 1, C, F]`, and the image's pixels only."""
    return all(size == 1 for size in kernel_shape[:-2]) and not any(itertools.chain(*padding))


def every(x: Float[Array, "B *space C"], stride: Sequence[int]) -> Float[Array, "B *out C"]:
    """The pixels at multiples of the stride."""
    return jax.lax.slice(x, (0,) * x.ndim, x.shape, (1, *stride, 1)) if any(step > 1 for step in stride) else x


def pointwise(
    x: Float[Array, "B *space C"], kernel: Float[Array, "*ones C F"], stride: Sequence[int]
) -> Float[Array, "B *out F"]:
    """A window of one pixel: `[N, C] @ [C, F]` over the pixels at multiples of the stride."""
    x = every(x, stride)
    channels, features = kernel.shape[-2:]
    out = x.reshape(-1, channels) @ kernel.reshape(channels, features)  # [B, *out, C] -> [N, C]
    return out.reshape(*x.shape[:-1], features)  # [N, F] -> [B, *out, F]


def fold_factor(
    x_shape: Sequence[Any], kernel_shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> int:
    """How many pixels of a row to move into the channels: 1 where that does not pay.

    The larger the factor, and the stride, the more zeros are multiplied. The limits were set by timing the convolutions
    of LeNet-5, the classic stack and ResNet-20 on two AVX2 cores with batches of 128, and 3×3 and 5×5 taps on 4 to 32
    pixels on one with batches of 64: 1 to 6 and 3 to 16 channels are fastest with 4; 8 to 8, 6 to 16, 16 to 6, 3 to 32
    and 32 to 3 with 2; 16 to 16 as it is. With a stride of 2, 1 to 16 with 4, 3 to 16 with 2 and 8 to 16 as it is.
    """
    channels, features = kernel_shape[-2:]
    if dilation[-1] != 1 or math.prod(kernel_shape[:-2]) == 1:
        return 1
    factor = next((factor for limit, factor in FOLDS if channels * features * stride[-1] <= limit), 1)
    return min(factor, x_shape[-2])


def folded(x: Float[Array, "B *space C"], kernel: Float[Array, "*window C F"], factor: int, **geometry: Any) -> Array:
    """The convolution with `factor` pixels of the last axis of space as channels.

    A block of `factor * stride` input pixels gives `factor` output pixels; the kernel between them, written as a matrix
    of blocks, holds the original one once for each output pixel, shifted by the stride, and zeros. Of these an infinite
    pixel makes NaN in the whole block, where the plain form makes it in its window alone.

    Args:
      x: images, `[B, *space, C]`.
      kernel: `[*window, C, F]`.
      factor: output pixels per block.
      **geometry: `window_strides`, `padding` and `rhs_dilation`, the last of which must end with 1.
    """
    *strides, stride = geometry["window_strides"]
    *pads, (before, after) = geometry["padding"]
    batch, *space, width, channels = x.shape
    *window, size, _, features = kernel.shape
    out_width = (width + before + after - size) // stride + 1
    block = factor * stride
    blocks = -(-out_width // factor)
    reach = -(-((factor - 1) * stride + size) // block)  # input blocks that one output block sees
    needed = (blocks + reach - 1) * block
    x = jax.lax.pad(
        x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (len(space) + 1) + [(before, needed - width - before, 0), (0, 0, 0)]
    )
    # [B, *space, blocks * block, C] -> [B, *space, blocks, block * C]
    x = x.reshape(batch, *space, needed // block, block * channels)
    spare = reach * block - size
    shifted = [
        jnp.pad(kernel, [(0, 0)] * len(window) + [(shift * stride, spare - shift * stride), (0, 0), (0, 0)])
        for shift in range(factor)
    ]
    # factor × [*window, reach * block, C, F] -> [*window, reach * block, C, factor, F]
    wide = jnp.stack(shifted, axis=-2)
    # -> [*window, reach, block * C, factor * F]
    wide = wide.reshape(*window, reach, block * channels, factor * features)
    out = stock(x, wide, window_strides=(*strides, 1), padding=(*pads, (0, 0)), rhs_dilation=geometry["rhs_dilation"])
    # [B, *out, blocks, factor * F] -> [B, *out, blocks * factor, F], and the last block's surplus is cut off
    out = out.reshape(*out.shape[:-2], blocks * factor, features)
    return jax.lax.slice_in_dim(out, 0, out_width, axis=-2)
