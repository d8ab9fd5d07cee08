"""Inception-v3: Szegedy et al. 2016, "Rethinking the Inception architecture", as torchvision builds it."""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.channels import require_width_multiplier
from cnn_jax.nn.checks import require_classifier, require_known
from cnn_jax.nn.conv import he_fan_in
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.inception import Block, Convolution, InceptionNet, Stages, Style
from cnn_jax.nn.norm import NORMS
from cnn_jax.nn.pool import AveragePool, GlobalAveragePool, MaxPool

HALVE = functools.partial(MaxPool, 3, stride=2)
"""The pool that halves the image: n pixels become (n - 1) // 2."""

SMOOTH = functools.partial(AveragePool, 3, stride=1, padding=1)
"""The pool of a branch; its padding counts as zeros in the mean."""

AUXILIARY = "stage3"
"""The feature map with the auxiliary head (Fig. 8)."""


def _small(pooled: int) -> Block:
    """Fig. 5: 5×5 kernels are two 3×3 kernels in one of the branches, as in the authors' code."""
    return (
        (Convolution(64),),
        (Convolution(48), Convolution(64, 5)),
        (Convolution(64), Convolution(96, 3), Convolution(96, 3)),
        (SMOOTH, Convolution(pooled)),
    )


def _factorised(inner: int) -> Block:
    """Fig. 6: 7×7 kernels are 1×7 and 7×1 kernels."""
    return (
        (Convolution(192),),
        (Convolution(inner), Convolution(inner, (1, 7)), Convolution(192, (7, 1))),
        (
            Convolution(inner),
            *(Convolution(inner, (7, 1)), Convolution(inner, (1, 7))),
            *(Convolution(inner, (7, 1)), Convolution(192, (1, 7))),
        ),
        (SMOOTH, Convolution(192)),
    )


WIDE: Block = (
    (Convolution(320),),
    (Convolution(384), (Convolution(384, (1, 3)), Convolution(384, (3, 1)))),
    (Convolution(448), Convolution(384, 3), (Convolution(384, (1, 3)), Convolution(384, (3, 1)))),
    (SMOOTH, Convolution(192)),
)
"""Fig. 7: filter banks that end in 1×3 and 3×1 kernels side by side."""

REDUCTION1: Block = (
    (Convolution(384, 3, stride=2, padding="valid"),),
    (Convolution(64), Convolution(96, 3), Convolution(96, 3, stride=2, padding="valid")),
    (HALVE,),
)
"""Fig. 10, from stride 8 to 16."""

REDUCTION2: Block = (
    (Convolution(192), Convolution(320, 3, stride=2, padding="valid")),
    (
        Convolution(192),
        *(Convolution(192, (1, 7)), Convolution(192, (7, 1))),
        Convolution(192, 3, stride=2, padding="valid"),
    ),
    (HALVE,),
)
"""The same, from stride 16 to 32."""

STAGES: Stages = (
    ("stem", (Convolution(32, 3, stride=2, padding="valid"), Convolution(32, 3, padding="valid"), Convolution(64, 3))),
    ("stage1", (HALVE, Convolution(80), Convolution(192, 3, padding="valid"))),
    ("stage2", (HALVE, _small(32), _small(64), _small(64))),
    ("stage3", (REDUCTION1, _factorised(128), _factorised(160), _factorised(160), _factorised(192))),
    ("stage4", (REDUCTION2, WIDE, WIDE)),
)
"""Table 1, with the channels of the authors' code and torchvision: Mixed_5b–5d are stage 2, 6a–6e 3, 7a–7c 4."""


class InceptionV3AuxiliaryHead(nn.Module):
    """Average pool, 1×1 and 5×5 convolution, global average pool and dense layer (Section 4, Fig. 8).

    Parameters lie under `reduce` and `conv`, each with `conv` and `norm`, and `output`.

    Attributes:
      num_classes: K.
      style: of the convolutions.

    Raises:
      ImageTooSmallError: the feature map has fewer than 17 pixels along an axis.
    """

    num_classes: int
    style: Style

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 logits `[B, K]`."""
        make = functools.partial(self.style.convolution, rank=x.ndim - 2)
        x = AveragePool(5, stride=3, name="pool")(x)
        x = make(Convolution(128), name="reduce")(x, train=train)
        x = make(Convolution(768, 5, padding="valid"), name="conv")(x, train=train)
        x = GlobalAveragePool(name="global_pool")(x)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.001), name="output")(x)


def inception_v3(
    *,
    num_classes: int,
    in_channels: int = 3,
    auxiliary: bool = False,
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.5,
    dtype: str = "float32",
) -> Classifier:
    """Inception-v3 (Table 1) for any number of space axes; the published image has 299×299 pixels.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Feature maps and their strides: "stem" 2, "stage1" 4,
    "stage2" 8, "stage3" 16, "stage4" 32. Much is not padded, so that n pixels are fewer than n / stride: the stem makes
    m = (n - 1) // 2 - 2 of them, then (m - 1) // 2 - 2, and the later stages (m - 1) // 2 of the m before. The smallest
    image has 75 pixels per axis, and 299 with the auxiliary head.

    With 1000 classes it has 23,834,568 parameters, and 27,161,264 with its auxiliary head, which torchvision's count
    includes. Kernels of convolutions start as normals of deviation 0.1, as in torchvision, or without norms as He et
    al. 2015 (Eq. 10).

    Args:
      num_classes: K.
      in_channels: channels of the images.
      auxiliary: one more head for training, on "stage3", with parameters under "auxiliary1". It changes nothing in a
        call: the task trains it with its `auxiliary_weight` (0.4 in torchvision's recipe).
      width_multiplier: of the channels, rounded to multiples of 8.
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
    style = Style(
        width_multiplier=width_multiplier,
        activation=activation,
        norm=norm,
        # So large a signal would overflow without norms.
        kernel_init=he_fan_in if norm == "none" else nn.initializers.normal(0.1),
        dtype=dtype,
    )
    head = InceptionV3AuxiliaryHead(num_classes, style, name="auxiliary1")
    return Classifier(
        backbone=InceptionNet(STAGES, style),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
        auxiliary={AUXILIARY: head} if auxiliary else {},
    )
