"""Forms of the convolution of images about as small as the window, where XLA's CPU backend leaves its fast path.

Such are the last maps of deep networks on small images, and the cotangents of strided convolutions of them.

* `dense`: every window sees the whole image, which becomes one vector, and the convolution one matrix product;
* `unfolded`: the image becomes a matrix of what the windows see (im2col), and the convolution a product;
* `by_phases`: the input's gradient of a strided convolution, without the zeros between the cotangent's pixels;
* `kernel_gradient_by_taps`: the kernel's gradient, one product for each tap.

`is_dense`, `is_smaller` and `sees_whole` say when to use them.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

MOST_TAPS = 128
"""Of a window that is unfolded: each is written out. 11×11 is the largest kernel of the classics."""
DENSE_CHANNELS = 8
"""For each image of a batch: up to so many a matrix larger than the kernel pays (`is_dense`)."""


def is_smaller(space: Sequence[int], window: Sequence[int], dilation: Sequence[int]) -> bool:
    """Whether an image has fewer pixels along some axis than a window of not too many taps reaches over.

    XLA's CPU backend then leaves its fast path: with many channels it is an order of magnitude slower than the product
    that `unfolded` makes (timed on one AVX-512 core, batches of 64). The gradient of a kernel whose padding makes the
    result larger than the image has a window as large as that; it stays with XLA.
    """
    if math.prod(window) > MOST_TAPS:
        return False
    return any(n < step * (size - 1) + 1 for n, size, step in zip(space, window, dilation, strict=True))


def out_space(
    space: Sequence[int],
    window: Sequence[int],
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int],
) -> list[int]:
    """The result's pixels along each axis of space."""
    axes = zip(space, window, window_strides, padding, rhs_dilation, strict=True)
    return [
        max(0, (n + before + after - step * (size - 1) - 1) // stride + 1)
        for n, size, stride, (before, after), step in axes
    ]


def _meetings(space: Sequence[int], window: Sequence[int], **geometry: Any) -> list[list[list[tuple[int, int, int]]]]:
    """Along each axis and for each tap the `(tap, output pixel, input pixel)` where it meets a pixel of the image."""
    axes = []
    for n, size, count, stride, (before, _), step in zip(
        space,
        window,
        out_space(space, window, **geometry),
        geometry["window_strides"],
        geometry["padding"],
        geometry["rhs_dilation"],
        strict=True,
    ):
        met = [[(tap, out, stride * out + step * tap - before) for out in range(count)] for tap in range(size)]
        axes.append([[each for each in pixels if 0 <= each[2] < n] for pixels in met])
    return axes


def sees_whole(space: Sequence[int], window: Sequence[int], **geometry: Any) -> bool:
    """Whether there are images, and each window sees the whole of one.

    Args:
      space: pixels along each axis.
      window: taps along each axis.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    out = out_space(space, window, **geometry)
    if not math.prod(space) * math.prod(out) or any(n > size for n, size in zip(space, window, strict=True)):
        return False
    axes = _meetings(space, window, **geometry)
    return all(sum(map(len, axis)) == n * m for axis, n, m in zip(axes, space, out, strict=True))


def is_dense(x_shape: Sequence[Any], kernel_shape: Sequence[int], **geometry: Any) -> bool:
    """Whether each window sees the whole image, and one product over images and results pays.

    The matrix then holds no zeros, and its product has fewer multiplications than that of `unfolded`, which sees
    padding too: for 2×2 pixels and a window of 3×3, 16 for each pair of channels in place of 36. But a small batch does
    not pay for writing a matrix that is larger than the kernel, the less the more channels there are and the worse it
    fits into the cache. Timed on one AVX2 core with 16, 64, 256 and 512 channels and batches of 8 to 512: with 2×2
    pixels and 3×3 taps both forms are as fast at 256 channels and 32 images, and at 512 and a little below 64.

    Args:
      x_shape: `[B, *space, C]`; an export may leave B open.
      kernel_shape: `[*window, C, F]`.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    batch, *space, _ = x_shape
    *window, channels, features = kernel_shape
    if math.prod(window) > MOST_TAPS or not sees_whole(space, window, **geometry):
        return False
    taps = math.prod(sum(map(bool, axis)) for axis in _meetings(space, window, **geometry))
    is_larger = math.prod(space) * math.prod(out_space(space, window, **geometry)) > taps
    return not is_larger or math.sqrt(channels * features) <= DENSE_CHANNELS * batch


def _matrix(
    kernel: Float[Array, "*window C F"], space: Sequence[int], **geometry: Any
) -> Float[Array, "pixelsC positionsF"]:
    """The taps between each pixel of an image and of the result, where each window sees the whole image."""
    *window, channels, features = kernel.shape
    between = np.zeros((1, 1), np.int32)  # the tap between each pixel and each position
    out = out_space(space, window, **geometry)
    for axis, n, m, size in zip(_meetings(space, window, **geometry), space, out, window, strict=True):
        along = np.zeros((n, m), np.int32)
        for tap, position, pixel in itertools.chain(*axis):
            along[pixel, position] = tap
        # [pixels, 1, positions, 1] and [n, 1, m] -> [pixels, n, positions, m] -> [pixels * n, positions * m]
        between = size * between[:, None, :, None] + along[:, None]
        between = between.reshape(-1, between.shape[2] * m)
    # [*window, C, F] -> [taps, C, F] -> [pixels, positions, C, F]
    blocks = kernel.reshape(-1, channels, features).at[between].get(mode="promise_in_bounds")
    # -> [pixels, C, positions, F] -> [pixels * C, positions * F]
    return jnp.swapaxes(blocks, 1, 2).reshape(len(between) * channels, -1)


def dense(
    x: Float[Array, "B *space C"], kernel: Float[Array, "*window C F"], **geometry: Any
) -> Float[Array, "B *out F"]:
    """The product of whole images with a matrix of the taps between each pixel of the image and of the result.

    Args:
      x: images, `[B, *space, C]`.
      kernel: `[*window, C, F]`.
      **geometry: `window_strides`, `padding` and `rhs_dilation`, for which `sees_whole` holds.
    """
    space = x.shape[1:-1]
    matrix = _matrix(kernel, space, **geometry)
    product = x.reshape(len(x), len(matrix)) @ matrix  # [B, *space, C] -> [B, pixels * C]
    # [B, positions * F] -> [B, *out, F]
    return product.reshape(len(x), *out_space(space, kernel.shape[:-2], **geometry), kernel.shape[-1])


def dense_input_gradient(
    cotangent: Float[Array, "B *out F"], kernel: Float[Array, "*window C F"], space: Sequence[int], **geometry: Any
) -> Float[Array, "B *space C"]:
    """The gradient of `dense` for images of `space` pixels: the matrix, which the program has already, transposed."""
    matrix = _matrix(kernel, space, **geometry)
    product = cotangent.reshape(len(cotangent), matrix.shape[1]) @ matrix.T  # [B, *out, F] -> [B, positions * F]
    return product.reshape(len(cotangent), *space, kernel.shape[-2])  # [B, pixels * C] -> [B, *space, C]


def unfolded(
    x: Float[Array, "B *space C"], kernel: Float[Array, "*window C F"], **geometry: Any
) -> Float[Array, "B *out F"]:
    """The product of what each window sees with the kernel (im2col); taps that see padding alone are left out.

    Args:
      x: images, `[B, *space, C]`.
      kernel: `[*window, C, F]`.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    channels, features = kernel.shape[-2:]
    strides, dilation = geometry["window_strides"], geometry["rhs_dilation"]
    out = out_space(x.shape[1:-1], kernel.shape[:-2], **geometry)
    taps, around = [], []
    for axis, n, count, size, stride, (before, after), step in zip(
        _meetings(x.shape[1:-1], kernel.shape[:-2], **geometry),
        x.shape[1:-1],
        out,
        kernel.shape[:-2],
        strides,
        geometry["padding"],
        dilation,
        strict=True,
    ):
        seen = [tap for tap, met in enumerate(axis) if met]
        taps.append(range(seen[0], seen[-1] + 1) if seen else range(1))
        around.append((before, max(after, stride * (count - 1) + step * (size - 1) + 1 - n - before), 0))
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *around, (0, 0, 0)])
    views = []
    for tap in itertools.product(*taps):
        start = [step * t for step, t in zip(dilation, tap, strict=True)]
        end = [
            first + stride * (count - 1) + 1 if count else first
            for first, stride, count in zip(start, strides, out, strict=True)
        ]
        views.append(jax.lax.slice(x, (0, *start, 0), (len(x), *end, channels), (1, *strides, 1)))
    # taps × [B, *out, C] -> [N, taps * C]
    seen_by_windows = jnp.concatenate(views, axis=-1).reshape(-1, len(views) * channels)
    used = kernel[tuple(slice(each.start, each.stop) for each in taps)]
    product = seen_by_windows @ used.reshape(-1, features)  # [*taps, C, F] -> [taps * C, F]
    return product.reshape(len(x), *out, features)  # [N, F] -> [B, *out, F]


def gradient_by_phases(
    cotangent: Float[Array, "B *out F"],
    kernel: Float[Array, "*window C F"],
    space: Sequence[int],
    convolve: Callable[..., Array],
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int],
) -> Float[Array, "B *space C"]:
    """The input's gradient as convolutions of stride 1 of the cotangent as it is.

    The input's pixels at the same place within a stride, a phase, meet the same taps: every `stride`-th one, or none.

    Args:
      cotangent: of the result, `[B, *out, F]`.
      kernel: `[*window, C, F]`.
      space: pixels of the input along each axis.
      convolve: convolves `[B, *out, F]` with `[*taps, F, C]`, of `stride`, `padding` and `dilation`.
      window_strides: of the convolution whose gradient it is.
      padding: likewise.
      rhs_dilation: likewise.
    """
    rank, channels = len(space), kernel.shape[-2]
    counts = [-(-n // stride) for n, stride in zip(space, window_strides, strict=True)]
    # Along each axis and for each phase: the taps, and the padding and the dilation of their convolution.
    axes: list[list[tuple[slice, tuple[int, int], int] | None]] = []
    for count, out, size, stride, (before, _), step in zip(
        counts, cotangent.shape[1:-1], kernel.shape[:-2], window_strides, padding, rhs_dilation, strict=True
    ):
        phases: list[tuple[slice, tuple[int, int], int] | None] = []
        for phase in range(stride):
            taps = [tap for tap in range(size) if (phase + before - step * tap) % stride == 0]
            if not taps:
                phases.append(None)
                continue
            apart = taps[1] - taps[0] if len(taps) > 1 else stride
            # The pixel `stride * i + phase` meets the cotangent's pixels from `i + first` to `i + last`.
            first, last = ((phase + before - step * tap) // stride for tap in (taps[-1], taps[0]))
            around = (-first, count - 1 + last - (out - 1))
            phases.append((slice(taps[0], taps[-1] + 1, apart), around, max(1, step * apart // stride)))
        axes.append(phases)
    parts = []
    for phase in itertools.product(*axes):
        along = [each for each in phase if each is not None]
        if len(along) < rank:
            parts.append(jnp.zeros((len(cotangent), *counts, channels), cotangent.dtype))
            continue
        taps, around, dilation = zip(*along, strict=True)
        # [*taps, C, F] -> [*taps, F, C]
        flipped = jnp.swapaxes(jnp.flip(kernel[taps], tuple(range(rank))), -1, -2)
        parts.append(convolve(cotangent, flipped, stride=(1,) * rank, padding=around, dilation=dilation))
    if len(parts) == 1:
        return parts[0]
    # phases × [B, *counts, C] -> [B, *strides, *counts, C]
    gradient = jnp.stack(parts, axis=1).reshape(len(cotangent), *window_strides, *counts, channels)
    pairs = [axis for i in range(rank) for axis in (1 + rank + i, 1 + i)]
    gradient = gradient.transpose(0, *pairs, 2 * rank + 1)
    # [B, count, stride, ..., C] -> [B, count * stride, ..., C], and what lies behind the input is cut off
    wide = [count * stride for count, stride in zip(counts, window_strides, strict=True)]
    gradient = gradient.reshape(len(cotangent), *wide, channels)
    return gradient[(slice(None), *(slice(n) for n in space))]


def kernel_gradient_by_taps(
    cotangent: Float[Array, "B *out F"], x: Float[Array, "B *space C"], kernel_shape: Sequence[int], **geometry: Any
) -> Float[Array, "*window C F"]:
    """The kernel's gradient: for each tap the product of the pixels that it meets, none of which is padding.

    On one AVX2 core faster than a convolution where each window sees the whole image (2×2 pixels, 64 channels: 95 for
    135 us with 32 images, 195 for 460 with 64), and slower on larger ones with few channels (8×8 pixels, 3 channels to
    16, 11×11 taps: 2.9 for 0.9 ms).

    Args:
      cotangent: of the result, `[B, *out, F]`.
      x: images, `[B, *space, C]`.
      kernel_shape: `[*window, C, F]`.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    *window, channels, features = kernel_shape
    strides = geometry["window_strides"]
    products = []
    for tap in itertools.product(*_meetings(x.shape[1:-1], window, **geometry)):
        if not all(tap):
            products.append(jnp.zeros((channels, features), cotangent.dtype))
            continue
        pixels = [slice(met[0][2], met[-1][2] + 1, stride) for met, stride in zip(tap, strides, strict=True)]
        positions = [slice(met[0][1], met[-1][1] + 1) for met in tap]
        count = len(x) * math.prod(map(len, tap))
        images = x[(slice(None), *pixels)].reshape(count, channels)  # [B, *met, C] -> [N, C]
        # [B, *met, F] -> [N, F]
        products.append(images.T @ cotangent[(slice(None), *positions)].reshape(count, features))
    return jnp.stack(products).reshape(*kernel_shape)  # taps × [C, F] -> [*window, C, F]
