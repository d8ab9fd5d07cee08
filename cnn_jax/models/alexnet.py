"""AlexNet: Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks", in two forms.

The network of 2012 was cut in two for two GPUs. Krizhevsky 2014, "One weird trick for parallelizing convolutional
neural networks", has one column and no response normalisation; that is torchvision's.
"""

import dataclasses
import functools

import flax.linen as nn

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.channels import require_width_multiplier
from cnn_jax.nn.checks import require_classifier, require_known, require_positive
from cnn_jax.nn.conv import torch_uniform
from cnn_jax.nn.conv_stages import ConvStages, Layer, Stage, widened
from cnn_jax.nn.heads import Classifier, DenseHead
from cnn_jax.nn.norm import BATCH_NORMS, NORMS
from cnn_jax.nn.pool import MaxPool

POOL = functools.partial(MaxPool, window=3, stride=2)
"""Overlapping pooling: windows of 3 pixels every 2 (Krizhevsky et al. 2012, Section 3.4)."""

ONE_COLUMN = (
    Stage((Layer(64, 11, stride=4, padding=2),), pool=POOL),
    Stage((Layer(192, 5),), pool=POOL),
    Stage((Layer(384), Layer(256), Layer(256)), pool=POOL),
)
"""The convolutions of Krizhevsky 2014, Section 5."""

TWO_GROUPS = (
    Stage((Layer(96, 11, stride=4, padding="valid"),), pool=POOL, response_norm=True),
    Stage((Layer(256, 5, groups=2, bias=1.0),), pool=POOL, response_norm=True),
    Stage((Layer(384), Layer(384, groups=2, bias=1.0), Layer(256, groups=2, bias=1.0)), pool=POOL),
)
"""The convolutions of Krizhevsky et al. 2012, Section 3.5: the third alone sees both halves. Biases: Section 5."""

BINS = 6
"""Bins per axis that the dense layers see: what the paper's image has left behind three pools."""

gaussian = nn.initializers.normal(0.01)
"""Normal with deviation 0.01 (Krizhevsky et al. 2012, Section 5)."""


def alexnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    width_multiplier: float = 1.0,
    dense: tuple[int, ...] = (4096, 4096),
    activation: str = "relu",
    norm: str = "none",
    dropout_rate: float = 0.5,
    dtype: str = "float32",
) -> Classifier:
    """The network of one column of 2014, as torchvision builds it, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Feature maps: `stage1_conv1` (stride 4), `stage1` (8),
    `stage2_conv1` (8), `stage2` (16), `stage3_conv1`, `stage3_conv2`, `stage3_conv3` (16) and `stage3` (32). The first
    convolution makes of n pixels floor((n - 7) / 4) + 1, a pool floor((n - 3) / 2) + 1, so that an image has 63 or
    more. The last map is pooled to 6 bins per axis, and any image size fits the dense layers. Kernels start uniform in
    ±1 / √fan-in as torchvision's, biases at 0. With 1000 classes it has 61,100,840 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      width_multiplier: of the convolutions' channels, rounded to multiples of 8.
      dense: units of the hidden dense layers.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`, behind the convolutions; with a batch norm they have no biases.
      dropout_rate: share of each hidden dense layer's inputs that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    _require(width_multiplier=width_multiplier, dense=dense, activation=activation, norm=norm)
    return Classifier(
        backbone=ConvStages(
            widened(ONE_COLUMN, width_multiplier),
            activation=activation,
            norm=norm,
            use_bias=norm not in BATCH_NORMS,
            kernel_init=torch_uniform,
            dtype=dtype,
        ),
        head=DenseHead(
            sizes=tuple(dense),
            num_classes=num_classes,
            activation=activation,
            dropout_rate=dropout_rate,
            dropout_first=True,
            bins=BINS,
            dtype=dtype,
            kernel_init=torch_uniform,
            output_init=torch_uniform,
        ),
        in_channels=in_channels,
    )


def alexnet_2012(
    *,
    num_classes: int,
    in_channels: int = 3,
    width_multiplier: float = 1.0,
    dense: tuple[int, ...] = (4096, 4096),
    activation: str = "relu",
    norm: str = "none",
    response_norm: bool = True,
    dropout_rate: float = 0.5,
    dtype: str = "float32",
) -> Classifier:
    """The network of 2012: two groups, local response normalisation, overlapping pools; for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. The paper says 224 pixels, its arithmetic needs 227.
    Feature maps: `stage1_conv1` (stride 4), `stage1` (8, normalised and pooled), `stage2_conv1` (8), `stage2` (16),
    `stage3_conv1`, `stage3_conv2`, `stage3_conv3` (16) and `stage3` (32). The first convolution makes of n pixels
    floor((n - 11) / 4) + 1, a pool floor((n - 3) / 2) + 1, so that an image has 67 or more. The last map is pooled to 6
    bins per axis, which changes nothing for 227 pixels. Kernels start with deviation 0.01, biases at 1 in the second,
    fourth and fifth convolution and the hidden dense layers, at 0 elsewhere (Section 5). With 1000 classes it has
    60,965,224 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      width_multiplier: of the convolutions' channels, rounded to multiples of 8.
      dense: units of the hidden dense layers.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`, behind the convolutions; with a batch norm they have no biases.
      response_norm: normalise behind the first and the second activation (Section 3.3).
      dropout_rate: share of each hidden dense layer's units that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    _require(width_multiplier=width_multiplier, dense=dense, activation=activation, norm=norm)
    stages = widened(TWO_GROUPS, width_multiplier)
    if not response_norm:
        stages = tuple(dataclasses.replace(stage, response_norm=False) for stage in stages)
    return Classifier(
        backbone=ConvStages(
            stages,
            activation=activation,
            norm=norm,
            use_bias=norm not in BATCH_NORMS,
            kernel_init=gaussian,
            dtype=dtype,
        ),
        head=DenseHead(
            sizes=tuple(dense),
            num_classes=num_classes,
            activation=activation,
            dropout_rate=dropout_rate,
            bins=BINS,
            dtype=dtype,
            kernel_init=gaussian,
            bias_init=nn.initializers.ones,
            output_init=gaussian,
        ),
        in_channels=in_channels,
    )


def _require(*, width_multiplier: float, dense: tuple[int, ...], activation: str, norm: str) -> None:
    """Checks what both forms take, besides what all classifiers do."""
    require_width_multiplier(width_multiplier)
    require_positive("dense", *dense)
    require_activation(activation)
    require_known("norm", norm, NORMS)
