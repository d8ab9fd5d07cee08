"""The densely connected networks of Huang et al. 2017 as classifiers: for small images, and Table 1 for ImageNet."""

from collections.abc import Callable

from jaxtyping import Array

from cnn_jax.errors import UserError
from cnn_jax.models.densenet import STEMS, DenseNet
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_stages
from cnn_jax.nn.conv import he_fan_in, he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS

DEPTHS = {
    121: (32, (6, 12, 24, 16)),
    161: (48, (6, 12, 36, 24)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
}
"""Growth rate and layers per stage of the ImageNet networks: Table 1, and the authors' code for 161."""


def densenet_cifar(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 40,
    growth_rate: int = 12,
    bottleneck: bool = False,
    compression: float = 1.0,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """The networks for small images (Section 3; Table 2): three dense blocks, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Strides: stem 1, stages 1, 2 and 4. The stem has 16
    channels, or 2k in DenseNet-BC, which has bottlenecks and compression. Kernels start as He et al. 2015 (Eq. 14,
    fan-out, as in the authors' Lua code). With ten classes, DenseNet-40 with k = 12 has 1,019,722 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: layers with weights: 3n + 4, with bottlenecks 6n + 4, for n layers in a dense block.
      growth_rate: k, the channels that a layer appends.
      bottleneck: a 1×1 convolution to 4k channels before each 3×3 one.
      compression: θ, output / input channels of a transition; 0.5 in DenseNet-BC.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the output of every convolution but the first that training sets to 0; 0.2 in the paper
        where the images are not augmented.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", "stage2" and "stage3"; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    step = 6 if bottleneck else 3
    if depth < step + 4 or (depth - 4) % step:
        known = ", ".join(str(step * n + 4) for n in (1, 2, 3, 6, 16, 32))
        raise UserError(f"depth is {depth}; with bottleneck={bottleneck} it must be {step}n + 4: {known}, ...")
    if not 0 < compression <= 1:
        raise UserError(f"compression is {compression}; it must be above 0 and at most 1")
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        stem="cifar",
        stem_channels=2 * growth_rate if bottleneck and compression < 1 else 16,
        stage_sizes=((depth - 4) // step,) * 3,
        growth_rate=growth_rate,
        bottleneck=bottleneck,
        compression=compression,
        activation=activation,
        norm=norm,
        dropout_rate=dropout_rate,
        kernel_init=he_fan_out,
        dtype=dtype,
        remat=remat,
    )


def densenet_imagenet(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 121,
    growth_rate: int | None = None,
    stem: str = "imagenet",
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """The networks of Table 1, DenseNet-BC with θ = 0.5, as torchvision builds them, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Strides: stem 2, stages 4, 8, 16 and 32; with stem
    "cifar" 1, and 1, 2, 4 and 8. The stem has 2k channels. Kernels start as He et al. 2015 (Eq. 10, fan-in, as in
    torchvision). With 1000 classes, depth 121 has 7,978,856 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: 121, 161, 169 or 201.
      growth_rate: k, the channels that a layer appends; None: the published one, 48 for depth 161 and 32 for others.
      stem: "imagenet" (7×7 of stride 2, 3×3 max pool of stride 2) or "cifar" (3×3 of stride 1, without a norm).
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the output of every convolution but the first that training sets to 0, as in the authors'
        code; torchvision's rate spares the 1×1 convolutions.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", ..., "stage4"; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    if depth not in DEPTHS:
        raise UserError(f"depth is {depth}; it must be one of {', '.join(map(str, DEPTHS))}")
    published, stage_sizes = DEPTHS[depth]
    growth_rate = published if growth_rate is None else growth_rate
    require_known("stem", stem, STEMS)
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        stem=stem,
        stem_channels=2 * growth_rate,
        stage_sizes=stage_sizes,
        growth_rate=growth_rate,
        bottleneck=True,
        compression=0.5,
        activation=activation,
        norm=norm,
        dropout_rate=dropout_rate,
        kernel_init=he_fan_in,
        dtype=dtype,
        remat=remat,
    )


def _classifier(
    *,
    num_classes: int,
    in_channels: int,
    growth_rate: int,
    activation: str,
    norm: str,
    dropout_rate: float,
    dtype: str,
    remat: tuple[str, ...],
    stage_sizes: tuple[int, ...],
    stem: str,
    stem_channels: int,
    bottleneck: bool,
    compression: float,
    kernel_init: Callable[..., Array],
) -> Classifier:
    """Checks what both families share and builds the network."""
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_positive("growth_rate", growth_rate)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    require_stages(remat, (f"stage{i}" for i in range(1, len(stage_sizes) + 1)))
    return Classifier(
        backbone=DenseNet(
            stem=stem,
            stem_channels=stem_channels,
            stage_sizes=stage_sizes,
            growth_rate=growth_rate,
            bottleneck=bottleneck,
            compression=compression,
            activation=activation,
            norm=norm,
            dropout_rate=dropout_rate,
            kernel_init=kernel_init,
            dtype=dtype,
            remat=tuple(remat),
        ),
        head=PooledHead(num_classes=num_classes),
        in_channels=in_channels,
    )
