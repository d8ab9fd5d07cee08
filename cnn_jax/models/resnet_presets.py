"""The residual networks of He et al. 2016 as classifiers: Section 4.2 for small images, Table 1 for ImageNet.

ResNeXt, SE-ResNet and the wide ImageNet networks are the latter with other bottlenecks. Bottlenecks have their stride
on the 3×3 convolution, as torchvision builds them ("v1.5").
"""

from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.models.resnet import FIRST_STRIDES, SHORTCUTS, STEMS, ResNet
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_stages
from cnn_jax.nn.conv import he_fan_in, he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS

DEPTHS = {
    14: ("bottleneck", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    26: ("bottleneck", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
"""Block and blocks per stage of the ImageNet networks: Table 1, and timm's two small ones of bottlenecks, 14 and 26."""

CIFAR_DEPTHS = {"basic": (6, "8, 14, 20, 26, 32, 44, 56, 110"), "bottleneck": (9, "11, 20, 29, 38, 47, 56, 110, 164")}
"""Layers with weights per block in each of the three stages, and depths that there are, by the kind of block."""


def resnet_cifar(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 20,
    block: str = "basic",
    shortcut: str = "A",
    width: int = 16,
    activation: str = "relu",
    norm: str = "batch",
    zero_init_residual: bool = False,
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """The networks for small images (Section 4.2, Table 6): three stages of basic blocks, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Strides: stem 1, stages 1, 2 and 4. Kernels start as He
    et al. 2015 (Eq. 10, fan-in). With ten classes and option A, depth 20 has 269,722 parameters. With bottlenecks depth
    164 is the original ResNet-164 of He et al. 2016b (Table 4), but for the place of a bottleneck's stride.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: layers with weights, 6n + 2; with bottlenecks 9n + 2.
      block: "basic" (two 3×3 convolutions) or "bottleneck" (1×1, 3×3, and 1×1 with four times the channels; Fig. 5).
      shortcut: "A" (subsampled, zero channels appended), "B" (projection where the shape changes) or "none" (the plain
        network).
      width: channels of the first stage's blocks; the others have two and four times as many.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      zero_init_residual: each block starts as its shortcut (Goyal et al. 2017, Section 5.1).
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stem", "stage1", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    require_known("block", block, CIFAR_DEPTHS)
    step, examples = CIFAR_DEPTHS[block]
    if depth < step + 2 or (depth - 2) % step:
        raise UserError(f"depth is {depth}; it must be {step}n + 2 with n of 1 or more: {examples}, ...")
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    return Classifier(
        backbone=_backbone(
            block=block,
            stage_sizes=((depth - 2) // step,) * 3,
            stem="cifar",
            shortcut=shortcut,
            width=width,
            activation=activation,
            norm=norm,
            zero_init_residual=zero_init_residual,
            kernel_init=he_fan_in,
            dtype=dtype,
            remat=remat,
        ),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )


def resnet_imagenet(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 50,
    stem: str = "imagenet",
    width: int = 64,
    groups: int = 1,
    width_per_group: int | None = None,
    squeeze_reduction: int | None = None,
    output_stride: int | None = None,
    activation: str = "relu",
    norm: str = "batch",
    zero_init_residual: bool = False,
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """The networks of Table 1, as torchvision builds them, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Strides: stem 2, stages 4, 8, 16 and 32; with stem
    "cifar" 1, and 1, 2, 4 and 8. Shortcuts are projections where the shape changes (option B). Kernels start as He
    et al. 2015 (Eq. 14, fan-out). With 1000 classes, depth 50 has 25,557,032 parameters. An image may be of one pixel.
    `weights.convert` takes torchvision's weights, and for SE-ResNets timm's.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: 18, 34 (basic blocks), 50, 101, 152, or timm's 14 and 26 (bottlenecks, the stride on the 3×3 convolution).
      stem: "imagenet" (7×7 of stride 2, 3×3 max pool of stride 2) or "cifar" (3×3 of stride 1).
      width: channels of the stem and the first stage's blocks.
      groups: of the bottlenecks' 3×3 convolutions, the cardinality of Xie et al. 2017 (ResNeXt, Table 1).
      width_per_group: channels of each group in the first stage, twice as many in every further one; None is `width`.
        ResNeXt-50 32×4d has 32 groups of 4, Wide ResNet-50-2 one group of 128.
      squeeze_reduction: channels of a block's output / channels between the two layers of its squeeze and excitation
        (r in Hu et al. 2018, Section 3), rounded to a multiple of 8 as in timm; 16 in the paper, None is no gate.
      output_stride: no feature map's stride is larger; bottlenecks are dilated instead (Chen et al. 2017, Section
        3.1), 8 or 16 for segmentation. None is no limit.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      zero_init_residual: each block starts as its shortcut (Goyal et al. 2017, Section 5.1).
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stem", "stage1", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    return Classifier(
        backbone=imagenet_backbone(
            depth=depth,
            stem=stem,
            width=width,
            groups=groups,
            width_per_group=width_per_group,
            squeeze_reduction=squeeze_reduction,
            output_stride=output_stride,
            activation=activation,
            norm=norm,
            zero_init_residual=zero_init_residual,
            dtype=dtype,
            remat=remat,
        ),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )


def imagenet_backbone(
    *,
    depth: int,
    stem: str,
    width: int,
    activation: str,
    norm: str,
    dtype: str,
    remat: tuple[str, ...],
    groups: int = 1,
    width_per_group: int | None = None,
    squeeze_reduction: int | None = None,
    output_stride: int | None = None,
    zero_init_residual: bool = False,
) -> ResNet:
    """The feature maps of `resnet_imagenet`, whose arguments these are, for other heads.

    Raises:
      UserError: as `resnet_imagenet`; `dtype` is not checked.
    """
    if depth not in DEPTHS:
        raise UserError(f"depth is {depth}; it must be one of {', '.join(map(str, DEPTHS))}")
    require_known("stem", stem, STEMS)
    block, stage_sizes = DEPTHS[depth]
    strides = [FIRST_STRIDES[stem] * 2**i for i in range(len(stage_sizes))]
    if output_stride is not None and output_stride not in strides:
        raise UserError(
            f"output_stride is {output_stride}; with stem {stem!r} it must be one of {', '.join(map(str, strides))}"
        )
    require_positive("groups", groups)
    require_positive("width_per_group", 1 if width_per_group is None else width_per_group)
    require_positive("squeeze_reduction", 1 if squeeze_reduction is None else squeeze_reduction)
    if block != "bottleneck":
        others = ", ".join(str(depth) for depth, (kind, _) in DEPTHS.items() if kind == "bottleneck")
        for argument, value, usual in (
            ("groups", groups, 1),
            ("width_per_group", width_per_group, None),
            ("output_stride", None if output_stride == strides[-1] else output_stride, None),
        ):
            if value != usual:
                raise UserError(
                    f"{argument}={value} needs bottlenecks; depth {depth} has basic blocks, use one of {others}"
                )
    return _backbone(
        block=block,
        stage_sizes=stage_sizes,
        stem=stem,
        shortcut="B",
        width=width,
        activation=activation,
        norm=norm,
        zero_init_residual=zero_init_residual,
        kernel_init=he_fan_out,
        dtype=dtype,
        remat=remat,
        groups=groups,
        width_per_group=width_per_group,
        squeeze_reduction=squeeze_reduction,
        output_stride=output_stride,
    )


def _backbone(
    *,
    stage_sizes: tuple[int, ...],
    shortcut: str,
    width: int,
    activation: str,
    norm: str,
    zero_init_residual: bool,
    remat: tuple[str, ...],
    **others: Any,
) -> ResNet:
    """Checks what both families share and builds the feature maps."""
    require_known("shortcut", shortcut, SHORTCUTS)
    require_positive("width", width)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    require_stages(remat, ("stem", *(f"stage{i}" for i in range(1, len(stage_sizes) + 1))))
    if zero_init_residual and (norm == "none" or shortcut == "none"):
        raise UserError(
            f"zero_init_residual=True needs a norm to start at 0 and a shortcut to carry the signal; norm is {norm!r}"
            f" and shortcut {shortcut!r}"
        )
    return ResNet(
        stage_sizes=stage_sizes,
        shortcut=shortcut,
        width=width,
        activation=activation,
        norm=norm,
        zero_init_residual=zero_init_residual,
        remat=tuple(remat),
        **others,
    )
