"""All-CNN-C and its relatives: Springenberg et al. 2015, "Striving for simplicity: the all convolutional net"."""

import functools

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.channels import require_width_multiplier
from cnn_jax.nn.checks import require_classifier, require_known, require_rate
from cnn_jax.nn.conv_stages import ConvStages, Layer, Stage, widened
from cnn_jax.nn.heads import Classifier, ConvHead
from cnn_jax.nn.norm import BATCH_NORMS, NORMS
from cnn_jax.nn.pool import MaxPool

# Caffe's pools round up: 32 pixels become 16 and 8, as with the strided convolutions.
POOL = functools.partial(MaxPool, 3, 2, ceil_mode=True)

SUBSAMPLINGS = {
    "pool": lambda channels: Stage((Layer(channels),) * 2, pool=POOL),
    "stride": lambda channels: Stage((Layer(channels), Layer(channels, stride=2))),
    "conv_pool": lambda channels: Stage((Layer(channels),) * 3, pool=POOL),
    "conv": lambda channels: Stage((Layer(channels), Layer(channels), Layer(channels, stride=2))),
}
"""Channels to a stage that halves the image: Model C, Strided-CNN-C, ConvPool-CNN-C, All-CNN-C (Tables 1 and 2)."""

LAST_STAGE = Stage((Layer(192, padding="valid"), Layer(192, 1)))
"""The first two of the last three convolutions of Table 1; the third is the head's."""


def all_cnn(
    *,
    num_classes: int,
    in_channels: int = 3,
    subsampling: str = "conv",
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: str = "none",
    input_dropout_rate: float = 0.2,
    dropout_rate: float = 0.5,
    dtype: str = "float32",
) -> Classifier:
    """All-CNN-C for CIFAR, or the network with pools or strides that it is compared with; for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`: the means over space of one map for each class, which
    is rectified like all others (Table 1). Feature maps: `stage1_conv1`, `stage1_conv2`, ... (stride 1), `stage1` (2),
    `stage2_conv1`, ... (2), `stage2`, `stage3_conv1` and `stage3` (4). A strided convolution makes of n pixels
    ceil(n / 2), a pool ceil((n - 3) / 2) + 1; stage 3 has two pixels less per axis, so that an image has 9 or more, 12
    with pools. Kernels start as He et al. 2015 (Eq. 10, fan-in), of which the paper says nothing. With ten classes it
    has 1,369,738 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      subsampling: how stages 1 and 2 halve the image: "pool" (Model C: two convolutions and a 3×3 max pool), "stride"
        (Strided-CNN-C: the second convolution has stride 2 instead), "conv" (All-CNN-C: a third convolution with stride
        2 instead) or "conv_pool" (ConvPool-CNN-C: a third convolution, and the pool).
      width_multiplier: of the channels, rounded to multiples of 8.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`, behind the convolutions; with a batch norm they have no biases.
      input_dropout_rate: share of the image's values that training sets to 0 (Section 3.1).
      dropout_rate: the same of the values behind stages 1 and 2.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_known("subsampling", subsampling, SUBSAMPLINGS)
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    require_rate("input_dropout_rate", input_dropout_rate)
    stages = (SUBSAMPLINGS[subsampling](96), SUBSAMPLINGS[subsampling](192), LAST_STAGE)
    return Classifier(
        backbone=ConvStages(
            widened(stages, width_multiplier),
            activation=activation,
            norm=norm,
            use_bias=norm not in BATCH_NORMS,
            dropout_rate=dropout_rate,
            input_dropout_rate=input_dropout_rate,
            dtype=dtype,
        ),
        head=ConvHead(num_classes=num_classes, activation=activation),
        in_channels=in_channels,
    )
