"""Convolution, channels last, whose gradients XLA compiles well on a CPU too, also inside loops.

XLA's CPU backend has a fast path for plain convolutions, and loses it for the forms that the gradients of
`lax.conv_general_dilated` have: within `scan`, where gradient accumulation and many steps in one dispatch happen, they
are an order of magnitude slower. Here, on a CPU, both gradients are plain channels-last convolutions:

* the input's: the cotangent, dilated by the stride and padded by what is left of the kernel, convolved with the kernel
  flipped in space and with its channel axes exchanged;
* the kernel's: the image as `[C, *space, B]`, convolved with the cotangent as a kernel `[*space, B, features]` that is
  dilated by the stride.

Maps about as small as the window have their own forms (`conv_small`).

Other backends keep XLA's own. The convolution is a primitive and not a `custom_vjp`, so that it stays bilinear: forward
and reverse mode of any order, `linearize`, `vmap`, `scan` and `checkpoint` all work.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from cnn_jax.ops.conv_forms import every, fold_factor, folded, is_pointwise, pointwise, stock
from cnn_jax.ops.conv_small import (
    MOST_TAPS,
    dense,
    dense_input_gradient,
    gradient_by_phases,
    is_dense,
    is_smaller,
    kernel_gradient_by_taps,
    sees_whole,
    unfolded,
)
from cnn_jax.ops.depthwise import depthwise, depthwise_kernel_gradient

Padding: TypeAlias = Sequence[tuple[int, int]]


def convolve(
    x: Float[Array, "B *space C"],
    kernel: Float[Array, "*window D F"],
    *,
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int = 1,
) -> Float[Array, "B *out F"]:
    """Cross-correlate images with kernels, over one axis of space or more.

    Args:
      x: images, `[B, *space, C]`.
      kernel: `[*window, C / groups, F]`, of the same type.
      stride: step of the window along each axis of space, in pixels.
      padding: zeros before and after each axis of space; negative ones crop.
      dilation: distance between the taps of the window along each axis.
      groups: the channels are cut into this many groups that do not see each other.

    Returns:
      `[B, *out, F]`, with `(n + padding - (dilation * (window - 1) + 1)) // stride + 1` pixels along an axis.

    Example:
      >>> image = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)  # [9] -> [B, 3, 3, C]
      >>> kernel = jnp.array([[1.0, 0.0], [0.0, -1.0]]).reshape(2, 2, 1, 1)  # [2, 2] -> [2, 2, C, F]
      >>> out = convolve(image, kernel, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
      >>> out[0, :, :, 0].tolist()
      [[-4.0, -4.0], [-4.0, -4.0]]
    """
    geometry: dict[str, Any] = {
        "window_strides": tuple(stride),
        "padding": tuple((int(before), int(after)) for before, after in padding),
        "rhs_dilation": tuple(dilation),
    }
    if groups == 1 or groups == x.shape[-1] == kernel.shape[-1]:
        return _primitive.bind(x, kernel, **geometry, feature_group_count=groups, foldable=True)
    # Groups of several channels have no plain form of their kernel's gradient.
    return stock(x, kernel, **geometry, feature_group_count=groups)


def _on_cpu(x: Any, kernel: Any, *, foldable: bool, **geometry: Any) -> Any:
    """The form that XLA's CPU backend compiles best."""
    result = _abstract(x, kernel, **geometry, foldable=False)
    if not result.size:
        return jnp.zeros(result.shape, result.dtype)
    if geometry.pop("feature_group_count") != 1:
        return depthwise(x, kernel, **geometry)
    if is_pointwise(kernel.shape, geometry["padding"]):
        return pointwise(x, kernel, geometry["window_strides"])
    if is_dense(x.shape, kernel.shape, **geometry):
        return dense(x, kernel, **geometry)
    if is_smaller(x.shape[1:-1], kernel.shape[:-2], geometry["rhs_dilation"]):
        return unfolded(x, kernel, **geometry)
    steps = geometry["window_strides"], geometry["rhs_dilation"]
    factor = fold_factor(x.shape, kernel.shape, *steps) if foldable else 1
    return folded(x, kernel, factor, **geometry) if factor > 1 else stock(x, kernel, **geometry)


def _elsewhere(x: Any, kernel: Any, *, foldable: bool, **geometry: Any) -> Any:
    """XLA's own convolution."""
    del foldable  # Of the CPU's forms.
    return stock(x, kernel, **geometry)


def _abstract(x: Any, kernel: Any, **geometry: Any) -> Any:
    """Shape and type of the result."""
    images, kernels = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, kernel))
    result = jax.eval_shape(functools.partial(_elsewhere, **geometry), images, kernels)
    return jax.core.ShapedArray(result.shape, result.dtype)


