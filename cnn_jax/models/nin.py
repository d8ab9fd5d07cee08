"""Network in network: Lin et al. 2014, the network for CIFAR."""

import functools

import flax.linen as nn

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.channels import require_width_multiplier
from cnn_jax.nn.checks import require_classifier, require_known
from cnn_jax.nn.conv_stages import ConvStages, Layer, Stage, widened
from cnn_jax.nn.heads import Classifier, ConvHead
from cnn_jax.nn.norm import BATCH_NORMS, NORMS
from cnn_jax.nn.pool import AveragePool, MaxPool

# Caffe's pools round up, and its means are those of the pixels inside the image.
STAGES = (
    Stage((Layer(192, 5), Layer(160, 1), Layer(96, 1)), pool=functools.partial(MaxPool, 3, 2, ceil_mode=True)),
    Stage((Layer(192, 5), Layer(192, 1), Layer(192, 1)), pool=functools.partial(AveragePool, 3, 2, ceil_mode=True)),
    Stage((Layer(192, 3), Layer(192, 1))),
)
"""The mlpconv layers: a convolution and two 1×1 ones, whose last one is the head's."""

gaussian = nn.initializers.normal(0.05)
"""Normal with deviation 0.05, as in the authors' Caffe configuration."""


def nin(
    *,
    num_classes: int,
    in_channels: int = 3,
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: str = "none",
    dropout_rate: float = 0.5,
    dtype: str = "float32",
) -> Classifier:
    """Network in network for CIFAR, after the authors' Caffe configuration; for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`: the means over space of one map for each class, which
    is rectified like all others (Section 3.2). Feature maps: `stage1_conv1` to `stage1_conv3` (stride 1), `stage1` (2),
    `stage2_conv1` to `stage2_conv3` (2), `stage2`, `stage3_conv1` and `stage3` (4). A pool makes of n pixels
    ceil((n - 3) / 2) + 1, so that an image has 4 or more. With ten classes it has 966,986 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      width_multiplier: of the channels, rounded to multiples of 8.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`, behind the convolutions; with a batch norm they have no biases.
      dropout_rate: share of the values behind the first and the second pool that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=ConvStages(
            widened(STAGES, width_multiplier),
            activation=activation,
            norm=norm,
            use_bias=norm not in BATCH_NORMS,
            dropout_rate=dropout_rate,
            kernel_init=gaussian,
            dtype=dtype,
        ),
        head=ConvHead(num_classes=num_classes, activation=activation, kernel_init=gaussian),
        in_channels=in_channels,
    )
