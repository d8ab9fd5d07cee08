"""The convolution and both gradients as calls of the compiled library."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.interpreters import mlir
from jaxtyping import Array, Float

from cnn_jax.ops.conv_forms import is_pointwise
from cnn_jax.ops.conv_small import out_space
from cnn_jax.ops.native.library import library

MOST_AXES = 3
MOST_TAPS = 128
"""Of a window, and products of strides: pixels are told apart by the taps that they meet, each kind with a list."""


def is_native(
    context: mlir.LoweringRuleContext, *, window_strides: Sequence[int], feature_group_count: int, **geometry: Any
) -> bool:
    """Whether a convolution that is being compiled for a CPU is to be a call of the library.

    Args:
      context: of the operation: its arrays must be 32-bit numbers that are not empty, and lie whole on one device each;
        what XLA divides over devices stays with it, as it cannot divide a call.
      window_strides: step of the window along each axis.
      feature_group_count: one, for the library.
      **geometry: the rest of the operation's parameters.
    """
    avals: Sequence[Any] = (*context.avals_in, *context.avals_out)
    if feature_group_count != 1 or any(aval.dtype != np.float32 for aval in avals):
        return False
    # An export may leave sizes open.
    if not all(isinstance(size, int) and size for aval in avals for size in aval.shape):
        return False
    window = geometry["window"] if "window" in geometry else avals[1].shape[:-2]
    if len(window) > MOST_AXES or max(math.prod(window), math.prod(window_strides)) > MOST_TAPS:
        return False
    if is_pointwise((*window, 1, 1), geometry["padding"]):
        return False
    return _is_whole(context.module_context.axis_context) and bool(library().digest)


def _is_whole(context: Any) -> bool:
    """Whether each device has arrays of its own."""
    if isinstance(context, mlir.ShardingContext):
        return context.num_devices == 1
    return isinstance(context, mlir.SPMDAxisContext) and context.manual_axes == frozenset(context.mesh.axis_names)


def _call(function: str, x: Array, y: Array, shape: Sequence[int], **geometry: Any) -> Array:
    numbers = {
        "strides": geometry["window_strides"],
        "before": [before for before, _ in geometry["padding"]],
        "dilation": geometry["rhs_dilation"],
    }
    call = jax.ffi.ffi_call(library().target(function), jax.ShapeDtypeStruct(tuple(shape), x.dtype))
    return call(x, y, **{name: np.asarray(values, np.int64) for name, values in numbers.items()})


def convolve(
    x: Float[Array, "B *space C"],
    kernel: Float[Array, "*window C F"],
    **geometry: Any,
) -> Float[Array, "B *out F"]:
    """The convolution.

    Args:
      x: images, `[B, *space, C]`.
      kernel: `[*window, C, F]`.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    out = out_space(x.shape[1:-1], kernel.shape[:-2], **geometry)
    return _call("convolve", x, kernel, (len(x), *out, kernel.shape[-1]), **geometry)


def input_gradient(
    cotangent: Float[Array, "B *out F"],
    kernel: Float[Array, "*window C F"],
    *,
    space: Sequence[int],
    **geometry: Any,
) -> Float[Array, "B *space C"]:
    """The gradient for images.

    Args:
      cotangent: of the result, `[B, *out, F]`.
      kernel: `[*window, C, F]`.
      space: pixels of the images along each axis.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    return _call("input_gradient", cotangent, kernel, (len(cotangent), *space, kernel.shape[-2]), **geometry)


def kernel_gradient(
    x: Float[Array, "B *space C"],
    cotangent: Float[Array, "B *out F"],
    *,
    window: Sequence[int],
    **geometry: Any,
) -> Float[Array, "*window C F"]:
    """The gradient for a kernel.

    Args:
      x: images, `[B, *space, C]`.
      cotangent: of the result, `[B, *out, F]`.
      window: taps along each axis.
      **geometry: `window_strides`, `padding` and `rhs_dilation`.
    """
    return _call("kernel_gradient", x, cotangent, (*window, x.shape[-1], cotangent.shape[-1]), **geometry)
