"""MobileNetV2: Sandler et al. 2018, "Inverted residuals and linear bottlenecks", as torchvision builds it."""

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

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion t, channels c, blocks n and first stride s of every stage: Table 2."""

STEM_CHANNELS, FINAL_CHANNELS = 32, 1280
"""Channels of the first and the last convolution: Table 2."""

STEMS = {"imagenet": 2, "cifar": 1}
"""Stride of the first convolution, and of the first stage that Table 2 subsamples in."""


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals, and a 1×1 convolution.

    Returns `{"stem": ..., "stage1": ..., ..., "stage7": ..., "final": ...}`. Strides, in pixels of the input: stem 2,
    stages 2, 4, 8, 16, 16, 32, 32, final 32; with stem "cifar" a quarter of that, and 1 for stem and stages 1 and 2.
    An axis of n pixels becomes ceil(n / stride).

    Attributes:
      stem: a key of `STEMS`.
      width_multiplier: of the channels, see `scaled_channels`.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dtype: compute type, "float32" or "bfloat16".
    """

    stem: str
    width_multiplier: float
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        shared = {"norm": self.norm, "activation": self.activation, "kernel_init": he_fan_out, "dtype": self.dtype}
        make = functools.partial(ConvNormAct, use_bias=self.norm == "none", **shared)
        channels = functools.partial(scaled_channels, multiplier=self.width_multiplier)
        early_stride = STEMS[self.stem]
        x = make(channels(STEM_CHANNELS), 3, stride=early_stride, name="stem")(x, train=train)
        maps = {"stem": x}
        for i, (expansion, features, blocks, first_stride) in enumerate(STAGES, start=1):
            for j in range(1, blocks + 1):
                # The first stage that subsamples is the second one.
                stride = 1 if j > 1 else early_stride if i == 2 else first_stride
                x = InvertedResidual(
                    channels(features),
                    expanded=expansion * x.shape[-1],
                    stride=stride,
                    **shared,
                    name=f"stage{i}_block{j}",
                )(x, train=train)
            maps[f"stage{i}"] = x
        # A narrower network keeps the width of its last convolution (Section 5, "Trade-off hyper parameters").
        last = scaled_channels(FINAL_CHANNELS, multiplier=max(1.0, self.width_multiplier))
        maps["final"] = make(last, 1, name="final")(x, train=train)
        return maps


def mobilenet_v2(
    *,
    num_classes: int,
    in_channels: int = 3,
    stem: str = "imagenet",
    width_multiplier: float = 1.0,
    activation: str = "relu6",
    norm: str = "batch",
    dropout_rate: float = 0.2,
    dtype: str = "float32",
) -> Classifier:
    """MobileNetV2 (Table 2) for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Kernels start as He et al. 2015 (Eq. 14, fan-out), as
    in torchvision. With 1000 classes it has 3,504,872 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      stem: "imagenet" (stride 32 in all) or "cifar" (stride 8: stem and second stage do not subsample).
      width_multiplier: of the channels, rounded to multiples of 8.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_known("stem", stem, STEMS)
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=MobileNetV2(
            stem=stem, width_multiplier=width_multiplier, activation=activation, norm=norm, dtype=dtype
        ),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
