"""Networks of parallel branches, written as tables: the parts of GoogLeNet, Inception-v3 and Inception-v4."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import scaled_channels

EPSILON = 1e-3
"""Added to the variance by the norms of all these networks."""


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution, norm and activation in a table.

    Attributes:
      features: output channels at width 1.
      kernel_size: one size for all spatial axes; or (n, m): m along the last axis and n along every other one. A 1×7
        kernel is (1, 7) and a 7×1 kernel (7, 1), one behind the other sees 7 pixels along each axis at any rank; on a
        sequence, (7, 1) is a kernel of one pixel.
      stride: in pixels.
      padding: "same" (kernel_size // 2 on both sides) or "valid".
    """

    features: int
    kernel_size: int | tuple[int, int] = 1
    stride: int = 1
    padding: str = "same"


Pool = Callable[..., nn.Module]
"""A pooling layer in a table: takes its `name`."""

Branch = tuple[Convolution | Pool | tuple[Convolution, ...], ...]
"""Layers one behind the other; a tuple at the end are convolutions side by side, whose outputs are concatenated."""

Block = tuple[Branch, ...]
"""Branches side by side, whose outputs are concatenated."""

Stages = tuple[tuple[str, tuple[Convolution | Pool | Block, ...]], ...]
"""Feature maps by name, in order, with the layers that lead to each."""


@dataclasses.dataclass(frozen=True)
class Style:
    """What all convolutions of a network share.

    Attributes:
      width_multiplier: of their channels, see `nn.channels.scaled_channels`.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" they have biases.
      kernel_init: initializer of the kernels.
      dtype: compute type, "float32" or "bfloat16".
    """

    width_multiplier: float
    activation: str
    norm: str
    kernel_init: Callable[..., Array]
    dtype: str

    def convolution(self, layer: Convolution, *, rank: int, name: str) -> ConvNormAct:
        """The module of a table's convolution, for images of `rank` axes of space."""
        kernel_size = layer.kernel_size
        if not isinstance(kernel_size, int):
            kernel_size = (kernel_size[0],) * (rank - 1) + (kernel_size[1],)
        return ConvNormAct(
            scaled_channels(layer.features, multiplier=self.width_multiplier),
            kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            use_bias=self.norm == "none",
            norm=self.norm,
            epsilon=EPSILON,
            activation=self.activation,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name=name,
        )


class Inception(nn.Module):
    """Branches of one input, concatenated along the channels (Szegedy et al. 2015, Fig. 2b).

    Parameters of branch i lie under `branch<i>_conv1`, `branch<i>_conv2`, ..., and of convolutions side by side under
    `branch<i>_conv2a`, `branch<i>_conv2b`; each has `conv` and `norm`.

    Attributes:
      branches: see `Branch`; all must give as many pixels.
      style: of the convolutions.
    """

    branches: Block
    style: Style

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out D"]:
        """Maps `[B, *space, C]` to `[B, *out, D]`, the channels of the first branch first."""
        make = functools.partial(self.style.convolution, rank=x.ndim - 2)
        outputs = []
        for i, branch in enumerate(self.branches, start=1):
            y, convolutions = x, 0
            for layer in branch:
                if isinstance(layer, Convolution):
                    convolutions += 1
                    y = make(layer, name=f"branch{i}_conv{convolutions}")(y, train=train)
                elif isinstance(layer, tuple):
                    convolutions += 1
                    sides = [
                        make(side, name=f"branch{i}_conv{convolutions}{letter}")(y, train=train)
                        for letter, side in zip("ab", layer, strict=True)
                    ]
                    y = jnp.concatenate(sides, axis=-1)
                else:
                    y = layer(name=f"branch{i}_pool")(y)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1)


class InceptionNet(nn.Module):
    """Stages of convolutions, pools and blocks, one behind the other.

    Returns the feature maps of the table by name. Parameters lie under `<stage>_conv<i>`, with `conv` and `norm`, and
    under `<stage>_block<i>`, see `Inception`.

    Attributes:
      stages: see `Stages`.
      style: of the convolutions.
      taps: blocks, such as "stage3_block1", whose output is a feature map too.
    """

    stages: Stages
    style: Style
    taps: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        maps = {}
        for stage, layers in self.stages:
            convolutions, blocks = 0, 0
            for layer in layers:
                if isinstance(layer, Convolution):
                    convolutions += 1
                    name = f"{stage}_conv{convolutions}"
                    x = self.style.convolution(layer, rank=x.ndim - 2, name=name)(x, train=train)
                elif isinstance(layer, tuple):
                    blocks += 1
                    name = f"{stage}_block{blocks}"
                    x = Inception(layer, self.style, name=name)(x, train=train)
                    if name in self.taps:
                        maps[name] = x
                else:
                    x = layer(name=f"{stage}_pool")(x)
            maps[stage] = x
        return maps
