"""From feature maps to logits for every pixel: the segmenter and its heads."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.conv import Conv, torch_uniform
from cnn_jax.nn.heads import Classifier
from cnn_jax.ops.resample import resize_linear


class Segmenter(Classifier):
    """A classifier of every pixel: backbone, head and auxiliary heads as in `Classifier`, whose logits are maps.

    The heads return logits `[B, *map, K]` of the size of their feature maps, which are resized to that of the image by
    linear interpolation.
    """

    def _resized(self, logits: Array, space: tuple[int, ...]) -> Array:
        return resize_linear(logits, space)


class FCNHead(nn.Module):
    """3×3 convolution to a quarter of the channels, dropout, 1×1 convolution (Long et al. 2015, as in torchvision).

    Parameters lie under `reduce` (with `conv` and `norm`) and `output`.

    Attributes:
      num_classes: K.
      dropout_rate: share of the hidden values that training sets to 0.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the first convolution has biases.
      dtype: compute type of all but the last convolution, which computes in float32.
      kernel_init: initializer of the kernels.
    """

    num_classes: int
    dropout_rate: float = 0.1
    activation: str = "relu"
    norm: str = "batch"
    dtype: str = "float32"
    kernel_init: Callable[..., Array] = torch_uniform

    @nn.compact
    def __call__(self, x: Float[Array, "B *map C"], *, train: bool) -> Float[Array, "B *map K"]:
        """Maps `[B, *map, C]` to float32 logits `[B, *map, K]`."""
        x = _conv_norm_act(self)(max(1, x.shape[-1] // 4), 3, name="reduce")(x, train=train)
        x = nn.Dropout(self.dropout_rate, name="dropout")(x, deterministic=not train)
        return Conv(self.num_classes, 1, kernel_init=self.kernel_init, name="output")(x)


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling with image-level features (Chen et al. 2017, Section 3.3, Fig. 5).

    A 1×1 convolution, a 3×3 convolution for each dilation, and a 1×1 convolution of the mean over space, side by side;
    then a 1×1 convolution of all of them, and dropout. Parameters lie under `branch1`, `branch2`, ..., `pooled` and
    `project`, each with `conv` and `norm`.

    Attributes:
      features: channels of every branch and of the output.
      rates: dilations, in pixels of the feature map.
      dropout_rate: share of the output that training sets to 0.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dtype: compute type.
      kernel_init: initializer of the kernels.
    """

    features: int
    rates: tuple[int, ...]
    dropout_rate: float
    activation: str
    norm: str
    dtype: str
    kernel_init: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Float[Array, "B *map C"], *, train: bool) -> Float[Array, "B *map features"]:
        """Maps `[B, *map, C]` to `[B, *map, features]`."""
        make = functools.partial(_conv_norm_act(self), self.features)
        branches = [make(1, name="branch1")(x, train=train)]
        for i, rate in enumerate(self.rates, start=2):
            branches.append(make(3, dilation=rate, name=f"branch{i}")(x, train=train))
        mean = jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim - 1)), keepdims=True)
        pooled = make(1, name="pooled")(mean, train=train)
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))  # [B, 1, ..., 1, D] -> [B, *map, D]
        x = make(1, name="project")(jnp.concatenate(branches, axis=-1), train=train)
        return nn.Dropout(self.dropout_rate, name="dropout")(x, deterministic=not train)


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling, 3×3 and 1×1 convolution: DeepLabV3 (Chen et al. 2017) as in torchvision.

    Parameters lie under `pyramid`, `smooth` (with `conv` and `norm`) and `output`.

    Attributes:
      num_classes: K.
      features: channels of the pyramid's branches and of the 3×3 convolution.
      rates: dilations of the pyramid: (12, 24, 36) on maps of stride 8, (6, 12, 18) on those of stride 16.
      dropout_rate: share of the pyramid's output that training sets to 0.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" all convolutions have biases.
      dtype: compute type of all but the last convolution, which computes in float32.
      kernel_init: initializer of the kernels.
    """

    num_classes: int
    features: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    dropout_rate: float = 0.5
    activation: str = "relu"
    norm: str = "batch"
    dtype: str = "float32"
    kernel_init: Callable[..., Array] = torch_uniform

    @nn.compact
    def __call__(self, x: Float[Array, "B *map C"], *, train: bool) -> Float[Array, "B *map K"]:
        """Maps `[B, *map, C]` to float32 logits `[B, *map, K]`."""
        x = AtrousPyramid(
            self.features,
            self.rates,
            dropout_rate=self.dropout_rate,
            activation=self.activation,
            norm=self.norm,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="pyramid",
        )(x, train=train)
        x = _conv_norm_act(self)(self.features, 3, name="smooth")(x, train=train)
        return Conv(self.num_classes, 1, kernel_init=self.kernel_init, name="output")(x)


def _conv_norm_act(head: FCNHead | AtrousPyramid | DeepLabHead) -> functools.partial:
    """`ConvNormAct` with what all convolutions of a head share."""
    return functools.partial(
        ConvNormAct,
        use_bias=head.norm == "none",
        norm=head.norm,
        activation=head.activation,
        kernel_init=head.kernel_init,
        dtype=head.dtype,
    )
