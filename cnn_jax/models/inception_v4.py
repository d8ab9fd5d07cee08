"""Inception-v4: Szegedy et al. 2017, "Inception-v4, Inception-ResNet and the impact of residual connections"."""

import functools

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.channels import require_width_multiplier
from cnn_jax.nn.checks import require_classifier, require_known
from cnn_jax.nn.conv import he_fan_in
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.inception import Block, Convolution, InceptionNet, Stages, Style
from cnn_jax.nn.norm import NORMS
from cnn_jax.nn.pool import AveragePool, MaxPool

HALVE = functools.partial(MaxPool, 3, stride=2)
"""The pool that halves the image: n pixels become (n - 1) // 2."""

SMOOTH = functools.partial(AveragePool, 3, stride=1, padding=1, count_include_pad=False)
"""The pool of a branch; its mean is over the pixels inside the image."""

STEM = (Convolution(32, 3, stride=2, padding="valid"), Convolution(32, 3, padding="valid"), Convolution(64, 3))
"""Fig. 3, up to its first fork."""

FORK1: Block = ((HALVE,), (Convolution(96, 3, stride=2, padding="valid"),))
FORK2: Block = (
    (Convolution(64), Convolution(96, 3, padding="valid")),
    (Convolution(64), Convolution(64, (1, 7)), Convolution(64, (7, 1)), Convolution(96, 3, padding="valid")),
)
FORK3: Block = ((Convolution(192, 3, stride=2, padding="valid"),), (HALVE,))
"""The forks of Fig. 3, with timm's order of 1×7 and 7×1."""

BLOCK_A: Block = (
    (Convolution(96),),
    (Convolution(64), Convolution(96, 3)),
    (Convolution(64), Convolution(96, 3), Convolution(96, 3)),
    (SMOOTH, Convolution(96)),
)
"""Fig. 4."""

BLOCK_B: Block = (
    (Convolution(384),),
    (Convolution(192), Convolution(224, (1, 7)), Convolution(256, (7, 1))),
    (
        Convolution(192),
        *(Convolution(192, (7, 1)), Convolution(224, (1, 7))),
        *(Convolution(224, (7, 1)), Convolution(256, (1, 7))),
    ),
    (SMOOTH, Convolution(128)),
)
"""Fig. 5."""

BLOCK_C: Block = (
    (Convolution(256),),
    (Convolution(384), (Convolution(256, (1, 3)), Convolution(256, (3, 1)))),
    (
        Convolution(384),
        *(Convolution(448, (3, 1)), Convolution(512, (1, 3))),
        (Convolution(256, (1, 3)), Convolution(256, (3, 1))),
    ),
    (SMOOTH, Convolution(256)),
)
"""Fig. 6."""

REDUCTION_A: Block = (
    (Convolution(384, 3, stride=2, padding="valid"),),
    (Convolution(192), Convolution(224, 3), Convolution(256, 3, stride=2, padding="valid")),
    (HALVE,),
)
"""Fig. 7 with k = 192, l = 224, m = 256, n = 384 (Table 1)."""

REDUCTION_B: Block = (
    (Convolution(192), Convolution(192, 3, stride=2, padding="valid")),
    (
        Convolution(256),
        *(Convolution(256, (1, 7)), Convolution(320, (7, 1))),
        Convolution(320, 3, stride=2, padding="valid"),
    ),
    (HALVE,),
)
"""Fig. 8."""


def inception_v4(
    *,
    num_classes: int,
    in_channels: int = 3,
    stage_sizes: tuple[int, ...] = (4, 7, 3),
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.2,
    dtype: str = "float32",
) -> Classifier:
    """Inception-v4 (Fig. 9), as timm builds it, for any number of space axes; the published image has 299×299 pixels.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Feature maps and their strides: "stem" 2, "stage1" 4
    (the rest of Fig. 3 up to its last fork), "stage2" 8, "stage3" 16, "stage4" 32. Much is not padded, so that n pixels
    are fewer than n / stride: the stem makes m = (n - 1) // 2 - 2 of them, then (m - 1) // 2 - 2, and the later stages
    (m - 1) // 2 of the m before. The smallest image has 75 pixels per axis.

    With 1000 classes it has 42,679,816 parameters. Kernels start as He et al. 2015 (Eq. 10).

    Args:
      num_classes: K.
      in_channels: channels of the images.
      stage_sizes: how many of the blocks A, B and C stages 2, 3 and 4 have, behind the one that subsamples.
      width_multiplier: of the channels, rounded to multiples of 8.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0; 0.2 in the paper.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    if len(stage_sizes) != 3 or min(stage_sizes) < 0:
        raise UserError(f"stage_sizes is {tuple(stage_sizes)}; it must be three numbers of 0 or more, as in (4, 7, 3)")
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    many_a, many_b, many_c = stage_sizes
    stages: Stages = (
        ("stem", STEM),
        ("stage1", (FORK1, FORK2)),
        ("stage2", (FORK3, *(BLOCK_A,) * many_a)),
        ("stage3", (REDUCTION_A, *(BLOCK_B,) * many_b)),
        ("stage4", (REDUCTION_B, *(BLOCK_C,) * many_c)),
    )
    style = Style(
        width_multiplier=width_multiplier, activation=activation, norm=norm, kernel_init=he_fan_in, dtype=dtype
    )
    return Classifier(
        backbone=InceptionNet(stages, style),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
