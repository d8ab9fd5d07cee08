"""Depthwise convolution, one kernel for each channel, as sums of shifted images: the form for XLA's CPU backend."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SMALLEST_PART, ROWS = 8, 16
"""A kernel's gradient is summed over parts of the batch of at least so many images, and over at most so many rows."""


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
    n-th image: where devices divide the images of a part, each has its share of every part. Within a part rows are
    added as whole arrays, which XLA makes one elementwise loop of; what is left then is a small sum over axes, which
    it does slowly.

    Args:
      cotangent: of the output, `[B, *out, C]`.
      x: images, `[B, *space, C]`.
      window: sizes of the kernel.
      strides: as in `depthwise`.
      padding: as in `depthwise`.
      dilation: as in `depthwise`.
    """
    batch = x.shape[0]
    sizes = (n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or batch // n >= SMALLEST_PART))
    parts = max(sizes, default=1)
    # [B, ...] -> [B / parts, parts, ...]
    xs, cotangents = (a.reshape(batch // parts, parts, *a.shape[1:]) for a in (x, cotangent))
    rows = cotangents.shape[2]
    groups = -(-rows // ROWS)
    terms = -(-rows // groups)
    missing = groups * terms - rows  # made up of zeros

    def add_part(totals: Sequence[Array], index: Array) -> tuple[Sequence[Array], None]:
        part, seen = (jax.lax.dynamic_index_in_dim(a, index, axis=1, keepdims=False) for a in (cotangents, xs))
        images = _shifted(seen, window, strides=strides, padding=padding, dilation=dilation)
        return tuple(total + product_sum(image, part) for total, image in zip(totals, images, strict=True)), None

    def product_sum(image: Array, part: Array) -> Array:
        """The products of some rows, added to each other: an elementwise operation, unlike a sum over an axis."""
        ends = [(0, 0, 0), (0, missing, 0)] + [(0, 0, 0)] * (x.ndim - 2)
        whole = [jax.lax.pad(a, jnp.zeros((), a.dtype), ends) for a in (image, part)]
        pairs = ([jax.lax.slice_in_dim(a, row, None, terms, axis=1) for a in whole] for row in range(terms))
        products = [a.astype(jnp.float32) * b.astype(jnp.float32) for a, b in pairs]
        return functools.reduce(jnp.add, products)

    start = jnp.zeros((batch // parts, groups, *cotangent.shape[2:]), jnp.float32)
    positions = int(np.prod(window))
    totals, _ = jax.lax.scan(add_part, (start,) * positions, jnp.arange(parts))
    axes = tuple(range(x.ndim - 1))
    total = jnp.stack([jnp.sum(total, axis=axes) for total in totals])
    return total.reshape(*window, 1, x.shape[-1]).astype(x.dtype)  # [positions, C] -> [*window, 1, C]


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
