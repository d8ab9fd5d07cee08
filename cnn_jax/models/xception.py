"""Xception: Chollet 2017, "Xception: deep learning with depthwise separable convolutions", as timm builds it."""

import functools
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.models.resnet import Shortcut
from cnn_jax.nn.activation import activation_layer, require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import require_width_multiplier, scaled_channels
from cnn_jax.nn.checks import require_classifier, require_known, require_positive
from cnn_jax.nn.conv import Conv, he_fan_in, he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS, norm_layer
from cnn_jax.nn.pool import MaxPool

ENTRY = (128, 256, 728)
"""Channels of the entry flow's blocks: Fig. 5."""


class SeparableConv(nn.Module):
    """A 3×3 kernel for each channel, then a 1×1 convolution over the channels, with nothing between (Section 3.1).

    Parameters lie under `depthwise` and `pointwise`.

    Attributes:
      features: output channels.
      use_bias: of the 1×1 convolution; a bias before it would be one behind it.
      kernel_init: initializer of both kernels.
      dtype: compute type.
    """

    features: int
    use_bias: bool
    kernel_init: Callable[..., Array]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *space features"]:
        """Maps `[B, *space, C]` to `[B, *space, features]`."""
        make = functools.partial(Conv, dtype=self.dtype, kernel_init=self.kernel_init)
        channels = x.shape[-1]
        x = make(channels, 3, groups=channels, use_bias=False, name="depthwise")(x)
        return make(self.features, 1, use_bias=self.use_bias, name="pointwise")(x)


class XceptionBlock(nn.Module):
    """Activations, separable convolutions and norms, a max pool if it has a stride, and a shortcut (Fig. 5).

    Parameters lie under `conv1`, `norm1`, ... and, where the shape changes, `shortcut/conv` and `shortcut/norm`.

    Attributes:
      features: output channels of each separable convolution.
      stride: of the block; above 1 it is that of the pool.
      starts_active: an activation comes before the first convolution too; the shortcut goes round it.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      kernel_init: initializer of the kernels.
      dtype: compute type.
    """

    features: tuple[int, ...]
    stride: int
    starts_active: bool
    activation: str
    norm: str
    kernel_init: Callable[..., Array]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out D"]:
        """Maps `[B, *space, C]` to `[B, *out, D]`, ceil(n / stride) pixels per axis."""
        y = x
        for i, features in enumerate(self.features, start=1):
            if i > 1 or self.starts_active:
                y = activation_layer(self.activation, name=f"act{i}")(y)
            y = SeparableConv(features, self.norm == "none", self.kernel_init, self.dtype, name=f"conv{i}")(y)
            y = norm_layer(self.norm, dtype=self.dtype, name=f"norm{i}")(y, train=train)
        if self.stride > 1:
            y = MaxPool(3, stride=self.stride, padding=1, name="pool")(y)
        shortcut = Shortcut(
            y.shape[-1],
            self.stride,
            kind="B",
            norm=self.norm,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="shortcut",
        )
        return y + shortcut(x, train=train)


class Xception(nn.Module):
    """Two convolutions, the blocks of the entry, middle and exit flow, and two separable convolutions (Fig. 5).

    Returns `{"stem": ..., "stage1": ..., "stage2": ..., "stage3": ..., "stage4": ..., "final": ...}`, the sums at the
    end of the blocks before the next activation. Strides, in pixels of the input: stem 2, stages 4, 8, 16 (with the
    middle flow) and 32, final 32. The stem, which is not padded, makes (n - 1) // 2 - 2 of n pixels, stage i then
    ceil(m / 2 ** i) of those m.

    Attributes:
      middle_blocks: blocks of the middle flow.
      width_multiplier: of the channels, see `nn.channels.scaled_channels`.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      kernel_init: initializer of the kernels.
      dtype: compute type, "float32" or "bfloat16".
    """

    middle_blocks: int
    width_multiplier: float
    activation: str
    norm: str
    kernel_init: Callable[..., Array]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        shared = {"norm": self.norm, "kernel_init": self.kernel_init, "dtype": self.dtype}
        conv = functools.partial(
            ConvNormAct, padding="valid", activation=self.activation, use_bias=self.norm == "none", **shared
        )
        channels = functools.partial(scaled_channels, multiplier=self.width_multiplier)
        x = conv(channels(32), 3, stride=2, name="stem_conv1")(x, train=train)
        x = conv(channels(64), 3, name="stem_conv2")(x, train=train)
        maps = {"stem": x}
        last = ENTRY[-1]
        # Per stage and block: channels of its convolutions, and whether it has a stride.
        stages: list[list[tuple[tuple[int, ...], bool]]] = [[((features, features), True)] for features in ENTRY]
        stages[-1] += [((last, last, last), False)] * self.middle_blocks
        stages.append([((last, 1024), True)])
        for i, blocks in enumerate(stages, start=1):
            for j, (features, strided) in enumerate(blocks, start=1):
                x = XceptionBlock(
                    tuple(map(channels, features)),
                    stride=2 if strided else 1,
                    starts_active=i > 1,  # the stem ends with an activation
                    activation=self.activation,
                    name=f"stage{i}_block{j}",
                    **shared,
                )(x, train=train)
            maps[f"stage{i}"] = x
        for i, features in enumerate((1536, 2048), start=1):
            x = SeparableConv(
                channels(features), self.norm == "none", self.kernel_init, self.dtype, name=f"final_conv{i}"
            )(x)
            x = norm_layer(self.norm, dtype=self.dtype, name=f"final_norm{i}")(x, train=train)
            x = activation_layer(self.activation, name=f"final_act{i}")(x)
        maps["final"] = x
        return maps


def xception(
    *,
    num_classes: int,
    in_channels: int = 3,
    middle_blocks: int = 8,
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.5,
    dtype: str = "float32",
) -> Classifier:
    """Xception (Fig. 5) for any number of space axes; the published image has 299×299 pixels.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`; feature maps and strides are those of `Xception`. The
    smallest image has 7 pixels per axis. With 1000 classes it has 22,855,952 parameters. Kernels start as He et al.
    2015 (Eq. 14, fan-out), as in timm, or without norms by fan-in (Eq. 10). The norms add 1e-5 to the variance, as
    timm's do; Keras, where the published weights come from, adds 1e-3.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      middle_blocks: blocks of the middle flow.
      width_multiplier: of the channels, rounded to multiples of 8.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0; 0.5 in Section 4.3.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_positive("middle_blocks", middle_blocks)
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=Xception(
            middle_blocks=middle_blocks,
            width_multiplier=width_multiplier,
            activation=activation,
            norm=norm,
            # By fan-out, a filter of one channel counts the outputs of all others: the norm mends that.
            kernel_init=he_fan_in if norm == "none" else he_fan_out,
            dtype=dtype,
        ),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
