"""RegNetX and RegNetY: Radosavovic et al. 2020, "Designing network design spaces", as torchvision builds them."""

import functools
import itertools
import math
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.models.resnet import Shortcut, Stage
from cnn_jax.nn.activation import activation_layer, require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import scaled_channels
from cnn_jax.nn.checks import require_classifier, require_known, require_positive
from cnn_jax.nn.conv import he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS
from cnn_jax.nn.squeeze_excite import SqueezeExcite

STEM_CHANNELS = 32
"""Channels of the first convolution (Section 3.2)."""


class Design(NamedTuple):
    """What tells one RegNet from another: the arguments of `regnet` of these names."""

    depth: int
    initial_width: int
    slope: float
    step: float
    group_width: int
    squeeze_ratio: float


DESIGNS = {
    "x_400mf": Design(22, 24, 24.48, 2.54, 16, 0.0),
    "x_800mf": Design(16, 56, 35.73, 2.28, 16, 0.0),
    "x_1_6gf": Design(18, 80, 34.01, 2.25, 24, 0.0),
    "x_3_2gf": Design(25, 88, 26.31, 2.25, 48, 0.0),
    "x_8gf": Design(23, 80, 49.56, 2.88, 120, 0.0),
    "x_16gf": Design(22, 216, 55.59, 2.1, 128, 0.0),
    "x_32gf": Design(23, 320, 69.86, 2.0, 168, 0.0),
    "y_400mf": Design(16, 48, 27.89, 2.09, 8, 0.25),
    "y_800mf": Design(14, 56, 38.84, 2.4, 16, 0.25),
    "y_1_6gf": Design(27, 48, 20.71, 2.65, 24, 0.25),
    "y_3_2gf": Design(21, 80, 42.63, 2.66, 24, 0.25),
    "y_8gf": Design(17, 192, 76.82, 2.19, 56, 0.25),
    "y_16gf": Design(18, 200, 106.23, 2.48, 112, 0.25),
    "y_32gf": Design(20, 232, 115.89, 2.53, 232, 0.25),
    "y_128gf": Design(27, 456, 160.83, 2.52, 264, 0.25),
}
"""The networks that torchvision has, by their multiply-accumulates: as in the authors' model zoo."""


