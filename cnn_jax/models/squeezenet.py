"""SqueezeNet: Iandola et al. 2016, "AlexNet-level accuracy with 50x fewer parameters", as torchvision builds it."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import require_width_multiplier, scaled_channels
from cnn_jax.nn.checks import require_classifier, require_known
from cnn_jax.nn.heads import Classifier, ConvHead
from cnn_jax.nn.norm import BATCH_NORMS, NORMS
from cnn_jax.nn.pool import MaxPool

STEMS = {"1_0": (96, 7), "1_1": (64, 3)}
"""Channels and kernel size of the first convolution by version; its stride is 2."""

STAGES = {"1_0": ((2, 3, 4), (5, 6, 7, 8), (9,)), "1_1": ((2, 3), (4, 5), (6, 7, 8, 9))}
"""Fire modules between the pools by version; 1.1 pools earlier (1.0: Table 1; 1.1: the authors' repository)."""

FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
"""Channels of each fire module's squeeze layer and of each half of its expand layer: Table 1."""

he_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
"""Uniform with variance 2 / fan-in."""


class Fire(nn.Module):
    """1×1 convolutions that squeeze the channels, then 1×1 and 3×3 ones that expand them, side by side (Section 3.2).

    Parameters lie under `squeeze`, `expand1x1` and `expand3x3`, each with `conv` and `norm`.

    Attributes:
      squeezed: channels between the two.
      expanded: output channels of each kernel size.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dtype: compute type.
    """

    squeezed: int
    expanded: int
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *space D"]:
        """Maps `[B, *space, C]` to `[B, *space, 2 * expanded]`, the channels of 1×1 kernels first."""
        make = _conv_norm_act(activation=self.activation, norm=self.norm, dtype=self.dtype)
        x = make(self.squeezed, 1, name="squeeze")(x, train=train)
        sides = [make(self.expanded, size, name=f"expand{size}x{size}")(x, train=train) for size in (1, 3)]
        return jnp.concatenate(sides, axis=-1)


class SqueezeNet(nn.Module):
    """A convolution and three stages of fire modules, a 3×3 max pool of stride 2 before each.

    Returns `{"stem": ..., "stage1": ..., "stage2": ..., "stage3": ...}`, strides 2, 4, 8 and 16. The stem has
    floor((n - k) / 2) + 1 pixels with k = 7 in version 1.0 and 3 in 1.1; a pool makes ceil((n - 3) / 2) + 1 of n.
    Parameters lie under `stem` and `fire2` to `fire9`, as the paper counts them.

    Attributes:
      version: a key of `STAGES`.
      width_multiplier: of the channels.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dtype: compute type, "float32" or "bfloat16".
    """

    version: str
    width_multiplier: float
    activation: str
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        shared = {"activation": self.activation, "norm": self.norm, "dtype": self.dtype}
        channels = functools.partial(scaled_channels, multiplier=self.width_multiplier)
        features, kernel_size = STEMS[self.version]
        stem = _conv_norm_act(**shared)(channels(features), kernel_size, stride=2, padding="valid", name="stem")
        x = stem(x, train=train)
        maps = {"stem": x}
        for i, fires in enumerate(STAGES[self.version], start=1):
            x = MaxPool(3, 2, ceil_mode=True, name=f"pool{i}")(x)
            for fire in fires:
                squeezed, expanded = map(channels, FIRES[fire])
                x = Fire(squeezed, expanded, **shared, name=f"fire{fire}")(x, train=train)
            maps[f"stage{i}"] = x
        return maps


def _conv_norm_act(*, activation: str, norm: str, dtype: str) -> functools.partial:
    """`ConvNormAct` with what all convolutions of the network share."""
    return functools.partial(
        ConvNormAct,
        use_bias=norm not in BATCH_NORMS,
        norm=norm,
        activation=activation,
        kernel_init=he_uniform,
        dtype=dtype,
    )


def squeezenet(
    *,
    num_classes: int,
    in_channels: int = 3,
    version: str = "1_1",
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: str = "none",
    dropout_rate: float = 0.5,
    dtype: str = "float32",
) -> Classifier:
    """SqueezeNet 1.0 (Table 1) or 1.1 (2.4 times less compute), for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`: the means over space of one map for each class, which
    is rectified like all others. An image has 21 pixels per axis or more in version 1.0, 17 in 1.1. Kernels start as He
    et al. 2015 (Eq. 10, fan-in) but uniform, the last one with deviation 0.01, as in torchvision. With 1000 classes 1.0
    has 1,248,424 parameters and 1.1 has 1,235,496.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      version: "1_0" or "1_1".
      width_multiplier: of the channels, rounded to multiples of 8.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`, behind the convolutions; with a batch norm they have no biases.
      dropout_rate: share of the last feature map that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_known("version", version, STAGES)
    require_width_multiplier(width_multiplier)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    return Classifier(
        backbone=SqueezeNet(
            version=version, width_multiplier=width_multiplier, activation=activation, norm=norm, dtype=dtype
        ),
        head=ConvHead(
            num_classes=num_classes,
            activation=activation,
            dropout_rate=dropout_rate,
            kernel_init=nn.initializers.normal(0.01),
        ),
        in_channels=in_channels,
    )