def _input_gradient(cotangent: Any, x: Any, kernel: Any, **geometry: Any) -> Any:
    """The gradient for the image: of `x` only the shape is known."""
    shape, rank, groups = x.aval.shape, len(geometry["window_strides"]), geometry["feature_group_count"]

    def plain(cotangent: Any, kernel: Any) -> Any:
        stride, dilation = geometry["window_strides"], geometry["rhs_dilation"]
        dilated, zero = [(0, 0, 0)], jnp.zeros((), cotangent.dtype)
        if not cotangent.size:
            return jnp.zeros(shape, cotangent.dtype)
        if groups == 1 and is_pointwise(kernel.shape, geometry["padding"]):
            # The product first, on fewer pixels; zeros between and behind them afterwards.
            gradient = pointwise(cotangent, jnp.swapaxes(kernel, -1, -2), (1,) * rank)
            for n, out, step in zip(shape[1:-1], cotangent.shape[1:-1], stride, strict=True):
                dilated.append((0, n - step * (out - 1) - 1, step - 1))
            return jax.lax.pad(gradient, zero, [*dilated, (0, 0, 0)])
        space = {"window_strides": stride, "padding": geometry["padding"], "rhs_dilation": dilation}
        if groups == 1 and is_dense(shape, kernel.shape, **space):
            return dense_input_gradient(cotangent, kernel, shape[1:-1], **space)
        # Everywhere else XLA makes the zeros between the pixels part of the convolution, and is as fast.
        small = is_smaller(cotangent.shape[1:-1], kernel.shape[:-2], dilation) and math.prod(stride) <= MOST_TAPS
        if groups == 1 and (small or all(step == 1 for step in stride)):
            return gradient_by_phases(cotangent, kernel, shape[1:-1], convolve, **space)
        for axis in range(rank):
            reach = dilation[axis] * (kernel.shape[axis] - 1)
            before = reach - geometry["padding"][axis][0]
            covered = stride[axis] * (cotangent.shape[axis + 1] - 1) + 1
            after = shape[axis + 1] + reach - before - covered
            dilated.append((before, after, stride[axis] - 1))
        if groups == 1 and any(min(edges) < 0 for *edges, _ in dilated):
            # XLA's CPU backend would make the cropping padding of the convolution, see `stock`.
            return gradient_by_phases(cotangent, kernel, shape[1:-1], convolve, **space)
        image = jax.lax.pad(cotangent, zero, [*dilated, (0, 0, 0)])
        flipped = jnp.flip(kernel, tuple(range(rank)))
        if groups == 1:
            flipped = jnp.swapaxes(flipped, -1, -2)  # [*window, C, F] -> [*window, F, C]
        one, none = (1,) * rank, ((0, 0),) * rank
        return convolve(image, flipped, stride=one, padding=none, dilation=dilation, groups=groups)

    def transposed(cotangent: Any, kernel: Any) -> Any:
        images = jax.ShapeDtypeStruct(shape, cotangent.dtype)
        return jax.linear_transpose(lambda x: _elsewhere(x, kernel, **geometry), images)(cotangent)[0]

    return jax.lax.platform_dependent(cotangent, kernel, cpu=plain, default=transposed)


