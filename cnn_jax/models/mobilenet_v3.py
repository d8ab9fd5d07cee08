"""MobileNetV3: Howard et al. 2019, "Searching for MobileNetV3", as torchvision builds it."""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import require_width_multiplier, scaled_channels
from cnn_jax.nn.checks import require_classifier, require_known
from cnn_jax.nn.conv import he_fan_out
from cnn_jax.nn.heads import Classifier, DenseHead
from cnn_jax.nn.inverted_residual import InvertedResidual
from cnn_jax.nn.norm import NORMS

STEM_CHANNELS = 16
FINAL_EXPANSION = 6
"""Channels of the last convolution / channels of the last stage: 960 / 160 and 576 / 96 in the tables."""

EPSILON, MOMENTUM = 1e-3, 0.99
"""Of every norm; the momentum in Flax's sense (torchvision's 0.01; Section 6.1.1)."""

STAGES = {
    "large": (
        ((3, 16, 16, False, False, 1),),
        ((3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1)),
        ((5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1)),
        (
            *((3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1)),
            *((3, 184, 80, False, True, 1), (3, 184, 80, False, True, 1)),
        ),
        ((3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1)),
        ((5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1)),
    ),
    "small": (
        ((3, 16, 16, True, False, 2),),
        ((3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1)),
        ((5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1)),
        ((5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1)),
        ((5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1)),
    ),
}
"""By size, stages of blocks: kernel, expanded channels, channels, squeeze-and-excitation, hard-swish, stride.

Tables 1 and 2; a stage is what has the same number of channels.
"""

HIDDEN = {"large": 1280, "small": 1024}
"""Units of the hidden layer behind the pool: Tables 1 and 2."""


class MobileNetV3(nn.Module):
    """A stem, six (large) or five (small) stages of inverted residuals, and a 1×1 convolution.

    Returns `{"stem": ..., "stage1": ..., ..., "final": ...}`. Strides, in pixels of the input: stem 2; stages 2, 4, 8,
    16, 16, 32 (large) or 4, 8, 16, 16, 32 (small); final 32. An axis of n pixels becomes ceil(n / stride).

    Attributes:
      size: a key of `STAGES`.
      width_multiplier: of all channels, see `scaled_channels`.
      activation: a key of `ACTIVATIONS`, where the tables have hard-swish; elsewhere it is ReLU.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dtype: compute type, "float32" or "bfloat16".
    """

    size: str
    width_multiplier: float
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        shared = {
            "norm": self.norm,
            "epsilon": EPSILON,
            "momentum": MOMENTUM,
            "kernel_init": he_fan_out,
            "dtype": self.dtype,
        }
        make = functools.partial(ConvNormAct, use_bias=self.norm == "none", activation=self.activation, **shared)
        channels = functools.partial(scaled_channels, multiplier=self.width_multiplier)
        x = make(channels(STEM_CHANNELS), 3, stride=2, name="stem")(x, train=train)
        maps = {"stem": x}
        for i, blocks in enumerate(STAGES[self.size], start=1):
            for j, (kernel_size, expanded, features, squeeze_excite, hard_swish, stride) in enumerate(blocks, start=1):
                x = InvertedResidual(
                    channels(features),
                    expanded=channels(expanded),
                    kernel_size=kernel_size,
                    stride=stride,
                    # The paper fixes it to a quarter (Section 5.3); its authors' code rounds to multiples of 8.
                    squeeze_excite=scaled_channels(channels(expanded) // 4) if squeeze_excite else 0,
                    squeeze_excite_gate="hard_sigmoid",
                    activation=self.activation if hard_swish else "relu",
                    **shared,
                    name=f"stage{i}_block{j}",
                )(x, train=train)
            maps[f"stage{i}"] = x
        maps["final"] = make(FINAL_EXPANSION * x.shape[-1], 1, name="final")(x, train=train)
        return maps


def mobilenet_v3(
    *,
    num_classes: int,
    in_channels: int = 3,
    size: str = "large",
    width_multiplier: float = 1.0,
    activation: str = "hard_swish",
    norm: str = "batch",
    dropout_rate: float = 0.2,
    dtype: str = "float32",
) -> Classifier:
    """MobileNetV3-Large and -Small (Tables 1 and 2) for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Norms have epsilon 1e-3 and momentum 0.99. Kernels
    of convolutions start as He et al. 2015 (Eq. 14, fan-out), as in torchvision. With 1000 classes they have 5,483,032
    and 2,542,856 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      size: "large" or "small".
      width_multiplier: of all channels, rounded to multiples of 8; also of the last convolution and the hidden layer,
        as in torchvision.
      activation: a key of `nn.activation.ACTIVATIONS`, where the tables have hard-swish; elsewhere it is ReLU.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the hidden units behind the pool that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_known("size", size, STAGES)
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=MobileNetV3(
            size=size, width_multiplier=width_multiplier, activation=activation, norm=norm, dtype=dtype
        ),
        head=DenseHead(
            (scaled_channels(HIDDEN[size], multiplier=width_multiplier),),
            num_classes=num_classes,
            activation=activation,
            dropout_rate=dropout_rate,
            final_pool="average",
            dtype=dtype,
        ),
        in_channels=in_channels,
    )
