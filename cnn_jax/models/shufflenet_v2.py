"""ShuffleNetV2: Ma et al. 2018, "Practical guidelines for efficient CNN architecture design", as in torchvision."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.checks import require_classifier, require_known, require_positive
from cnn_jax.nn.conv import torch_uniform
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS
from cnn_jax.nn.pool import MaxPool

STEM_CHANNELS = 24

CHANNELS = {
    "x0_5": (48, 96, 192, 1024),
    "x1_0": (116, 232, 464, 1024),
    "x1_5": (176, 352, 704, 1024),
    "x2_0": (244, 488, 976, 2048),
}
"""Channels of the stages and of the last convolution, by width: Table 5."""


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the other half is filtered, and the two are shuffled: Fig. 3c, with a stride Fig. 3d.

    With a stride both halves of the output are filtered, each from all channels of the input. Parameters lie under
    `pointwise1`, `depthwise` and `pointwise2`, and with a stride `shortcut_depthwise` and `shortcut_pointwise`, each
    with `conv` and `norm`.

    Attributes:
      features: channels of the output, even; without a stride those of the input.
      stride: of the filters.
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
        half = self.features // 2
        make = _conv_norm_act(self.norm, self.dtype)
        pointwise = functools.partial(make, half, 1, activation=self.activation)
        filters = functools.partial(make, kernel_size=3, stride=self.stride, activation="identity")
        if self.stride == 1:
            passed, y = jnp.split(x, 2, axis=-1)
        else:
            y = x
            passed = filters(x.shape[-1], groups=x.shape[-1], name="shortcut_depthwise")(x, train=train)
            passed = pointwise(name="shortcut_pointwise")(passed, train=train)
        y = pointwise(name="pointwise1")(y, train=train)
        y = filters(half, groups=half, name="depthwise")(y, train=train)
        y = pointwise(name="pointwise2")(y, train=train)
        # The shuffle of two groups: [..., C / 2, 2] -> [..., C], a channel of the one, then one of the other.
        return jnp.stack((passed, y), axis=-1).reshape((*y.shape[:-1], self.features))


class ShuffleNetV2(nn.Module):
    """A stem, a pool, stages of shuffle units, and a 1×1 convolution.

    Returns `{"stem": ..., "pool": ..., "stage1": ..., ..., "final": ...}`; stage 1 is the paper's stage 2. Strides, in
    pixels of the input: stem 2, pool 4, stages 8, 16, 32, final 32. An axis of n pixels becomes ceil(n / stride).

    Attributes:
      blocks: units of each stage.
      channels: of each stage, and of the last convolution.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dtype: compute type, "float32" or "bfloat16".
    """

    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        make = functools.partial(_conv_norm_act(self.norm, self.dtype), activation=self.activation)
        maps = {"stem": make(STEM_CHANNELS, 3, stride=2, name="stem")(x, train=train)}
        maps["pool"] = x = MaxPool(3, stride=2, padding="same", name="pool")(maps["stem"])
        for i, (features, blocks) in enumerate(zip(self.channels[:-1], self.blocks, strict=True), start=1):
            for j in range(1, blocks + 1):
                x = ShuffleUnit(
                    features,
                    stride=2 if j == 1 else 1,
                    activation=self.activation,
                    norm=self.norm,
                    dtype=self.dtype,
                    name=f"stage{i}_block{j}",
                )(x, train=train)
            maps[f"stage{i}"] = x
        maps["final"] = make(self.channels[-1], 1, name="final")(x, train=train)
        return maps


def _conv_norm_act(norm: str, dtype: str) -> functools.partial:
    """`ConvNormAct` with what all convolutions of the network share."""
    return functools.partial(ConvNormAct, use_bias=norm == "none", norm=norm, kernel_init=torch_uniform, dtype=dtype)


def shufflenet_v2(
    *,
    num_classes: int,
    in_channels: int = 3,
    blocks: tuple[int, ...] = (4, 8, 4),
    channels: tuple[int, ...] = CHANNELS["x1_0"],
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
) -> Classifier:
    """ShuffleNetV2 (Table 5) for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Kernels start as torch's do unless told: uniform with
    variance 1 / (3 fan-in). With 1000 classes and the channels of `CHANNELS` there are 1,366,792, 2,278,604, 3,503,624
    and 7,393,996 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      blocks: units of each stage; each stage has stride 2.
      channels: of each stage, even numbers, and of the last convolution.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    blocks, channels = tuple(blocks), tuple(channels)
    require_positive("blocks", *blocks)
    require_positive("channels", *channels)
    if not blocks or len(channels) != len(blocks) + 1:
        raise UserError(
            f"channels is {channels} and blocks {blocks}; there must be one or more stages, and one number of channels"
            " more, for the last convolution"
        )
    if any(stage % 2 for stage in channels[:-1]):
        raise UserError(f"channels is {channels}; those of the stages must be even, because half of them pass")
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=ShuffleNetV2(blocks=blocks, channels=channels, activation=activation, norm=norm, dtype=dtype),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
