"""FCN and DeepLabV3 on dilated ResNets, as torchvision builds them: a class for every pixel.

Long et al. 2015, "Fully convolutional networks for semantic segmentation"; Chen et al. 2017, "Rethinking atrous
convolution for semantic image segmentation".
"""

from typing import Any

import flax.linen as nn

from cnn_jax.errors import UserError
from cnn_jax.models.resnet_presets import imagenet_backbone
from cnn_jax.nn.checks import require_classifier, require_positive, require_rate
from cnn_jax.nn.segmentation_heads import DeepLabHead, FCNHead, Segmenter

AUXILIARY = "stage3"
"""The feature map with an auxiliary head."""


def fcn_resnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 50,
    stem: str = "imagenet",
    width: int = 64,
    output_stride: int = 8,
    auxiliary: bool = False,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.1,
    auxiliary_dropout_rate: float = 0.1,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Segmenter:
    """FCN without skips on a dilated ResNet, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, *space, num_classes]`, interpolated from stride `output_stride`.
    Feature maps are those of `resnet_imagenet`: strides 2 for "stem", 4 for "stage1" and 8 for the others. The
    backbone's kernels start as He et al. 2015 (Eq. 14, fan-out), the heads' as torch's. With 21 classes, depth 50 has
    32,957,013 parameters, and 35,322,218 with the auxiliary head. An image may be of one pixel.

    Args:
      num_classes: K, the background included.
      in_channels: channels of the images.
      depth: of the ResNet: 14, 26, 50, 101 or 152.
      stem: "imagenet" (7×7 of stride 2, 3×3 max pool of stride 2) or "cifar" (3×3 of stride 1).
      width: channels of the stem and the first stage's blocks.
      output_stride: stride of the last feature map; stages are dilated so that none has a larger one.
      auxiliary: a second head for training, on "stage3", with parameters under "auxiliary1". It changes nothing in a
        call; `with_auxiliary` returns its logits too. torchvision's pretrained weights have it.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the head's hidden values that training sets to 0.
      auxiliary_dropout_rate: the same for the auxiliary head.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stem", "stage1", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    return _segmenter(
        FCNHead(num_classes, dropout_rate, activation=activation, norm=norm, dtype=dtype),
        in_channels=in_channels,
        auxiliary=auxiliary,
        auxiliary_dropout_rate=auxiliary_dropout_rate,
        depth=depth,
        stem=stem,
        width=width,
        output_stride=output_stride,
        remat=remat,
    )


def deeplabv3_resnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 50,
    stem: str = "imagenet",
    width: int = 64,
    head_width: int = 256,
    rates: tuple[int, ...] = (12, 24, 36),
    output_stride: int = 8,
    auxiliary: bool = False,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.5,
    auxiliary_dropout_rate: float = 0.1,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Segmenter:
    """DeepLabV3 on a dilated ResNet, for any number of space axes.

    Input, logits, feature maps and starts as in `fcn_resnet`. torchvision's differs from the paper's: its last stage
    has one dilation, not a grid of them (Section 3.2.1), and dropout. With 21 classes, depth 50 has 39,638,869
    parameters, and 42,004,074 with the auxiliary head. An image may be of one pixel.

    Args:
      num_classes: K, the background included.
      in_channels: channels of the images.
      depth: of the ResNet: 14, 26, 50, 101 or 152.
      stem: "imagenet" (7×7 of stride 2, 3×3 max pool of stride 2) or "cifar" (3×3 of stride 1).
      width: channels of the stem and the first stage's blocks.
      head_width: channels of the head.
      rates: dilations of the head's 3×3 convolutions side by side: (12, 24, 36) with output stride 8, (6, 12, 18) with
        16 (Section 3.3).
      output_stride: stride of the last feature map; stages are dilated so that none has a larger one.
      auxiliary: a second head for training, an FCN's on "stage3", with parameters under "auxiliary1"; as in
        `fcn_resnet`.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the values behind the parallel convolutions that training sets to 0.
      auxiliary_dropout_rate: the same for the auxiliary head's hidden values.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stem", "stage1", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    require_positive("head_width", head_width)
    if not rates:
        raise UserError("rates is empty; give at least one dilation, for example (6, 12, 18)")
    require_positive("rates", *rates)
    return _segmenter(
        DeepLabHead(num_classes, head_width, tuple(rates), dropout_rate, activation=activation, norm=norm, dtype=dtype),
        in_channels=in_channels,
        auxiliary=auxiliary,
        auxiliary_dropout_rate=auxiliary_dropout_rate,
        depth=depth,
        stem=stem,
        width=width,
        output_stride=output_stride,
        remat=remat,
    )


def _segmenter(
    head: FCNHead | DeepLabHead,
    *,
    in_channels: int,
    auxiliary: bool,
    auxiliary_dropout_rate: float,
    **backbone: Any,
) -> Segmenter:
    """Checks what both families share, and builds the network of a head and the arguments of its backbone."""
    shared = {"activation": head.activation, "norm": head.norm, "dtype": head.dtype}
    require_classifier(
        num_classes=head.num_classes, in_channels=in_channels, dropout_rate=head.dropout_rate, dtype=head.dtype
    )
    require_rate("auxiliary_dropout_rate", auxiliary_dropout_rate)
    second: nn.Module = FCNHead(head.num_classes, auxiliary_dropout_rate, **shared, name="auxiliary1")
    return Segmenter(
        backbone=imagenet_backbone(**backbone, **shared),
        head=head,
        in_channels=in_channels,
        auxiliary={AUXILIARY: second} if auxiliary else {},
    )
