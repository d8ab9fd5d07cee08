"""Convolution for one, two or three spatial axes, channels last, with padding that does not depend on the image."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.checks import require_positive
from cnn_jax.nn.window import pad_amounts, per_axis, require_output
from cnn_jax.ops.channels import over_channels
from cnn_jax.ops.conv import convolve

he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""Normal with variance 2 / fan-in, keeps the forward signal (He et al. 2015, Eq. 10)."""

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Normal with variance 2 / fan-out, keeps the backward signal (He et al. 2015, Eq. 14); torchvision's ResNets do so."""

torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within ±1 / √fan-in: torch's own start of a layer's kernel, where a network does not choose another."""


def scaled(initializer: Callable[..., Array], factor: float) -> Callable[..., Array]:
    """An initializer whose values are those of another one times a factor; with 1 it is the other one."""
    if factor == 1:
        return initializer
    return lambda *arguments: factor * initializer(*arguments)


class Conv(nn.Module):
    """Cross-correlation of an image with a bank of kernels, as deep learning calls convolution.

    Parameters: `kernel`, float32 `[*kernel_size, C / groups, features]`, and `bias`, float32 `[features]`.

    Attributes:
      features: output channels.
      kernel_size: one size for all spatial axes or one for each, in pixels.
      stride: step of the kernel, in pixels: one for all spatial axes or one for each.
      padding: "valid", "same", "full", "reflect", or a number of pixels for both sides; see `window.pad_amounts`. All
        but "reflect", which mirrors the image without its edge, pad with zeros. "same" gives ceil(n / stride).
      groups: the input channels are cut into this many groups that do not see each other.
      dilation: distance between kernel taps, in pixels.
      use_bias: add one learned number per output channel.
      dtype: compute type, "float32" or "bfloat16"; parameters are float32.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.

    Raises:
      ImageTooSmallError: the output would be empty, or a reflection would reach beyond the image.
      UserError: sizes below 1, a kernel of another rank than the input, channels that groups do not divide, or an
        unknown padding.
    """

    features: int
    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: str | int = "same"
    groups: int = 1
    dilation: int = 1
    use_bias: bool = True
    dtype: str = "float32"
    kernel_init: Callable[..., Array] = he_fan_in
    bias_init: Callable[..., Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *out features"]:
        """Convolves.

        Args:
          x: image, `[B, *space, C]`.

        Returns:
          `[B, *out, features]` of type `dtype`.
        """
        layer = "/".join(self.path) or "Conv"
        space, channels = x.shape[1:-1], x.shape[-1]
        rank = len(space)
        kernel_size = per_axis("kernel_size", self.kernel_size, rank)
        require_positive("features", self.features)
        stride = per_axis("stride", self.stride, rank)
        require_positive("groups", self.groups)
        require_positive("dilation", self.dilation)
        if channels % self.groups or self.features % self.groups:
            raise UserError(
                f"layer {layer!r}: groups={self.groups} must divide its {channels} input and {self.features} output"
                " channels"
            )
        require_output(layer, space, kernel_size, self.padding, dilation=self.dilation)

        kernel = self.param("kernel", self.kernel_init, (*kernel_size, channels // self.groups, self.features))
        x, kernel = jnp.asarray(x, self.dtype), jnp.asarray(kernel, self.dtype)
        pads = pad_amounts(kernel_size, self.padding, dilation=self.dilation)
        if self.padding == "reflect":
            x = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="reflect")
            pads = ((0, 0),) * rank
        y = convolve(
            x,
            kernel,
            stride=stride,
            padding=pads,
            dilation=(self.dilation,) * rank,
            groups=self.groups,
        )
        if self.use_bias:
            y = y + over_channels(self.param("bias", self.bias_init, (self.features,)), y)
        return y
