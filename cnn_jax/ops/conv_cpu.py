"""The convolution and its gradients for XLA's CPU backend, where the compiled library (`native`) does not apply.

The backend has a fast path for plain convolutions, and loses it for the forms that the gradients of
`lax.conv_general_dilated` have: within `scan`, where gradient accumulation and many steps in one dispatch happen, they
are an order of magnitude slower. Here both gradients are plain channels-last convolutions:

* the input's: the cotangent, dilated by the stride and padded by what is left of the kernel, convolved with the kernel
  flipped in space and with its channel axes exchanged;
* the kernel's: the image as `[C, *space, B]`, convolved with the cotangent as a kernel `[*space, B, features]` that is
  dilated by the stride.

Maps about as small as the window have their own forms (`conv_small`), few channels and windows of a pixel, too
(`conv_forms`), and one kernel for each channel (`depthwise`).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
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
    out_space,
    sees_whole,
    unfolded,
)
from cnn_jax.ops.depthwise import depthwise, depthwise_kernel_gradient


def convolve(
    x: Float[Array, "B *space C"],
    kernel: Float[Array, "*window D F"],
    *,
    feature_group_count: int,
    foldable: bool = True,
    **geometry: Any,
) -> Float[Array, "B *out F"]:
    """The convolution, in the form that XLA's CPU backend compiles best.

    Args:
      x: images, `[B, *space, C]`.
      kernel: `[*window, C / groups, F]`.
      feature_group_count: 1, or one for each channel.
      foldable: whether pixels may move into channels: not where these are the batch, which devices divide.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    out = out_space(x.shape[1:-1], kernel.shape[:-2], **geometry)
    if not math.prod((x.shape[0], *out, kernel.shape[-1])):
        return jnp.zeros((x.shape[0], *out, kernel.shape[-1]), x.dtype)
    if feature_group_count != 1:
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


_as_it_is = functools.partial(convolve, foldable=False)


