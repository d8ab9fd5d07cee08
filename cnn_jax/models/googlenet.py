"""GoogLeNet: Szegedy et al. 2015, "Going deeper with convolutions", with BatchNorm, as torchvision builds it."""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import activation_layer, require_activation
from cnn_jax.nn.channels import require_width_multiplier, scaled_channels
from cnn_jax.nn.checks import require_classifier, require_known, require_rate
from cnn_jax.nn.conv import he_fan_in
from cnn_jax.nn.dense import Dense
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.inception import Block, Convolution, InceptionNet, Stages, Style
from cnn_jax.nn.norm import NORMS
from cnn_jax.nn.pool import AdaptiveAveragePool, MaxPool

HALVE = functools.partial(MaxPool, 3, stride=2, ceil_mode=True)
"""The pool between stages: n pixels become n // 2."""

HALVE_LAST = functools.partial(MaxPool, 2, stride=2, ceil_mode=True)
"""torchvision's pool before the last stage, of 2×2 where Table 1 has 3×3: n pixels become ceil(n / 2)."""

KEEP = functools.partial(MaxPool, 3, stride=1, padding=1)
"""The pool of a branch."""

BLOCKS = {
    "stage2": ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    "stage3": (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    "stage4": ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
}
"""Channels of the blocks 3a–3b, 4a–4e and 5a–5b, in the order of Table 1's columns from "#1×1" to "pool proj"."""

AUXILIARY = ("stage3_block1", "stage3_block4")
"""Blocks with an auxiliary head: 4a and 4d (Section 5)."""


class GoogLeNetAuxiliaryHead(nn.Module):
    """Average pool to 4 pixels per axis, 1×1 convolution, dense layer, dropout, dense layer (Section 5).

    Parameters lie under `reduce` (with `conv` and `norm`), `dense` and `output`.

    Attributes:
      num_classes: K.
      dropout_rate: share of the dense layer's units that training sets to 0.
      style: of the convolution.
    """

    num_classes: int
    dropout_rate: float
    style: Style

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 logits `[B, K]`."""
        style = self.style
        x = AdaptiveAveragePool(4, name="pool")(x)
        x = style.convolution(Convolution(128), rank=x.ndim - 2, name="reduce")(x, train=train)
        x = x.reshape((x.shape[0], -1))  # [B, *space, C] -> [B, space * C], channels fastest
        hidden = scaled_channels(1024, multiplier=style.width_multiplier)
        x = Dense(hidden, dtype=style.dtype, kernel_init=style.kernel_init, name="dense")(x)
        x = activation_layer(style.activation, name="act")(x)
        x = nn.Dropout(self.dropout_rate, name="dropout")(x, deterministic=not train)
        return nn.Dense(self.num_classes, kernel_init=style.kernel_init, name="output")(x.astype("float32"))


def googlenet(
    *,
    num_classes: int,
    in_channels: int = 3,
    auxiliary: bool = False,
    large_kernel_size: int = 3,
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.2,
    auxiliary_dropout_rate: float = 0.7,
    dtype: str = "float32",
) -> Classifier:
    """GoogLeNet (Table 1) with a norm behind every convolution, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Feature maps and their strides: "stem" 2, "stage1" 4,
    "stage2" 8 (blocks 3a, 3b), "stage3_block1", "stage3_block4" and "stage3" 16 (4a, 4d, 4e), "stage4" 32 (5a, 5b). The
    stem makes ceil(n / 2) of n pixels, the pools halve, rounded down but for the last one, which rounds up. The
    smallest image has 15 pixels per axis.

    With 1000 classes it has 6,624,904 parameters, and 13,004,888 with its auxiliary heads. Kernels start as normals of
    deviation 0.01, as in torchvision, or without norms as He et al. 2015 (Eq. 10). What the paper has and torchvision
    has not: 5×5 kernels in the third branch (here `large_kernel_size=5`), local response normalisation instead of
    BatchNorm, and a 3×3 pool before stage 4.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      auxiliary: two more heads for training, on "stage3_block1" and "stage3_block4", with parameters under "auxiliary1"
        and "auxiliary2". They change nothing in a call: the task trains them with its `auxiliary_weight` (0.3 in
        Section 5).
      large_kernel_size: of the third branch's second convolution: 3 in torchvision, 5 in the paper; odd.
      width_multiplier: of the channels, rounded to multiples of 8.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0; 0.4 in the paper.
      auxiliary_dropout_rate: the same for the hidden units of the auxiliary heads.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_rate("auxiliary_dropout_rate", auxiliary_dropout_rate)
    if large_kernel_size < 1 or large_kernel_size % 2 == 0:
        raise UserError(f"large_kernel_size is {large_kernel_size}; it must be odd, 3 (torchvision) or 5 (the paper)")
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    style = Style(
        width_multiplier=width_multiplier,
        activation=activation,
        norm=norm,
        # So small a signal would vanish without norms.
        kernel_init=he_fan_in if norm == "none" else nn.initializers.normal(0.01),
        dtype=dtype,
    )
    heads = {
        block: GoogLeNetAuxiliaryHead(num_classes, auxiliary_dropout_rate, style, name=f"auxiliary{i}")
        for i, block in enumerate(AUXILIARY, start=1)
    }
    return Classifier(
        backbone=InceptionNet(_stages(large_kernel_size), style, taps=AUXILIARY),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
        auxiliary=heads if auxiliary else {},
    )


def _stages(large_kernel_size: int) -> Stages:
    blocks = {stage: tuple(_block(*row, large_kernel_size) for row in rows) for stage, rows in BLOCKS.items()}
    return (
        ("stem", (Convolution(64, 7, stride=2),)),
        ("stage1", (HALVE, Convolution(64), Convolution(192, 3))),
        ("stage2", (HALVE, *blocks["stage2"])),
        ("stage3", (HALVE, *blocks["stage3"])),
        ("stage4", (HALVE_LAST, *blocks["stage4"])),
    )


def _block(single: int, reduce: int, small: int, reduce_large: int, large: int, pooled: int, kernel_size: int) -> Block:
    """Fig. 2b: 1×1; 1×1 and 3×3; 1×1 and the large kernel; pool and 1×1."""
    return (
        (Convolution(single),),
        (Convolution(reduce), Convolution(small, 3)),
        (Convolution(reduce_large), Convolution(large, kernel_size)),
        (KEEP, Convolution(pooled)),
    )