class RegNetBlock(nn.Module):
    """1×1, grouped 3×3 and 1×1 convolution of equal width, and a shortcut: the X block of Fig. 17, or Y with the gate.

    Parameters lie under `reduce`, `grouped`, `squeeze_excite` (if any), `project` and, where the shape changes,
    `shortcut`; all but `squeeze_excite` have `conv` and `norm`.

    Attributes:
      features: channels of all three convolutions.
      stride: of the 3×3 convolution.
      group_width: channels of one of its groups.
      squeeze_ratio: channels between the two layers of the gate / channels of the block's input; 0 is no gate.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dtype: compute type.
    """

    features: int
    stride: int
    group_width: int
    squeeze_ratio: float
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, ceil(n / stride) pixels per axis."""
        make = functools.partial(_conv_norm_act(self.norm, self.dtype), self.features)
        y = make(1, activation=self.activation, name="reduce")(x, train=train)
        y = make(
            3,
            stride=self.stride,
            groups=self.features // self.group_width,
            activation=self.activation,
            name="grouped",
        )(y, train=train)
        if self.squeeze_ratio:
            y = SqueezeExcite(
                # Of the block's input, not of the convolution before the gate.
                max(1, round(self.squeeze_ratio * x.shape[-1])),
                activation=self.activation,
                kernel_init=he_fan_out,
                dtype=self.dtype,
                name="squeeze_excite",
            )(y)
        y = make(1, activation="identity", name="project")(y, train=train)
        shortcut = Shortcut(
            self.features,
            self.stride,
            kind="B",
            norm=self.norm,
            kernel_init=he_fan_out,
            dtype=self.dtype,
            name="shortcut",
        )
        return activation_layer(self.activation, name="act")(shortcut(x, train=train) + y)


class RegNet(nn.Module):
    """A stem, and stages of blocks that each halve the image.

    Returns `{"stem": ..., "stage1": ..., "stage2": ..., ...}`, strides 2, 4, 8, ..., in pixels of the input; the
    published networks have four stages. An axis of n pixels becomes ceil(n / stride).

    Attributes:
      stages: (channels, blocks, group width) of every stage: see `stages_of`.
      squeeze_ratio: as in `RegNetBlock`.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dtype: compute type, "float32" or "bfloat16".
    """

    stages: tuple[tuple[int, int, int], ...]
    squeeze_ratio: float
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        make = _conv_norm_act(self.norm, self.dtype)
        x = make(STEM_CHANNELS, 3, stride=2, activation=self.activation, name="stem")(x, train=train)
        maps = {"stem": x}
        for i, (features, blocks, group_width) in enumerate(self.stages, start=1):
            make_block = functools.partial(
                RegNetBlock,
                features=features,
                group_width=group_width,
                squeeze_ratio=self.squeeze_ratio,
                activation=self.activation,
                norm=self.norm,
                dtype=self.dtype,
            )
            x = Stage(blocks, stride=2, make_block=make_block, name=f"stage{i}")(x, train=train)
            maps[f"stage{i}"] = x
        return maps


def _conv_norm_act(norm: str, dtype: str) -> functools.partial:
    """`ConvNormAct` with what all convolutions of the network share."""
    return functools.partial(ConvNormAct, use_bias=norm == "none", norm=norm, kernel_init=he_fan_out, dtype=dtype)


def stages_of(
    *, depth: int, initial_width: int, slope: float, step: float, group_width: int
) -> tuple[tuple[int, int, int], ...]:
    """(channels, blocks, group width) of every stage of a RegNet (Section 3.3, Eq. 2 to 4).

    The width u_j = initial_width + slope · j of block j is rounded to initial_width · step^s with an integer s, and
    that to a multiple of 8; a stage is the blocks of one width. Where the group width does not divide the width, the
    width becomes a multiple of it; a narrower stage has one group. Half a group becomes a whole one as in torchvision,
    where the authors round to even: the last stage of RegNetX-400MF has 400 channels there, 384 in the paper.

    Args:
      depth: blocks in all, d.
      initial_width: channels, w_0.
      slope: channels per block, w_a.
      step: ratio of successive widths, w_m.
      group_width: channels per group, g.

    Example:
      >>> stages_of(depth=16, initial_width=48, slope=27.89, step=2.09, group_width=8)
      ((48, 1, 8), (104, 3, 8), (208, 6, 8), (440, 6, 8))
    """
    steps = [round(math.log(1 + slope * block / initial_width, step)) for block in range(depth)]
    widths = [round(initial_width * step**exponent / 8) * 8 for exponent in steps]
    stages = []
    for width, blocks in itertools.groupby(widths):
        group = min(group_width, width)
        stages.append((scaled_channels(width, divisor=group), len(tuple(blocks)), group))
    return tuple(stages)


def regnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 16,
    initial_width: int = 48,
    slope: float = 27.89,
    step: float = 2.09,
    group_width: int = 8,
    squeeze_ratio: float = 0.25,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
) -> Classifier:
    """RegNetX, or with a `squeeze_ratio` RegNetY, for any number of space axes; the defaults are RegNetY-400MF.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`; strides 2 for the stem and 4, 8, 16 and 32 for four
    stages. Bottlenecks do not narrow (b = 1), as in all of the paper's networks. Kernels start as He et al. 2015 (Eq.
    14, fan-out). With 1000 classes RegNetY-400MF has 4,344,144 parameters. An image may be of one pixel.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: blocks in all, d in Section 3.3.
      initial_width: channels of the first stage before its group width is heeded, w_0: a multiple of 8.
      slope: channels that the widths gain per block before they are quantized, w_a.
      step: ratio of the widths of two stages, w_m.
      group_width: channels in a group of the 3×3 convolutions, g.
      squeeze_ratio: hidden channels of a block's squeeze and excitation / channels of its input: 0.25 in RegNetY, 0
        (none) in RegNetX.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_positive("depth", depth)
    if initial_width < 8 or initial_width % 8:
        raise UserError(f"initial_width is {initial_width}; it must be a multiple of 8, for example 24 or 48")
    if not 0 <= slope < math.inf:
        raise UserError(f"slope is {slope}; it must be 0 or more channels per block, for example 27.89")
    if not 1 < step < math.inf:
        raise UserError(f"step is {step}; it must be above 1, for example 2.09")
    require_positive("group_width", group_width)
    if not 0 <= squeeze_ratio <= 1:
        raise UserError(f"squeeze_ratio is {squeeze_ratio}; it must be between 0 (none) and 1, for example 0.25")
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=RegNet(
            stages=stages_of(depth=depth, initial_width=initial_width, slope=slope, step=step, group_width=group_width),
            squeeze_ratio=squeeze_ratio,
            activation=activation,
            norm=norm,
            dtype=dtype,
        ),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
