"""Max pooling, channels last, whose gradient XLA compiles well on a CPU too.

The gradient of `lax.reduce_window` is a select-and-scatter, which XLA's CPU backend turns into a scatter of indices.
Here, on a CPU, the image is cut into blocks as large as the stride, the maximum is taken over the positions in the
window, and the derivative picks the position that holds it: elementwise operations that fuse. Other backends keep XLA's
own.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from cnn_jax.ops.conv import Padding


def max_pool(
    x: Float[Array, "B *space C"], *, window: Sequence[int], stride: Sequence[int], padding: Padding
) -> Float[Array, "B *out C"]:
    """The largest value in each window; of several, the first in row-major order gets the gradient; NaN stays NaN.

    Args:
      x: images, `[B, *space, C]`.
      window: size along each axis of space, in pixels.
      stride: step along each axis of space, in pixels.
      padding: pixels of minus infinity before and after each axis of space.

    Returns:
      `[B, *out, C]`, with `(n + padding - window) // stride + 1` pixels along an axis.

    Example:
      >>> image = jnp.array([[3.0, 1.0, 2.0], [0.0, 4.0, 5.0]]).reshape(1, 2, 3, 1)  # [2, 3] -> [B, 2, 3, C]
      >>> max_pool(image, window=(2, 2), stride=(1, 1), padding=((0, 0), (0, 0)))[0, :, :, 0].tolist()
      [[4.0, 5.0]]
    """
    pads = ((0, 0), *((int(before), int(after)) for before, after in padding), (0, 0))
    return _primitive.bind(x, window_dimensions=(1, *window, 1), window_strides=(1, *stride, 1), padding=pads)


def _stock(x: Any, *, window_dimensions: tuple[int, ...], window_strides: tuple[int, ...], padding: Padding) -> Any:
    """XLA's own window reduction."""
    lowest = np.array(-np.inf, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, window_dimensions, window_strides, padding)


def _on_cpu(x: Any, *, window_dimensions: tuple[int, ...], window_strides: tuple[int, ...], padding: Padding) -> Any:
    """The maximum over the positions in the window, of the padded image cut into blocks as large as the stride."""
    window, stride, padding = window_dimensions[1:-1], window_strides[1:-1], padding[1:-1]
    config, split = [], []
    for n, size, step, (before, after) in zip(x.shape[1:-1], window, stride, padding, strict=True):
        windows = (n + before + after - size) // step + 1
        blocks = windows + (size - 1) // step
        config.append((before, blocks * step - n - before, 0))  # what no window reaches is cropped
        split += [blocks, step]
    if any(before or after for before, after, _ in config):
        x = jax.lax.pad(x, np.array(-np.inf, x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    # [B, n * s, m * t, ..., C] -> [B, n, s, m, t, ..., C]
    return _maximum(x.reshape(x.shape[0], *split, x.shape[-1]), window, stride)


def _positions(blocks: Any, window: tuple[int, ...], stride: tuple[int, ...]) -> list[Any]:
    """For each position in the window, in row-major order, the pixels that windows have there: `[B, *out, C]` each."""
    places = []
    for offset in np.ndindex(*window):
        index: list[Any] = [slice(None)]
        for axis, (i, size, step) in enumerate(zip(offset, window, stride, strict=True)):
            windows = blocks.shape[1 + 2 * axis] - (size - 1) // step
            index += [slice(i // step, i // step + windows), i % step]
        places.append(blocks[tuple(index)])
    return places


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _maximum(blocks: Any, window: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    return functools.reduce(jax.lax.max, _positions(blocks, window, stride))


@_maximum.defjvp
def _maximum_jvp(window: tuple[int, ...], stride: tuple[int, ...], primals: Any, tangents: Any) -> tuple[Any, Any]:
    (blocks,), (tangent,) = primals, tangents
    largest, *candidates = _positions(blocks, window, stride)
    kind = jnp.uint8 if len(candidates) < 256 else jnp.int32
    holder = jnp.zeros(largest.shape, kind)
    for index, candidate in enumerate(candidates, start=1):
        better = (candidate > largest) | jnp.isnan(candidate)  # strictly: of equals the first stays
        largest = jnp.where(better, candidate, largest)
        holder = jnp.where(better, kind(index), holder)
    if window != stride:
        picked = [
            jnp.where(holder == index, place, 0) for index, place in enumerate(_positions(tangent, window, stride))
        ]
        return largest, functools.reduce(jnp.add, picked)
    # Every pixel is in one window: one selection over all blocks, whose transpose writes each pixel once.
    inside = tuple(range(2, 2 + 2 * len(window), 2))
    shape = [size if axis in inside else 1 for axis, size in enumerate(blocks.shape)]
    position = jnp.arange(len(candidates) + 1, dtype=kind).reshape(shape)  # [s * t] -> [1, 1, s, 1, t, 1]
    held = jnp.expand_dims(holder, inside) == position
    return largest, jnp.sum(jnp.where(held, tangent, 0), axis=inside)


def _either(x: Any, **geometry: Any) -> Any:
    cpu, default = (functools.partial(form, **geometry) for form in (_on_cpu, _stock))
    return jax.lax.platform_dependent(x, cpu=cpu, default=default)


def _abstract(x: Any, **geometry: Any) -> Any:
    """Shape and type of the result."""
    result = jax.eval_shape(functools.partial(_stock, **geometry), jax.ShapeDtypeStruct(x.shape, x.dtype))
    return jax.core.ShapedArray(result.shape, result.dtype)


def _batched(arguments: Any, axes: Any, **geometry: Any) -> tuple[Any, int]:
    """`vmap`: a larger batch."""
    x = jnp.moveaxis(arguments[0], axes[0], 0)
    out = _primitive.bind(x.reshape(-1, *x.shape[2:]), **geometry)  # [V, B, *space, C] -> [V * B, *space, C]
    return out.reshape(*x.shape[:2], *out.shape[1:]), 0  # [V * B, *out, C] -> [V, B, *out, C]


# A primitive, so that what reads a traced program (receptive fields, counts of operations) sees a pool.
_primitive = Primitive("channels_last_max_pool")
_primitive.def_impl(lambda x, **geometry: jax.jit(functools.partial(_primitive.bind, **geometry))(x))
_primitive.def_abstract_eval(_abstract)
mlir.register_lowering(_primitive, mlir.lower_fun(_stock, multiple_results=False))
mlir.register_lowering(_primitive, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")
ad.primitive_jvps[_primitive] = lambda x, t, **geometry: jax.jvp(functools.partial(_either, **geometry), x, t)
batching.primitive_batchers[_primitive] = _batched