def _kernel_gradient(cotangent: Any, x: Any, kernel: Any, **geometry: Any) -> Any:
    """The gradient for the kernel: of `kernel` only the shape is known."""
    shape, rank = kernel.aval.shape, len(geometry["window_strides"])

    def plain(cotangent: Any, x: Any) -> Any:
        stride, dilation = geometry["window_strides"], geometry["rhs_dilation"]
        if not math.prod((*x.shape, *cotangent.shape)):
            return jnp.zeros(shape, cotangent.dtype)  # XLA takes no empty window
        if geometry["feature_group_count"] != 1:
            return depthwise_kernel_gradient(
                cotangent, x, shape[:-2], strides=stride, padding=geometry["padding"], dilation=dilation
            )
        if is_pointwise(shape, geometry["padding"]):
            seen = every(x, stride).reshape(-1, x.shape[-1])  # [B, *out, C] -> [N, C]
            product = seen.T @ cotangent.reshape(-1, cotangent.shape[-1])  # [B, *out, F] -> [N, F]
            return product.reshape(shape)  # [C, F] -> [1, ..., 1, C, F]
        space = {"window_strides": stride, "padding": geometry["padding"], "rhs_dilation": dilation}
        if math.prod(shape[:-2]) <= MOST_TAPS and sees_whole(x.shape[1:-1], shape[:-2], **space):
            return kernel_gradient_by_taps(cotangent, x, shape, **space)
        padding = []
        for axis in range(rank):
            before = geometry["padding"][axis][0]
            # The pixels that the taps of the window meet: those that no position reaches are cropped.
            met = dilation[axis] * (shape[axis] - 1) + stride[axis] * (cotangent.shape[axis + 1] - 1) + 1
            padding.append((before, met - before - x.shape[axis + 1]))
        images = jnp.swapaxes(x, 0, -1)  # [B, *space, C] -> [C, *space, B]
        window = jnp.moveaxis(cotangent, 0, -2)  # [B, *out, F] -> [*out, B, F]
        # Not folded: its channels are the batch, which devices divide.
        gradient = _primitive.bind(
            images,
            window,
            window_strides=dilation,
            padding=tuple(padding),
            rhs_dilation=stride,
            feature_group_count=1,
            foldable=False,
        )
        return jnp.moveaxis(gradient, 0, -2)  # [C, *window, F] -> [*window, C, F]

    def transposed(cotangent: Any, x: Any) -> Any:
        kernels = jax.ShapeDtypeStruct(shape, cotangent.dtype)
        return jax.linear_transpose(lambda kernel: _elsewhere(x, kernel, **geometry), kernels)(cotangent)[0]

    return jax.lax.platform_dependent(cotangent, x, cpu=plain, default=transposed)


def _batched(arguments: Any, axes: Any, **geometry: Any) -> tuple[Any, int]:
    """`vmap`: over images alone it is a larger batch; over kernels it is XLA's own grouped convolution."""
    x, kernel = arguments
    if axes[1] is not None:
        return jax.vmap(functools.partial(_elsewhere, **geometry), in_axes=axes)(x, kernel), 0
    x = jnp.moveaxis(x, axes[0], 0)
    merged = x.reshape(-1, *x.shape[2:])  # [V, B, *space, C] -> [V * B, *space, C]
    out = _primitive.bind(merged, kernel, **geometry)
    return out.reshape(*x.shape[:2], *out.shape[1:]), 0  # [V * B, *out, F] -> [V, B, *out, F]


_primitive = Primitive("channels_last_convolution")
_primitive.def_impl(lambda x, kernel, **geometry: jax.jit(functools.partial(_primitive.bind, **geometry))(x, kernel))
_primitive.def_abstract_eval(_abstract)
mlir.register_lowering(_primitive, mlir.lower_fun(_elsewhere, multiple_results=False))
mlir.register_lowering(_primitive, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")
ad.defbilinear(_primitive, _input_gradient, _kernel_gradient)
batching.primitive_batchers[_primitive] = _batched
