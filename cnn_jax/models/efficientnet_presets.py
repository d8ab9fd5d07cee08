"""EfficientNet-B0 to B7 and Lite0 to Lite4 (Tan & Le 2019) and EfficientNetV2-S, M and L (Tan & Le 2021)."""

import math
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.models.efficientnet import EfficientNet
from cnn_jax.models.efficientnet_stages import FINAL_CHANNELS, STEM_CHANNELS, V1_STAGES, V2_STAGES, scaled_stages
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.channels import scaled_channels
from cnn_jax.nn.checks import require_classifier, require_known, require_rate
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS

SCALES = (
    *((1.0, 1.0, 0.2), (1.0, 1.1, 0.2), (1.1, 1.2, 0.3), (1.2, 1.4, 0.3)),
    *((1.4, 1.8, 0.4), (1.6, 2.2, 0.4), (1.8, 2.6, 0.5), (2.0, 3.1, 0.5)),
)
"""Width multiplier, depth multiplier and dropout rate of B0 to B7: the authors' code."""

LITE_SCALES = ((1.0, 1.0, 0.2), (1.0, 1.1, 0.2), (1.1, 1.2, 0.3), (1.2, 1.4, 0.3), (1.4, 1.8, 0.3))
"""The same of Lite0 to Lite4: the authors' code."""

TF_SCALES = (5, 6, 7)
"""Scales that torchvision builds with the authors' epsilon 1e-3 and momentum 0.99; the others have torch's own."""

V2_DROPOUT = {"s": 0.2, "m": 0.3, "l": 0.4}
"""Dropout rates of EfficientNetV2 in torchvision."""

SQUEEZE_RATIO = 0.25
"""Hidden channels of a gate / channels of its block's input: the authors' code."""


def efficientnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    scale: int = 0,
    width_multiplier: float | None = None,
    depth_multiplier: float | None = None,
    activation: str = "silu",
    norm: str = "batch",
    dropout_rate: float | None = None,
    stochastic_depth_rate: float = 0.2,
    dtype: str = "float32",
) -> Classifier:
    """EfficientNet-B0 to B7 (Tan & Le 2019, Table 1 and Section 4) for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`, strides as in `EfficientNet`. As in torchvision, B0 to
    B4 normalise with epsilon 1e-5 and momentum 0.9, B5 to B7 with 1e-3 and 0.99 (in Flax's sense), and kernels start as
    He et al. 2015 (Eq. 14, fan-out). With 1000 classes B0 has 5,288,548 parameters. The paper's input sizes are 224,
    240, 260, 300, 380, 456, 528 and 600 pixels; an image may be of one pixel.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      scale: φ, 0 to 7.
      width_multiplier: of all channels, see `scaled_channels`; None: the scale's, from 1.0 to 2.0.
      depth_multiplier: of all stages' blocks, rounded up; None: the scale's, from 1.0 to 3.1.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0; None: the scale's, from 0.2 to 0.5.
      stochastic_depth_rate: of the last residual branches; that of the others grows linearly from 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    published_width, published_depth, published_dropout = _scale(scale, SCALES)
    width = published_width if width_multiplier is None else width_multiplier
    depth = published_depth if depth_multiplier is None else depth_multiplier
    _require_multipliers(width, depth)
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        stages=scaled_stages(V1_STAGES, width=width, depth=depth),
        stem_channels=scaled_channels(STEM_CHANNELS, multiplier=width),
        final_channels=scaled_channels(FINAL_CHANNELS, multiplier=width),
        squeeze_ratio=SQUEEZE_RATIO,
        activation=activation,
        norm=norm,
        epsilon=1e-3 if scale in TF_SCALES else 1e-5,
        momentum=0.99 if scale in TF_SCALES else 0.9,
        dropout_rate=published_dropout if dropout_rate is None else dropout_rate,
        stochastic_depth_rate=stochastic_depth_rate,
        dtype=dtype,
    )


def efficientnet_lite(
    *,
    num_classes: int,
    in_channels: int = 3,
    scale: int = 0,
    width_multiplier: float | None = None,
    depth_multiplier: float | None = None,
    activation: str = "relu6",
    norm: str = "batch",
    dropout_rate: float | None = None,
    stochastic_depth_rate: float = 0.2,
    dtype: str = "float32",
) -> Classifier:
    """EfficientNet-Lite0 to Lite4, for phones: no gates, ReLU6, and a stem and a last convolution that do not scale.

    The first and the last stage get no more blocks either: the authors' code and timm's, whose epsilon 1e-5 and
    momentum 0.9 these are. Otherwise as `efficientnet`. With 1000 classes Lite0 has 4,652,008 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      scale: 0 to 4.
      width_multiplier: of the stages' channels, see `scaled_channels`; None: the scale's, from 1.0 to 1.4.
      depth_multiplier: of the blocks of stages 2 to 6, rounded up; None: the scale's, from 1.0 to 1.8.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0; None: the scale's, 0.2 or 0.3.
      stochastic_depth_rate: of the last residual branches; that of the others grows linearly from 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    published_width, published_depth, published_dropout = _scale(scale, LITE_SCALES)
    width = published_width if width_multiplier is None else width_multiplier
    depth = published_depth if depth_multiplier is None else depth_multiplier
    _require_multipliers(width, depth)
    first, *middle, last = V1_STAGES
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        stages=(
            *scaled_stages((first,), width=width, depth=1.0),
            *scaled_stages(middle, width=width, depth=depth),
            *scaled_stages((last,), width=width, depth=1.0),
        ),
        stem_channels=STEM_CHANNELS,
        final_channels=FINAL_CHANNELS,
        squeeze_ratio=0.0,
        activation=activation,
        norm=norm,
        epsilon=1e-5,
        momentum=0.9,
        dropout_rate=published_dropout if dropout_rate is None else dropout_rate,
        stochastic_depth_rate=stochastic_depth_rate,
        dtype=dtype,
    )


