"""Convolution, channels last, fast on a CPU too, forwards and backwards.

The convolution and its gradients for image and kernel are three primitives, of which each is bilinear and the other two
are its transposes: forward and reverse mode of any order, `linearize`, `vmap`, `scan` and `checkpoint` all work. On a
CPU they are calls of a compiled library (`native`), or, where that does not apply, forms that XLA compiles well
(`conv_cpu`). Other backends get XLA's own convolution and its transposes.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from cnn_jax.ops import conv_cpu
from cnn_jax.ops.conv_forms import stock, stock_input_gradient, stock_kernel_gradient
from cnn_jax.ops.native import calls

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
        return _convolution.bind(x, kernel, **geometry, feature_group_count=groups)
    # Groups of several channels have no plain form of their kernel's gradient.
    return stock(x, kernel, **geometry, feature_group_count=groups)


def _primitive(name: str, xla: Callable[..., Array], on_cpu: Callable[..., Array], native: Callable[..., Array]) -> Any:
    """A function of two arrays as a primitive, whose transposes are still missing.

    Args:
      name: of the primitive.
      xla: XLA's own form, for all backends but CPUs; it says what comes out, too.
      on_cpu: the form for XLA's CPU backend.
      native: the call of the compiled library.
    """
    primitive = Primitive(name)

    def abstract(x: Any, y: Any, **geometry: Any) -> Any:
        arrays = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, y))
        result = jax.eval_shape(functools.partial(xla, **geometry), *arrays)
        return jax.core.ShapedArray(result.shape, result.dtype)

    def lower_on_cpu(context: mlir.LoweringRuleContext, x: Any, y: Any, **geometry: Any) -> Any:
        if calls.is_native(context, **geometry):
            del geometry["feature_group_count"]  # One.
            return mlir.lower_fun(native, multiple_results=False)(context, x, y, **geometry)
        return mlir.lower_fun(on_cpu, multiple_results=False)(context, x, y, **geometry)

    primitive.def_impl(lambda x, y, **geometry: jax.jit(functools.partial(primitive.bind, **geometry))(x, y))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(xla, multiple_results=False))
    mlir.register_lowering(primitive, lower_on_cpu, platform="cpu")
    return primitive


_convolution = _primitive("channels_last_convolution", stock, conv_cpu.convolve, calls.convolve)
_input_gradient = _primitive(
    "channels_last_input_gradient", stock_input_gradient, conv_cpu.input_gradient, calls.input_gradient
)
_kernel_gradient = _primitive(
    "channels_last_kernel_gradient", stock_kernel_gradient, conv_cpu.kernel_gradient, calls.kernel_gradient
)


def _same(geometry: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a convolution and of its gradients alike."""
    return {name: value for name, value in geometry.items() if name not in ("space", "window")}


# Of three arrays, the image, the kernel and what the result is multiplied with, each primitive takes two and gives the
# gradient for the third. `a` is an array of which only the shape is known.
ad.defbilinear(
    _convolution,
    lambda ct, a, kernel, **same: _input_gradient.bind(ct, kernel, space=a.aval.shape[1:-1], **same),
    lambda ct, x, a, **same: _kernel_gradient.bind(x, ct, window=a.aval.shape[:-2], **same),
)
ad.defbilinear(
    _input_gradient,
    lambda ct, _, kernel, **geometry: _convolution.bind(ct, kernel, **_same(geometry)),
    lambda ct, cotangent, a, **geometry: _kernel_gradient.bind(
        ct, cotangent, window=a.aval.shape[:-2], **_same(geometry)
    ),
)
ad.defbilinear(
    _kernel_gradient,
    lambda ct, a, cotangent, **geometry: _input_gradient.bind(
        cotangent, ct, space=a.aval.shape[1:-1], **_same(geometry)
    ),
    lambda ct, x, _, **geometry: _convolution.bind(x, ct, **_same(geometry)),
)


def _merged(primitive: Any, arguments: Any, axes: Any, **geometry: Any) -> tuple[Any, int]:
    """`vmap` over images alone: a larger batch."""
    x = jnp.moveaxis(arguments[0], axes[0], 0)
    count = x.shape[0] * x.shape[1]
    merged = x.reshape(count, *x.shape[2:])  # [V, B, *space, C] -> [V * B, *space, C]
    out = primitive.bind(merged, arguments[1], **geometry)
    return out.reshape(*x.shape[:2], *out.shape[1:]), 0  # [V * B, *out, F] -> [V, B, *out, F]


def _batched_convolution(arguments: Any, axes: Any, **geometry: Any) -> tuple[Any, int]:
    """`vmap` over kernels is XLA's own grouped convolution."""
    if axes[1] is None:
        return _merged(_convolution, arguments, axes, **geometry)
    return jax.vmap(functools.partial(stock, **geometry), in_axes=axes)(*arguments), 0


def _batched_gradient(on_cpu: Callable[..., Array], elsewhere: Callable[..., Array]) -> Callable[..., tuple[Any, int]]:
    """`vmap` of a gradient, of plain grouped convolutions on a CPU."""

    def batched(arguments: Any, axes: Any, **geometry: Any) -> tuple[Any, int]:
        forms = (functools.partial(on_cpu, convolve=stock, **geometry), functools.partial(elsewhere, **geometry))
        cpu, default = (jax.vmap(form, in_axes=axes) for form in forms)
        return jax.lax.platform_dependent(*arguments, cpu=cpu, default=default), 0

    return batched


def _batched_input_gradient(arguments: Any, axes: Any, **geometry: Any) -> tuple[Any, int]:
    if axes[1] is None:
        return _merged(_input_gradient, arguments, axes, **geometry)
    return _batched_gradient(conv_cpu.input_gradient, stock_input_gradient)(arguments, axes, **geometry)


batching.primitive_batchers[_convolution] = _batched_convolution
batching.primitive_batchers[_input_gradient] = _batched_input_gradient
batching.primitive_batchers[_kernel_gradient] = _batched_gradient(conv_cpu.kernel_gradient, stock_kernel_gradient)
