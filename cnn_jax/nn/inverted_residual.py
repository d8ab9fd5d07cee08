"""The inverted residual of MobileNetV2, V3, MNASNet and EfficientNet, where it is called MBConv."""

import functools
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.conv import he_fan_out
from cnn_jax.nn.squeeze_excite import SqueezeExcite
from cnn_jax.nn.stochastic_depth import StochasticDepth


class InvertedResidual(nn.Module):
    """Expand the channels, filter each of them, gate them, project them without an activation, add the input.

    Sandler et al. 2018, Section 3.3; the gate is of Tan et al. 2019 and Howard et al. 2019. The input is added where
    stride and channels stay. Parameters lie under `expand` (absent where `expanded` is the input's channels),
    `depthwise`, `squeeze_excite` (if any) and `project`; all but `squeeze_excite` have `conv` and `norm`.

    Attributes:
      features: channels of the output.
      expanded: channels of the filter.
      kernel_size: of the filter along every axis, in pixels.
      stride: of the filter, in pixels.
      squeeze_excite: channels between the two layers of the gate; 0 is no gate.
      squeeze_excite_activation: a key of `ACTIVATIONS`, between those layers.
      squeeze_excite_gate: a key of `ACTIVATIONS`, behind them.
      activation: a key of `ACTIVATIONS`, behind expansion and filter.
      residual: whether the input is added at all.
      stochastic_depth_rate: probability that training leaves the branch out, where the input is added.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      epsilon: of the norms, as in `norm_layer`.
      momentum: of the norms, as in `norm_layer`: in Flax's sense.
      kernel_init: initializer of all kernels.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      ImageTooSmallError: the image has no pixels.
      UserError: an unknown name.
    """

    features: int
    expanded: int
    kernel_size: int = 3
    stride: int = 1
    squeeze_excite: int = 0
    squeeze_excite_activation: str = "relu"
    squeeze_excite_gate: str = "sigmoid"
    activation: str = "relu"
    residual: bool = True
    stochastic_depth_rate: float = 0.0
    norm: str = "batch"
    epsilon: float = 1e-5
    momentum: float = 0.9
    kernel_init: Callable[..., Array] = he_fan_out
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, ceil(n / stride) pixels per axis."""
        make = functools.partial(
            ConvNormAct,
            use_bias=self.norm == "none",
            norm=self.norm,
            epsilon=self.epsilon,
            momentum=self.momentum,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
        )
        y = x
        if self.expanded != x.shape[-1]:
            y = make(self.expanded, 1, activation=self.activation, name="expand")(y, train=train)
        y = make(
            self.expanded,
            self.kernel_size,
            stride=self.stride,
            groups=self.expanded,
            activation=self.activation,
            name="depthwise",
        )(y, train=train)
        if self.squeeze_excite:
            y = SqueezeExcite(
                self.squeeze_excite,
                activation=self.squeeze_excite_activation,
                gate=self.squeeze_excite_gate,
                kernel_init=self.kernel_init,
                dtype=self.dtype,
                name="squeeze_excite",
            )(y)
        y = make(self.features, 1, activation="identity", name="project")(y, train=train)
        # The stride counts, not the size: an image of one pixel keeps its shape at a stride of 2.
        if not self.residual or self.stride != 1 or x.shape[-1] != self.features:
            return y
        return x + StochasticDepth(self.stochastic_depth_rate, name="stochastic_depth")(y, train=train)
