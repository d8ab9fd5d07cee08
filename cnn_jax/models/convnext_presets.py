"""ConvNeXt as classifiers: sizes of Liu et al. 2022 as torchvision builds them, smaller ones and V2 as timm does."""

import dataclasses

from cnn_jax.errors import UserError
from cnn_jax.models.convnext import ConvNeXt, ConvNeXtHead
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_rate, require_stages
from cnn_jax.nn.heads import Classifier
from cnn_jax.nn.norm import NORMS


@dataclasses.dataclass(frozen=True)
class Size:
    """A published size.

    Attributes:
      blocks: per stage.
      width: channels of the first stage; each stage has twice as many as the one before.
      rate: of stochastic depth, with which it was trained.
    """

    blocks: tuple[int, ...]
    width: int
    rate: float


SIZES = {
    "atto": Size((2, 2, 6, 2), 40, 0.0),
    "femto": Size((2, 2, 6, 2), 48, 0.0),
    "pico": Size((2, 2, 6, 2), 64, 0.0),
    "nano": Size((2, 2, 8, 2), 80, 0.0),
    "tiny": Size((3, 3, 9, 3), 96, 0.1),
    "small": Size((3, 3, 27, 3), 96, 0.4),
    "base": Size((3, 3, 27, 3), 128, 0.5),
    "large": Size((3, 3, 27, 3), 192, 0.5),
}
"""V1: Section 3 of Liu et al. 2022, rates of its Table 5 and torchvision; those below tiny are timm's."""

SIZES_V2 = {
    "atto": Size((2, 2, 6, 2), 40, 0.1),
    "tiny": Size((3, 3, 9, 3), 96, 0.2),
}
"""V2: Section 3.4 of Woo et al. 2023; rates of the authors' commands for ImageNet (their TRAINING.md)."""


def convnext(
    *,
    num_classes: int,
    in_channels: int = 3,
    size: str = "tiny",
    blocks: tuple[int, ...] | None = None,
    width: int | None = None,
    layer_scale: float | None = 1e-6,
    activation: str = "gelu",
    norm: str = "layer",
    stochastic_depth_rate: float | None = None,
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """ConvNeXt (Liu et al. 2022) for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Strides: stem and first stage 4, then 8, 16 and 32;
    pixels are rounded down. Kernels start normal with deviation 0.02. With 1000 classes, size
    tiny has 28,589,128 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      size: a key of `SIZES`: what the next two are unless they are given.
      blocks: per stage.
      width: channels of the first stage; each stage has twice as many as the one before.
      layer_scale: initial value of a factor per channel of each block's branch, 0 or more; None: no such factor.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      stochastic_depth_rate: of the last block, the others' rise to it from 0; None: the size's in torchvision.
      dropout_rate: share of the normalised features before the last layer that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", "stage2", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    require_known("size", size, SIZES)
    if layer_scale is not None and not layer_scale >= 0:
        raise UserError(f"layer_scale is {layer_scale}; it must be 0 or more, or None for no such factor")
    return _classifier(
        SIZES[size],
        num_classes=num_classes,
        in_channels=in_channels,
        blocks=blocks,
        width=width,
        layer_scale=layer_scale,
        response_norm=False,
        activation=activation,
        norm=norm,
        stochastic_depth_rate=stochastic_depth_rate,
        dropout_rate=dropout_rate,
        dtype=dtype,
        remat=remat,
    )


def convnextv2(
    *,
    num_classes: int,
    in_channels: int = 3,
    size: str = "atto",
    blocks: tuple[int, ...] | None = None,
    width: int | None = None,
    activation: str = "gelu",
    norm: str = "layer",
    stochastic_depth_rate: float | None = None,
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """ConvNeXt V2 (Woo et al. 2023): global response normalisation instead of the layer scale.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Strides: stem and first stage 4, then 8, 16 and 32;
    pixels are rounded down. Kernels start normal with deviation 0.02. With 1000 classes, size
    atto has 3,708,400 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      size: a key of `SIZES_V2`: what the next two are unless they are given.
      blocks: per stage.
      width: channels of the first stage; each stage has twice as many as the one before.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`; the response normalisation stays.
      stochastic_depth_rate: of the last block, the others' rise to it from 0; None: the authors' for the size.
      dropout_rate: share of the normalised features before the last layer that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", "stage2", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    require_known("size", size, SIZES_V2)
    return _classifier(
        SIZES_V2[size],
        num_classes=num_classes,
        in_channels=in_channels,
        blocks=blocks,
        width=width,
        layer_scale=None,
        response_norm=True,
        activation=activation,
        norm=norm,
        stochastic_depth_rate=stochastic_depth_rate,
        dropout_rate=dropout_rate,
        dtype=dtype,
        remat=remat,
    )


def _classifier(
    size: Size,
    *,
    num_classes: int,
    in_channels: int,
    blocks: tuple[int, ...] | None,
    width: int | None,
    layer_scale: float | None,
    response_norm: bool,
    activation: str,
    norm: str,
    stochastic_depth_rate: float | None,
    dropout_rate: float,
    dtype: str,
    remat: tuple[str, ...],
) -> Classifier:
    """Checks what both versions share and builds the network."""
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    blocks = size.blocks if blocks is None else tuple(blocks)
    width = size.width if width is None else width
    rate = size.rate if stochastic_depth_rate is None else stochastic_depth_rate
    if not blocks:
        raise UserError("blocks is empty; it must have one number for each stage, for example (3, 3, 9, 3)")
    require_positive("blocks", *blocks)
    require_positive("width", width)
    require_rate("stochastic_depth_rate", rate)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    require_stages(remat, (f"stage{i}" for i in range(1, len(blocks) + 1)))
    return Classifier(
        backbone=ConvNeXt(
            blocks=blocks,
            width=width,
            activation=activation,
            norm=norm,
            layer_scale=layer_scale,
            response_norm=response_norm,
            stochastic_depth_rate=rate,
            dtype=dtype,
            remat=tuple(remat),
        ),
        head=ConvNeXtHead(num_classes=num_classes, norm=norm, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
