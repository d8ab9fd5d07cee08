"""EfficientNet and EfficientNetV2: Tan & Le 2019 and 2021, as torchvision builds them.

The backbone and its parts; `efficientnet_presets` builds the published networks from them.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.models.efficientnet_stages import StageSpec
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.conv import he_fan_out
from cnn_jax.nn.inverted_residual import InvertedResidual
from cnn_jax.nn.stochastic_depth import StochasticDepth, linear_rates


class FusedMBConv(nn.Module):
    """MBConv whose expansion and filter are one convolution, without a gate (Tan & Le 2021, Fig. 2).

    The input is added where stride and channels stay. Parameters lie under `fused` and `project` (absent with
    expansion 1), each with `conv` and `norm`.

    Attributes:
      features: channels of the output.
      expanded: channels of the fused convolution; with as many as the input has, it makes the output itself.
      kernel_size: of the fused convolution.
      stride: of the fused convolution.
      activation: a key of `ACTIVATIONS`, behind the fused convolution.
      stochastic_depth_rate: probability that training leaves the branch out, where the input is added.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      epsilon: of the norms, as in `norm_layer`.
      momentum: of the norms, as in `norm_layer`.
      dtype: compute type.
    """

    features: int
    expanded: int
    kernel_size: int
    stride: int
    activation: str
    stochastic_depth_rate: float
    norm: str
    epsilon: float
    momentum: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, ceil(n / stride) pixels per axis."""
        make = functools.partial(
            ConvNormAct,
            use_bias=self.norm == "none",
            norm=self.norm,
            epsilon=self.epsilon,
            momentum=self.momentum,
            kernel_init=he_fan_out,
            dtype=self.dtype,
        )
        expands = self.expanded != x.shape[-1]
        fused = make(
            self.expanded if expands else self.features,
            self.kernel_size,
            stride=self.stride,
            activation=self.activation,
            name="fused",
        )
        y = fused(x, train=train)
        if expands:
            y = make(self.features, 1, activation="identity", name="project")(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.features:
            return y
        return x + StochasticDepth(self.stochastic_depth_rate, name="stochastic_depth")(y, train=train)


class EfficientNet(nn.Module):
    """A stem, stages of MBConv or FusedMBConv blocks, and a 1×1 convolution.

    Returns `{"stem": ..., "stage1": ..., ..., "final": ...}`. Strides, in pixels of the input: stem 2; stages 2, 4, 8,
    16, 16, 32, 32 (EfficientNetV2-S has no seventh); final 32. An axis of n pixels becomes ceil(n / stride).

    Attributes:
      stages: see `StageSpec`.
      stem_channels: of the first convolution, which has stride 2.
      final_channels: of the last convolution.
      squeeze_ratio: channels between the two layers of a gate / channels of the block's input; 0 is no gate.
      activation: a key of `ACTIVATIONS`.
      stochastic_depth_rate: of the residual branches, growing over the blocks from 0: see `linear_rates`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      epsilon: of the norms, as in `norm_layer`.
      momentum: of the norms, as in `norm_layer`: in Flax's sense.
      dtype: compute type, "float32" or "bfloat16".
    """

    stages: tuple[StageSpec, ...]
    stem_channels: int
    final_channels: int
    squeeze_ratio: float
    activation: str
    stochastic_depth_rate: float
    norm: str
    epsilon: float
    momentum: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        shared = {
            "activation": self.activation,
            "norm": self.norm,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "dtype": self.dtype,
        }
        make = functools.partial(ConvNormAct, use_bias=self.norm == "none", kernel_init=he_fan_out, **shared)
        x = make(self.stem_channels, 3, stride=2, name="stem")(x, train=train)
        maps = {"stem": x}
        rates = iter(linear_rates(self.stochastic_depth_rate, sum(stage.blocks for stage in self.stages)))
        for i, stage in enumerate(self.stages, start=1):
            for j in range(1, stage.blocks + 1):
                channels = x.shape[-1]
                make_block: Callable[..., nn.Module] = FusedMBConv
                if not stage.fused:
                    make_block = functools.partial(
                        InvertedResidual,
                        # Of the block's input, not of the filter.
                        squeeze_excite=max(1, int(self.squeeze_ratio * channels)) if self.squeeze_ratio else 0,
                        squeeze_excite_activation=self.activation,
                    )
                x = make_block(
                    stage.features,
                    expanded=stage.expansion * channels,
                    kernel_size=stage.kernel_size,
                    stride=stage.stride if j == 1 else 1,
                    stochastic_depth_rate=next(rates),
                    **shared,
                    name=f"stage{i}_block{j}",
                )(x, train=train)
            maps[f"stage{i}"] = x
        maps["final"] = make(self.final_channels, 1, name="final")(x, train=train)
        return maps
