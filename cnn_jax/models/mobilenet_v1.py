"""MobileNet: Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile vision"."""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import require_width_multiplier, scaled_channels
from cnn_jax.nn.checks import require_classifier, require_known
from cnn_jax.nn.conv import he_fan_in, he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS

STEM_CHANNELS = 32

STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
"""Channels, blocks and first stride of every stage: Table 1."""


class SeparableBlock(nn.Module):
    """Filter each channel, then mix the channels, with a norm and an activation behind each (Section 3.1, Fig. 3).

    Parameters lie under `depthwise` and `pointwise`, each with `conv` and `norm`.

    Attributes:
      features: channels of the output.
      stride: of the filter.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dtype: compute type.
    """

    features: int
    stride: int
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, ceil(n / stride) pixels per axis."""
        make = functools.partial(
            ConvNormAct, use_bias=self.norm == "none", norm=self.norm, activation=self.activation, dtype=self.dtype
        )
        channels = x.shape[-1]
        # The fan-out of a filter is that of its own channel, as in timm: the same number as its fan-in.
        filters = functools.partial(make, groups=channels, kernel_init=he_fan_in)
        x = filters(channels, 3, stride=self.stride, name="depthwise")(x, train=train)
        return make(self.features, 1, kernel_init=he_fan_out, name="pointwise")(x, train=train)


class MobileNetV1(nn.Module):
    """A stem and five stages of depthwise separable convolutions, with an activation behind each half (Fig. 3).

    Returns `{"stem": ..., "stage1": ..., ..., "stage5": ...}`. Strides, in pixels of the input: stem 2, stages 2, 4, 8,
    16, 32. An axis of n pixels becomes ceil(n / stride). Nothing is added: there are no shortcuts.

    Attributes:
      width_multiplier: of the channels, see `scaled_channels`.
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
        shared = {"activation": self.activation, "norm": self.norm, "dtype": self.dtype}
        channels = functools.partial(scaled_channels, multiplier=self.width_multiplier)
        stem = ConvNormAct(
            channels(STEM_CHANNELS),
            3,
            stride=2,
            use_bias=self.norm == "none",
            kernel_init=he_fan_out,
            **shared,
            name="stem",
        )
        x = stem(x, train=train)
        maps = {"stem": x}
        for i, (features, blocks, first_stride) in enumerate(STAGES, start=1):
            for j in range(1, blocks + 1):
                stride = first_stride if j == 1 else 1
                x = SeparableBlock(channels(features), stride, **shared, name=f"stage{i}_block{j}")(x, train=train)
            maps[f"stage{i}"] = x
        return maps


def mobilenet_v1(
    *,
    num_classes: int,
    in_channels: int = 3,
    width_multiplier: float = 1.0,
    activation: str = "relu6",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
) -> Classifier:
    """MobileNet (Table 1) for any number of space axes, as timm builds it (mobilenetv1_100).

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. The paper writes ReLU; its authors' code and timm have
    ReLU6. Kernels start as He et al. 2015 (Eq. 14, fan-out), as in timm. With 1000 classes it has 4,231,976 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      width_multiplier: alpha of Section 3.3, of the channels, rounded to multiples of 8.
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
        backbone=MobileNetV1(width_multiplier=width_multiplier, activation=activation, norm=norm, dtype=dtype),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
