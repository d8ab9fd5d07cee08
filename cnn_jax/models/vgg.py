"""VGG: Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition"."""

import functools

import flax.linen as nn

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.channels import require_width_multiplier
from cnn_jax.nn.checks import require_classifier, require_known, require_positive
from cnn_jax.nn.conv import he_fan_out
from cnn_jax.nn.conv_stages import ConvStages, Layer, Stage, widened
from cnn_jax.nn.heads import Classifier, DenseHead
from cnn_jax.nn.norm import NORMS
from cnn_jax.nn.pool import MaxPool

CHANNELS = (64, 128, 256, 512, 512)
"""Channels of the stages: Table 1."""

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions per stage: columns A, B, D and E of Table 1."""

BINS = 7
"""Bins per axis that the dense layers see: what an image of 224 pixels has left behind five pools."""


def vgg(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 16,
    width_multiplier: float = 1.0,
    dense: tuple[int, ...] = (4096, 4096),
    activation: str = "relu",
    norm: str = "none",
    dropout_rate: float = 0.5,
    dtype: str = "float32",
) -> Classifier:
    """VGG-depth (Table 1) as torchvision builds it, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Five stages of 3×3 convolutions, each with a 2×2 max
    pool behind it. Feature maps: `stage3_conv2` is what others call "relu3_2", with stride 4; `stage3` is "pool3", with
    stride 8; and so on, floor(n / stride) pixels per axis, so that an image has 32 or more. The last one is pooled to 7
    bins per axis, and any image size fits the dense layers. The convolutions have biases under every norm, as in
    torchvision. Kernels start as He et al. 2015 (Eq. 14, fan-out), those of dense layers with deviation 0.01. With 1000
    classes, depth 16 has 138,357,544 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: layers with weights with two hidden dense layers: 11, 13, 16 or 19.
      width_multiplier: of the channels, rounded to multiples of 8.
      dense: units of the hidden dense layers.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`; "none" in the paper, "batch" in torchvision's "_bn" networks.
      dropout_rate: share of each hidden dense layer's units that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    if depth not in DEPTHS:
        raise UserError(f"depth is {depth}; it must be one of {', '.join(map(str, DEPTHS))}")
    require_width_multiplier(width_multiplier)
    require_positive("dense", *dense)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    stages = tuple(
        Stage((Layer(channels),) * layers, pool=functools.partial(MaxPool, 2))
        for channels, layers in zip(CHANNELS, DEPTHS[depth], strict=True)
    )
    return Classifier(
        backbone=ConvStages(
            widened(stages, width_multiplier), activation=activation, norm=norm, kernel_init=he_fan_out, dtype=dtype
        ),
        head=DenseHead(
            sizes=tuple(dense),
            num_classes=num_classes,
            activation=activation,
            dropout_rate=dropout_rate,
            bins=BINS,
            dtype=dtype,
            kernel_init=nn.initializers.normal(0.01),
            output_init=nn.initializers.normal(0.01),
        ),
        in_channels=in_channels,
    )