def efficientnet_v2(
    *,
    num_classes: int,
    in_channels: int = 3,
    size: str = "s",
    width_multiplier: float = 1.0,
    depth_multiplier: float = 1.0,
    activation: str = "silu",
    norm: str = "batch",
    dropout_rate: float | None = None,
    stochastic_depth_rate: float = 0.2,
    dtype: str = "float32",
) -> Classifier:
    """EfficientNetV2-S, M and L (Tan & Le 2021, Table 4) for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`, strides as in `EfficientNet`. As in torchvision, norms
    have epsilon 1e-3 and momentum 0.9 (in Flax's sense), and kernels start as He et al. 2015 (Eq. 14, fan-out). With
    1000 classes S has 21,458,488 parameters. The input sizes are 384 pixels for S, 480 for M and L; an image
    may be of one pixel.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      size: "s", "m" or "l".
      width_multiplier: of all channels, see `scaled_channels`.
      depth_multiplier: of all stages' blocks, rounded up.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0; None: the size's, 0.2, 0.3 or 0.4.
      stochastic_depth_rate: of the last residual branches; that of the others grows linearly from 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_known("size", size, V2_STAGES)
    _require_multipliers(width_multiplier, depth_multiplier)
    stages = scaled_stages(V2_STAGES[size], width=width_multiplier, depth=depth_multiplier)
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        stages=stages,
        stem_channels=stages[0].features,
        final_channels=scaled_channels(FINAL_CHANNELS, multiplier=width_multiplier),
        squeeze_ratio=SQUEEZE_RATIO,
        activation=activation,
        norm=norm,
        epsilon=1e-3,
        momentum=0.9,
        dropout_rate=V2_DROPOUT[size] if dropout_rate is None else dropout_rate,
        stochastic_depth_rate=stochastic_depth_rate,
        dtype=dtype,
    )


def _scale(scale: int, scales: tuple[tuple[float, float, float], ...]) -> tuple[float, float, float]:
    """A row of the table of scales."""
    if scale not in range(len(scales)):
        raise UserError(f"scale is {scale}; it must be one of {', '.join(map(str, range(len(scales))))}")
    return scales[scale]


def _require_multipliers(width: float, depth: float) -> None:
    """Checks that both are above 0."""
    for what, value in (("width_multiplier", width), ("depth_multiplier", depth)):
        if not 0 < value < math.inf:
            raise UserError(f"{what} is {value}; it must be above 0, for example 0.5 or 1.4")


def _classifier(*, num_classes: int, in_channels: int, dropout_rate: float, **backbone: Any) -> Classifier:
    """Checks what the families share and builds the network from the attributes of its `EfficientNet`."""
    require_classifier(
        num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=backbone["dtype"]
    )
    require_rate("stochastic_depth_rate", backbone["stochastic_depth_rate"])
    require_activation(backbone["activation"])
    require_known("norm", backbone["norm"], NORMS)
    return Classifier(
        backbone=EfficientNet(**backbone),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
