"""The stages of EfficientNet and EfficientNetV2: the rows of the papers' tables, and their compound scaling."""

import dataclasses
import math
from collections.abc import Iterable

from cnn_jax.nn.channels import scaled_channels


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """A stage: one row of the papers' tables.

    Attributes:
      expansion: channels of a block's filter / channels of its input.
      kernel_size: of the filter.
      stride: of the first block; the others have 1.
      features: output channels.
      blocks: how many.
      fused: the block is a `FusedMBConv`, else an `InvertedResidual` (MBConv).
    """

    expansion: int
    kernel_size: int
    stride: int
    features: int
    blocks: int
    fused: bool = False


V1_STAGES = (
    StageSpec(1, 3, 1, 16, 1),
    StageSpec(6, 3, 2, 24, 2),
    StageSpec(6, 5, 2, 40, 2),
    StageSpec(6, 3, 2, 80, 3),
    StageSpec(6, 5, 1, 112, 3),
    StageSpec(6, 5, 2, 192, 4),
    StageSpec(6, 3, 1, 320, 1),
)
"""EfficientNet-B0: Tan & Le 2019, Table 1."""

V2_STAGES = {
    "s": (
        StageSpec(1, 3, 1, 24, 2, fused=True),
        StageSpec(4, 3, 2, 48, 4, fused=True),
        StageSpec(4, 3, 2, 64, 4, fused=True),
        StageSpec(4, 3, 2, 128, 6),
        StageSpec(6, 3, 1, 160, 9),
        StageSpec(6, 3, 2, 256, 15),
    ),
    "m": (
        StageSpec(1, 3, 1, 24, 3, fused=True),
        StageSpec(4, 3, 2, 48, 5, fused=True),
        StageSpec(4, 3, 2, 80, 5, fused=True),
        StageSpec(4, 3, 2, 160, 7),
        StageSpec(6, 3, 1, 176, 14),
        StageSpec(6, 3, 2, 304, 18),
        StageSpec(6, 3, 1, 512, 5),
    ),
    "l": (
        StageSpec(1, 3, 1, 32, 4, fused=True),
        StageSpec(4, 3, 2, 64, 7, fused=True),
        StageSpec(4, 3, 2, 96, 7, fused=True),
        StageSpec(4, 3, 2, 192, 10),
        StageSpec(6, 3, 1, 224, 19),
        StageSpec(6, 3, 2, 384, 25),
        StageSpec(6, 3, 1, 640, 7),
    ),
}
"""EfficientNetV2: S as in Tan & Le 2021, Table 4, M and L as in the authors' code and torchvision."""

STEM_CHANNELS, FINAL_CHANNELS = 32, 1280
"""Channels of the first and the last convolution of B0; EfficientNetV2's stem is as wide as its first stage."""


def scaled_stages(stages: Iterable[StageSpec], *, width: float, depth: float) -> tuple[StageSpec, ...]:
    """Stages with `width` times the channels, see `scaled_channels`, and `depth` times the blocks, rounded up.

    Source: Tan & Le 2019, Eq. 3, rounded as in the authors' code.

    Example:
      >>> [(stage.features, stage.blocks) for stage in scaled_stages(V1_STAGES[:3], width=1.1, depth=1.2)]
      [(16, 2), (24, 3), (48, 3)]
    """
    return tuple(
        dataclasses.replace(
            stage, features=scaled_channels(stage.features, multiplier=width), blocks=math.ceil(stage.blocks * depth)
        )
        for stage in stages
    )
