"""Compositions of layers that two or more families share."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.activation import activation_layer
from cnn_jax.nn.checks import require_known
from cnn_jax.nn.conv import Conv, he_fan_in
from cnn_jax.nn.norm import norm_layer

ORDERS = ("conv_norm_act", "conv_act_norm")
"""Orders of a `ConvNormAct`: as Ioffe & Szegedy 2015 normalise, or after the activation."""


class ConvNormAct(nn.Module):
    """Convolution, normalisation and activation, under the names `conv`, `norm` and `act`.

    Attributes:
      features: output channels.
      kernel_size: one size for all spatial axes or one for each, in pixels.
      stride: step of the kernel, in pixels: one for all spatial axes or one for each.
      padding: as in `Conv`.
      groups: as in `Conv`.
      dilation: as in `Conv`.
      use_bias: the convolution has a bias; BatchNorm directly behind it would cancel one.
      norm: a key of `NORMS`.
      epsilon: of the norm, as in `norm_layer`.
      momentum: of the norm, as in `norm_layer`.
      scale_init: initializer of the norm's scale.
      activation: a key of `ACTIVATIONS`.
      negative_slope: as in `activation_layer`.
      order: "conv_norm_act" or "conv_act_norm".
      kernel_init: initializer of the kernel.
      bias_init: initializer of the convolution's bias.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      ImageTooSmallError: the image is too small for the kernel.
      UserError: an unknown name.
    """

    features: int
    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: str | int = "same"
    groups: int = 1
    dilation: int = 1
    use_bias: bool = True
    norm: str = "none"
    epsilon: float = 1e-5
    momentum: float = 0.9
    scale_init: Callable[..., Array] = nn.initializers.ones
    activation: str = "relu"
    negative_slope: float | None = None
    order: str = "conv_norm_act"
    kernel_init: Callable[..., Array] = he_fan_in
    bias_init: Callable[..., Array] = nn.initializers.zeros
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`; `train` goes to the normalisation."""
        require_known("order", self.order, ORDERS)
        norm = norm_layer(
            self.norm,
            dtype=self.dtype,
            name="norm",
            scale_init=self.scale_init,
            epsilon=self.epsilon,
            momentum=self.momentum,
        )
        act = activation_layer(self.activation, name="act", negative_slope=self.negative_slope)
        x = Conv(
            self.features,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            dilation=self.dilation,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            name="conv",
        )(x)
        if self.order == "conv_norm_act":
            return act(norm(x, train=train))
        return norm(act(x), train=train)


class SeparableConvNormAct(nn.Module):
    """What may stand for a `ConvNormAct`: a filter of each channel, then a 1×1 convolution that mixes the channels.

    Howard et al. 2017, Section 3.1 and Fig. 3: both have a norm and an activation. Parameters lie under `depthwise` and
    `pointwise`, each with what `make` has.

    Attributes:
      features: output channels.
      kernel_size: of the filter.
      stride: of the filter.
      padding: of the filter.
      make: a `ConvNormAct` with every attribute but these.
    """

    features: int
    kernel_size: int | tuple[int, ...]
    make: Callable[..., nn.Module]
    stride: int | tuple[int, ...] = 1
    padding: str | int = "same"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`."""
        channels = x.shape[-1]
        geometry = {"stride": self.stride, "padding": self.padding}
        x = self.make(channels, self.kernel_size, groups=channels, **geometry, name="depthwise")(x, train=train)
        return self.make(self.features, 1, name="pointwise")(x, train=train)