def input_gradient(
    cotangent: Float[Array, "B *out F"],
    kernel: Float[Array, "*window D F"],
    *,
    space: Sequence[int],
    feature_group_count: int,
    convolve: Callable[..., Array] = convolve,
    **geometry: Any,
) -> Float[Array, "B *space C"]:
    """The gradient for the image.

    Args:
      cotangent: of the result, `[B, *out, F]`.
      kernel: `[*window, C / groups, F]`.
      space: pixels of the image along each axis.
      feature_group_count: 1, or one for each channel.
      convolve: the convolution that it is made of.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    rank, groups = len(space), feature_group_count
    stride, dilation = geometry["window_strides"], geometry["rhs_dilation"]
    shape = (cotangent.shape[0], *space, kernel.shape[-2] * groups)
    dilated, zero = [(0, 0, 0)], jnp.zeros((), cotangent.dtype)
    if not math.prod((*shape, *cotangent.shape)):
        return jnp.zeros(shape, cotangent.dtype)
    if groups == 1 and is_pointwise(kernel.shape, geometry["padding"]):
        # The product first, on fewer pixels; zeros between and behind them afterwards.
        gradient = pointwise(cotangent, jnp.swapaxes(kernel, -1, -2), (1,) * rank)
        for n, out, step in zip(space, cotangent.shape[1:-1], stride, strict=True):
            dilated.append((0, n - step * (out - 1) - 1, step - 1))
        return jax.lax.pad(gradient, zero, [*dilated, (0, 0, 0)])
    if groups == 1 and is_dense(shape, kernel.shape, **geometry):
        return dense_input_gradient(cotangent, kernel, space, **geometry)

    def plain(
        x: Array, kernel: Array, *, stride: Sequence[int], padding: Sequence[tuple[int, int]], dilation: Sequence[int]
    ) -> Array:
        steps = {"window_strides": stride, "padding": padding, "rhs_dilation": dilation}
        return convolve(x, kernel, **steps, feature_group_count=groups)

    # Everywhere else XLA makes the zeros between the pixels part of the convolution, and is as fast.
    small = is_smaller(cotangent.shape[1:-1], kernel.shape[:-2], dilation) and math.prod(stride) <= MOST_TAPS
    if groups == 1 and (small or all(step == 1 for step in stride)):
        return gradient_by_phases(cotangent, kernel, space, plain, **geometry)
    for axis in range(rank):
        reach = dilation[axis] * (kernel.shape[axis] - 1)
        before = reach - geometry["padding"][axis][0]
        covered = stride[axis] * (cotangent.shape[axis + 1] - 1) + 1
        after = space[axis] + reach - before - covered
        dilated.append((before, after, stride[axis] - 1))
    if groups == 1 and any(min(edges) < 0 for *edges, _ in dilated):
        # XLA's CPU backend would make the cropping padding of the convolution, see `stock`.
        return gradient_by_phases(cotangent, kernel, space, plain, **geometry)
    image = jax.lax.pad(cotangent, zero, [*dilated, (0, 0, 0)])
    flipped = jnp.flip(kernel, tuple(range(rank)))
    if groups == 1:
        flipped = jnp.swapaxes(flipped, -1, -2)  # [*window, C, F] -> [*window, F, C]
    return plain(image, flipped, stride=(1,) * rank, padding=((0, 0),) * rank, dilation=dilation)


def kernel_gradient(
    x: Float[Array, "B *space C"],
    cotangent: Float[Array, "B *out F"],
    *,
    window: Sequence[int],
    feature_group_count: int,
    convolve: Callable[..., Array] = _as_it_is,
    **geometry: Any,
) -> Float[Array, "*window D F"]:
    """The gradient for the kernel.

    Args:
      x: images, `[B, *space, C]`.
      cotangent: of the result, `[B, *out, F]`.
      window: taps along each axis.
      feature_group_count: 1, or one for each channel.
      convolve: the convolution that it is made of.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    stride, dilation = geometry["window_strides"], geometry["rhs_dilation"]
    shape = (*window, x.shape[-1] // feature_group_count, cotangent.shape[-1])
    if not math.prod((*x.shape, *cotangent.shape)):
        return jnp.zeros(shape, cotangent.dtype)  # XLA takes no empty window
    if feature_group_count != 1:
        steps = {"strides": stride, "padding": geometry["padding"], "dilation": dilation}
        return depthwise_kernel_gradient(cotangent, x, window, **steps)
    if is_pointwise(shape, geometry["padding"]):
        seen = every(x, stride).reshape(-1, x.shape[-1])  # [B, *out, C] -> [N, C]
        product = seen.T @ cotangent.reshape(-1, cotangent.shape[-1])  # [B, *out, F] -> [N, F]
        return product.reshape(shape)  # [C, F] -> [1, ..., 1, C, F]
    if math.prod(window) <= MOST_TAPS and sees_whole(x.shape[1:-1], window, **geometry):
        return kernel_gradient_by_taps(cotangent, x, shape, **geometry)
    padding = []
    for axis, (before, _) in enumerate(geometry["padding"]):
        # The pixels that the taps of the window meet: those that no position reaches are cropped.
        met = dilation[axis] * (window[axis] - 1) + stride[axis] * (cotangent.shape[axis + 1] - 1) + 1
        padding.append((before, met - before - x.shape[axis + 1]))
    gradient = convolve(
        jnp.swapaxes(x, 0, -1),  # [B, *space, C] -> [C, *space, B]
        jnp.moveaxis(cotangent, 0, -2),  # [B, *out, F] -> [*out, B, F]
        window_strides=dilation,
        padding=tuple(padding),
        rhs_dilation=stride,
        feature_group_count=1,
    )
    return jnp.moveaxis(gradient, 0, -2)  # [C, *window, F] -> [*window, C, F]
