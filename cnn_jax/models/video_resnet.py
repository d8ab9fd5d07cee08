"""Residual networks for video: Tran et al. 2018, "A closer look at spatiotemporal convolutions for action recognition".

R3D, mixed convolutions and R(2+1)D as torchvision builds them. Axes are `[B, frames, height, width, C]`.
"""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.models.resnet import Stage
from cnn_jax.nn.activation import activation_layer, require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.checks import require_classifier, require_known, require_positive
from cnn_jax.nn.conv import he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS

CONVOLUTIONS = ("3d", "2d", "2plus1d")
"""3×k×k; 1×k×k, which does not see or subsample time; and the latter with a 3×1×1 behind it (Fig. 1 and 2)."""

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks per stage: Table 1."""

STEM_MIDDLE = 45 / 64
"""Channels between the convolutions of a factorised stem, over its output's; Eq. of Section 3.5 would give 83 / 64.

Source: the authors' code (github.com/facebookresearch/VMZ), and torchvision's.
"""


class SpacetimeConv(nn.Module):
    """A convolution of space and time with norm and activation, whole or factorised.

    Parameters lie under `conv` and `norm`, and with "2plus1d" under `space/conv`, `space/norm`, `time/conv` and
    `time/norm`; the factorisation has norm and activation in the middle, too (Section 3.5).

    Attributes:
      kind: one of `CONVOLUTIONS`.
      features: output channels.
      size: of the kernel along height and width, in pixels; along time it is 3.
      stride: along time and along both axes of space.
      middle: channels between the parts of a factorised convolution.
      activation: a key of `ACTIVATIONS`, behind the last norm.
      middle_activation: a key of `ACTIVATIONS`, between the parts of a factorised convolution.
      norm: a key of `NORMS`.
      dtype: compute type.
    """

    kind: str
    features: int
    size: int
    stride: tuple[int, int]
    middle: int
    activation: str
    middle_activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B frames height width C"], *, train: bool
    ) -> Float[Array, "B t h w {self.features}"]:
        """Maps `[B, frames, height, width, C]` to ceil(n / stride) pixels per axis and `features` channels."""
        make = functools.partial(
            ConvNormAct, use_bias=self.norm == "none", norm=self.norm, kernel_init=he_fan_out, dtype=self.dtype
        )
        time, space = self.stride
        size = self.size
        if self.kind == "2plus1d":
            spatial = make(
                self.middle,
                (1, size, size),
                stride=(1, space, space),
                activation=self.middle_activation,
                name="space",
            )
            temporal = make(self.features, (3, 1, 1), stride=(time, 1, 1), activation=self.activation, name="time")
            return temporal(spatial(x, train=train), train=train)
        frames = 3 if self.kind == "3d" else 1
        whole = make(self.features, (frames, size, size), stride=(time, space, space), activation=self.activation)
        nn.share_scope(self, whole)  # Paths read `conv1/conv` and `conv1/norm`.
        return whole(x, train=train)


class VideoBlock(nn.Module):
    """A basic residual block: act(conv2(conv1(x)) + shortcut(x)).

    Parameters lie under `conv1` and `conv2`, see `SpacetimeConv`, and, where the shape changes, `shortcut/conv` and
    `shortcut/norm`.

    Attributes:
      kind: one of `CONVOLUTIONS`.
      features: output channels.
      stride: of the block, along space, and along time unless `kind` is "2d".
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dtype: compute type.
    """

    kind: str
    features: int
    stride: int
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B frames height width C"], *, train: bool
    ) -> Float[Array, "B t h w {self.features}"]:
        """Maps `[B, frames, height, width, C]` to ceil(n / stride) pixels per axis and `features` channels."""
        time = 1 if self.kind == "2d" else self.stride
        make = functools.partial(
            SpacetimeConv,
            kind=self.kind,
            features=self.features,
            size=3,
            # Of both convolutions: torchvision counts the block's input for the second one, too, unlike Section 3.5.
            middle=middle_channels(x.shape[-1], self.features),
            middle_activation=self.activation,
            norm=self.norm,
            dtype=self.dtype,
        )
        y = make(stride=(time, self.stride), activation=self.activation, name="conv1")(x, train=train)
        y = make(stride=(1, 1), activation="identity", name="conv2")(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = ConvNormAct(
                self.features,
                1,
                stride=(time, self.stride, self.stride),
                use_bias=self.norm == "none",
                norm=self.norm,
                activation="identity",
                kernel_init=he_fan_out,
                dtype=self.dtype,
                name="shortcut",
            )(x, train=train)
        return activation_layer(self.activation, name="act")(x + y)


class VideoResNet(nn.Module):
    """A stem and four stages of basic blocks; stage i has `width * 2 ** (i - 1)` channels.

    Returns `{"stem": ..., "stage1": ..., ..., "stage4": ...}`. Strides along height and width, in pixels of the input:
    2, 2, 4, 8, 16; along time 1, 1, 2, 4, 8, less a factor of two for each of the last three stages that is "2d". An
    axis of n pixels becomes ceil(n / stride).

    Attributes:
      convolutions: one of `CONVOLUTIONS` for the stem and each stage.
      stage_sizes: blocks per stage.
      width: channels of the stem and the first stage.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: the input has not three axes between batch and channels.
    """

    convolutions: tuple[str, ...]
    stage_sizes: tuple[int, ...]
    width: int
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B *frames_height_width C"], *, train: bool
    ) -> dict[str, Float[Array, "B t h w D"]]:
        """Maps `[B, frames, height, width, C]` to the named feature maps."""
        if x.ndim != 5:
            raise UserError(f"videos have the shape {x.shape}; a video network takes [B, frames, height, width, C]")
        x = SpacetimeConv(
            kind=self.convolutions[0],
            features=self.width,
            size=7,
            stride=(1, 2),
            middle=max(1, int(self.width * STEM_MIDDLE)),
            activation=self.activation,
            middle_activation=self.activation,
            norm=self.norm,
            dtype=self.dtype,
            name="stem",
        )(x, train=train)
        maps = {"stem": x}
        for i, (kind, blocks) in enumerate(zip(self.convolutions[1:], self.stage_sizes, strict=True), start=1):
            make_block = functools.partial(
                VideoBlock,
                kind=kind,
                features=self.width * 2 ** (i - 1),
                activation=self.activation,
                norm=self.norm,
                dtype=self.dtype,
            )
            x = Stage(blocks, stride=1 if i == 1 else 2, make_block=make_block, name=f"stage{i}")(x, train=train)
            maps[f"stage{i}"] = x
        return maps


def middle_channels(inputs: int, outputs: int) -> int:
    """Channels between the 1×3×3 and the 3×1×1 convolution: as many as give the parameters of 3×3×3 (Section 3.5).

    Example:
      >>> middle_channels(64, 64), middle_channels(64, 128)
      (144, 230)
    """
    return 3 * 3 * 3 * inputs * outputs // (3 * 3 * inputs + 3 * outputs)


def video_resnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 18,
    convolutions: tuple[str, ...] = ("3d", "3d", "3d", "3d", "3d"),
    width: int = 64,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
) -> Classifier:
    """The networks of Table 1 and Fig. 1, as torchvision builds them.

    Input `[B, frames, height, width, in_channels]`, logits `[B, num_classes]`. There is no pool behind the stem, so
    that strides along space are 2, 2, 4, 8 and 16. Kernels start as He et al. 2015 (Eq. 14, fan-out). With 400 classes,
    depth 18 has 33,371,472 parameters in R3D, 11,695,440 in MC3 and 31,505,325 in R(2+1)D. Load torchvision's with
    `weights.convert("r3d_18", state)`.

    Args:
      num_classes: K.
      in_channels: channels of the frames.
      depth: 18 or 34.
      convolutions: "3d", "2d" or "2plus1d" for the stem and each of the four stages: all "3d" is R3D, all "2plus1d"
        R(2+1)D, all "2d" f-R2D, and "3d", "3d", "2d", "2d", "2d" MC3.
      width: channels of the stem and the first stage.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    if depth not in DEPTHS:
        raise UserError(f"depth is {depth}; it must be one of {', '.join(map(str, DEPTHS))}")
    if len(convolutions) != 5:
        raise UserError(f"convolutions has {len(convolutions)} entries; it must have 5, for the stem and four stages")
    for kind in convolutions:
        require_known("convolution", kind, CONVOLUTIONS)
    require_positive("width", width)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=VideoResNet(
            convolutions=tuple(convolutions),
            stage_sizes=DEPTHS[depth],
            width=width,
            activation=activation,
            norm=norm,
            dtype=dtype,
        ),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
