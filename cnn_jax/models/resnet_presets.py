"""The residual networks of He et al. 2016 as classifiers: Section 4.2 for small images, Table 1 for ImageNet.

The ImageNet networks have the stride of a bottleneck on its 3×3 convolution, as torchvision builds them ("v1.5").
"""

from collections.abc import Callable

from jaxtyping import Array

from cnn_jax.errors import UserError
from cnn_jax.models.resnet import SHORTCUTS, STEMS, ResNet
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_stages
from cnn_jax.nn.conv import he_fan_in, he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS

DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
"""Block and blocks per stage of the ImageNet networks: Table 1."""


def resnet_cifar(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 20,
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
    et al. 2015 (Eq. 10, fan-in). With ten classes and option A, depth 20 has 269,722 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: layers with weights, 6n + 2.
      shortcut: "A" (subsampled, zero channels appended), "B" (projection where the shape changes) or "none" (the plain
        network).
      width: channels of the first stage; the others have two and four times as many.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: "batch", "group", "layer" or "none".
      zero_init_residual: each block starts as its shortcut (Goyal et al. 2017, Section 5.1).
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stem", "stage1", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"depth is {depth}; it must be 6n + 2 with n of 1 or more: 8, 14, 20, 26, 32, 44, 56, 110, ...")
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        block="basic",
        stage_sizes=((depth - 2) // 6,) * 3,
        stem="cifar",
        shortcut=shortcut,
        width=width,
        activation=activation,
        norm=norm,
        zero_init_residual=zero_init_residual,
        kernel_init=he_fan_in,
        dropout_rate=dropout_rate,
        dtype=dtype,
        remat=remat,
    )


def resnet_imagenet(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 50,
    stem: str = "imagenet",
    width: int = 64,
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
    et al. 2015 (Eq. 14, fan-out). With 1000 classes, depth 50 has 25,557,032 parameters. Load torchvision's with
    `weights.resnet.convert_resnet`.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks, the stride on the 3×3 convolution).
      stem: "imagenet" (7×7 of stride 2, 3×3 max pool of stride 2) or "cifar" (3×3 of stride 1).
      width: channels of the stem and the first stage's blocks.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: "batch", "group", "layer" or "none".
      zero_init_residual: each block starts as its shortcut (Goyal et al. 2017, Section 5.1).
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stem", "stage1", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    if depth not in DEPTHS:
        raise UserError(f"depth is {depth}; it must be one of {', '.join(map(str, DEPTHS))}")
    require_known("stem", stem, STEMS)
    block, stage_sizes = DEPTHS[depth]
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        block=block,
        stage_sizes=stage_sizes,
        stem=stem,
        shortcut="B",
        width=width,
        activation=activation,
        norm=norm,
        zero_init_residual=zero_init_residual,
        kernel_init=he_fan_out,
        dropout_rate=dropout_rate,
        dtype=dtype,
        remat=remat,
    )


def _classifier(
    *,
    num_classes: int,
    in_channels: int,
    shortcut: str,
    width: int,
    activation: str,
    norm: str,
    zero_init_residual: bool,
    dropout_rate: float,
    dtype: str,
    remat: tuple[str, ...],
    block: str,
    stage_sizes: tuple[int, ...],
    stem: str,
    kernel_init: Callable[..., Array],
) -> Classifier:
    """Checks what both families share and builds the network."""
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
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
    return Classifier(
        backbone=ResNet(
            block=block,
            stage_sizes=stage_sizes,
            stem=stem,
            shortcut=shortcut,
            width=width,
            activation=activation,
            norm=norm,
            zero_init_residual=zero_init_residual,
            kernel_init=kernel_init,
            dtype=dtype,
            remat=tuple(remat),
        ),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
