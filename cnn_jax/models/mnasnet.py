"""MNASNet-B1: Tan et al. 2019, "MnasNet: platform-aware neural architecture search for mobile", as in torchvision."""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import require_width_multiplier, scaled_channels
from cnn_jax.nn.checks import require_classifier, require_known
from cnn_jax.nn.conv import he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.inverted_residual import InvertedResidual
from cnn_jax.nn.norm import NORMS

STEM_CHANNELS, FINAL_CHANNELS = 32, 1280

STAGES = (
    *((3, 1, 16, 1, 1), (3, 3, 24, 3, 2), (5, 3, 40, 3, 2), (5, 6, 80, 3, 2)),
    *((3, 6, 96, 2, 1), (5, 6, 192, 4, 2), (3, 6, 320, 1, 1)),
)
"""Kernel, expansion, channels, blocks and first stride of every stage: Fig. 7 without its squeeze-and-excitation."""

MOMENTUM = 0.9997
"""Of every norm, in Flax's sense; torchvision's is 1 - 0.9997."""


class MNASNet(nn.Module):
    """A stem, a separable convolution, six stages of inverted residuals, and a 1×1 convolution.

    Returns `{"stem": ..., "stage1": ..., ..., "stage7": ..., "final": ...}`. Strides, in pixels of the input: stem 2,
    stages 2, 4, 8, 16, 16, 32, 32, final 32. An axis of n pixels becomes ceil(n / stride).

    Attributes:
      width_multiplier: of all channels but those of "final", see `scaled_channels`.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dtype: compute type, "float32" or "bfloat16".
    """

    width_multiplier: float
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        shared = {
            "norm": self.norm,
            "momentum": MOMENTUM,
            "activation": self.activation,
            "kernel_init": he_fan_out,
            "dtype": self.dtype,
        }
        make = functools.partial(ConvNormAct, use_bias=self.norm == "none", **shared)
        channels = functools.partial(scaled_channels, multiplier=self.width_multiplier)
        x = make(channels(STEM_CHANNELS), 3, stride=2, name="stem")(x, train=train)
        maps = {"stem": x}
        for i, (kernel_size, expansion, features, blocks, first_stride) in enumerate(STAGES, start=1):
            for j in range(1, blocks + 1):
                x = InvertedResidual(
                    channels(features),
                    expanded=expansion * x.shape[-1],
                    kernel_size=kernel_size,
                    stride=first_stride if j == 1 else 1,
                    # At a small width the separable convolution keeps the channels, and is still not added.
                    residual=i > 1,
                    **shared,
                    name=f"stage{i}_block{j}",
                )(x, train=train)
            maps[f"stage{i}"] = x
        maps["final"] = make(FINAL_CHANNELS, 1, name="final")(x, train=train)
        return maps


def mnasnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.2,
    dtype: str = "float32",
) -> Classifier:
    """MNASNet-B1, the searched network without squeeze-and-excitation, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Norms have momentum 0.9997. Kernels of convolutions
    start as He et al. 2015 (Eq. 14, fan-out), as in torchvision. With 1000 classes it has 4,383,312 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      width_multiplier: of the channels, rounded to multiples of 8; also of the stem, as in torchvision since 0.5, but
        not of the last convolution.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=MNASNet(width_multiplier=width_multiplier, activation=activation, norm=norm, dtype=dtype),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
