"""Depthwise convolution, one kernel for each channel, as sums of shifted images: the form for XLA's CPU backend."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

PARTS, SMALLEST_PART = 16, 8
"""A kernel's gradient is summed over so many parts of the batch, of at least so many images, in turn."""


def depthwise(
    x: Float[Array, "B *space C"],
    kernel: Float[Array, "*window 1 C"],
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int],
) -> Float[Array, "B *out C"]:
    """The sum over the window's positions of the shifted image times one weight for each channel.

    Args:
      x: images, `[B, *space, C]`.
      kernel: `[*window, 1, C]`.
      window_strides: step of the window along each axis of space.
      padding: zeros before and after each axis of space.
      rhs_dilation: distance between the taps of the window along each axis.
    """
    window = kernel.shape[:-2]
    images = _shifted(x, window, strides=window_strides, padding=padding, dilation=rhs_dilation)
    weights = kernel.reshape(-1, kernel.shape[-1])  # [*window, 1, C] -> [positions, C]
    # [C] -> [B, *out, C] at once, which XLA fuses into the product.
    terms = [
        image * jax.lax.broadcast_in_dim(w, image.shape, (x.ndim - 1,))
        for image, w in zip(images, weights, strict=True)
    ]
    return functools.reduce(jnp.add, terms)


def depthwise_kernel_gradient(
    cotangent: Float[Array, "B *out C"],
    x: Float[Array, "B *space C"],
    window: Sequence[int],
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Float[Array, "*window 1 C"]:
    """For each position and channel, the sum over all pixels of the shifted image times the cotangent.

    Part by part of the batch, so that the shifted images of one part stay in the processor's cache. A part holds every
    n-th image: where devices divide the batch, each has its share of every part.

    Args:
      cotangent: of the output, `[B, *out, C]`.
      x: images, `[B, *space, C]`.
      window: sizes of the kernel.
      strides: as in `depthwise`.
      padding: as in `depthwise`.
      dilation: as in `depthwise`.
    """
    batch, channels = x.shape[0], x.shape[-1]
    parts = max(n for n in range(1, PARTS + 1) if batch % n == 0 and (n == 1 or batch // n >= SMALLEST_PART))
    # [B, ...] -> [B / parts, parts, ...]
    xs, cotangents = (a.reshape(batch // parts, parts, *a.shape[1:]) for a in (x, cotangent))

    def add_part(total: Array, index: Array) -> tuple[Array, None]:
        part, seen = (jax.lax.dynamic_index_in_dim(a, index, axis=1, keepdims=False) for a in (cotangents, xs))
        axes = tuple(range(x.ndim - 1))
        images = _shifted(seen, window, strides=strides, padding=padding, dilation=dilation)
        sums = [jnp.sum(image * part, axis=axes, dtype=jnp.float32) for image in images]
        return total + jnp.stack(sums), None

    positions = int(np.prod(window))
    total, _ = jax.lax.scan(add_part, jnp.zeros((positions, channels), jnp.float32), jnp.arange(parts))
    return total.reshape(*window, 1, channels).astype(x.dtype)  # [positions, C] -> [*window, 1, C]


def _shifted(
    x: Array,
    window: Sequence[int],
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Iterator[Array]:
    """For each position in the window, in row-major order, the pixels that it meets: `[B, *out, C]`."""
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*pad, 0) for pad in padding), (0, 0, 0)])
    geometry = list(zip(x.shape[1:-1], window, strides, dilation, strict=True))
    counts = [(n - step * (size - 1) - 1) // stride + 1 for n, size, stride, step in geometry]
    for position in np.ndindex(*window):
        start = [i * step for i, step in zip(position, dilation, strict=True)]
        stop = [i + stride * (count - 1) + 1 for i, stride, count in zip(start, strides, counts, strict=True)]
        yield jax.lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *strides, 1))
