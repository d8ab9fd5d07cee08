"""Densely connected networks: Huang et al. 2017, "Densely connected convolutional networks".

The backbone and its parts; `densenet_presets` builds the published networks from them.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.nn.activation import activation_layer
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.conv import Conv
from cnn_jax.nn.norm import norm_layer
from cnn_jax.nn.pool import AveragePool, MaxPool
from cnn_jax.nn.remat import run_stage

STEMS = ("imagenet", "cifar")
"""A 7×7 convolution of stride 2, norm, activation and 3×3 max pool of stride 2; or a 3×3 convolution alone."""

BOTTLENECK = 4
"""Channels of a 1×1 convolution / growth rate (Section 3, "Bottleneck layers")."""


class DenseLayer(nn.Module):
    """Norm, activation and convolution make `growth_rate` new channels, which are appended to the input (Eq. 2).

    With a bottleneck a 1×1 convolution comes before the 3×3 one. Parameters lie under `norm1`, `conv1` and, with a
    bottleneck, `norm2` and `conv2`.

    Attributes:
      growth_rate: k, the channels appended.
      bottleneck: see above; DenseNet-B.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dropout_rate: share of a convolution's output that training sets to 0.
      kernel_init: initializer of the kernels.
      dtype: compute type.
    """

    growth_rate: int
    bottleneck: bool
    activation: str
    norm: str
    dropout_rate: float
    kernel_init: Callable[..., Array]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *space D"]:
        """Maps `[B, *space, C]` to `[B, *space, C + growth_rate]`."""
        convolutions = ((self.growth_rate, 3),)
        if self.bottleneck:
            convolutions = ((BOTTLENECK * self.growth_rate, 1), *convolutions)
        y = x
        for i, (features, kernel_size) in enumerate(convolutions, start=1):
            y = norm_layer(self.norm, dtype=self.dtype, name=f"norm{i}")(y, train=train)
            y = activation_layer(self.activation, name=f"act{i}")(y)
            y = Conv(
                features,
                kernel_size,
                use_bias=self.norm == "none",
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                name=f"conv{i}",
            )(y)
            y = nn.Dropout(self.dropout_rate, name=f"dropout{i}")(y, deterministic=not train)
        # Two operands a layer: a list of all maps before would make the program grow with the square of the layers.
        return jnp.concatenate((x, y), axis=-1)


class Transition(nn.Module):
    """Norm, activation, 1×1 convolution and 2×2 average pool of stride 2, between two dense blocks (Section 3).

    Parameters lie under `norm` and `conv`.

    Attributes:
      features: output channels.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dropout_rate: share of the convolution's output that training sets to 0.
      kernel_init: initializer of the kernel.
      dtype: compute type.
    """

    features: int
    activation: str
    norm: str
    dropout_rate: float
    kernel_init: Callable[..., Array]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, floor(n / 2) pixels per axis."""
        x = norm_layer(self.norm, dtype=self.dtype, name="norm")(x, train=train)
        x = activation_layer(self.activation, name="act")(x)
        x = Conv(
            self.features,
            1,
            use_bias=self.norm == "none",
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        x = nn.Dropout(self.dropout_rate, name="dropout")(x, deterministic=not train)
        return AveragePool(window=2, name="pool")(x)


class DenseStage(nn.Module):
    """A `transition`, unless it is the first stage, and a dense block: `layer1`, `layer2`, ...

    Attributes:
      layers: how many.
      make_layer: `DenseLayer` with every attribute.
      make_transition: `Transition` with every attribute but its channels; None in the first stage.
      compression: θ, the transition's output / input channels, rounded down.
    """

    layers: int
    make_layer: Callable[..., nn.Module]
    make_transition: Callable[..., nn.Module] | None
    compression: float

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out D"]:
        """Maps `[B, *space, C]` to `[B, *out, D]`, in all but the first stage floor(n / 2) pixels per axis."""
        if self.make_transition is not None:
            features = max(1, int(self.compression * x.shape[-1]))
            x = self.make_transition(features, name="transition")(x, train=train)
        for i in range(1, self.layers + 1):
            x = self.make_layer(name=f"layer{i}")(x, train=train)
        return x


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between them, and a norm and an activation behind them.

    Returns `{"stem": ..., "stage1": ..., "stage2": ..., ..., "final": ...}`; a stage is the output of a dense block,
    "final" the last one normalised and activated. Strides, in pixels of the input: stem "imagenet" 2 (taken before its
    max pool), then 4, 8, 16, 32 and 32; stem "cifar" 1, then 1, 2, 4, ... Stem and first stage have ceil(n / stride)
    pixels; each further stage has half of those before it, rounded down.

    Attributes:
      stem: one of `STEMS`.
      stem_channels: channels of the first convolution.
      stage_sizes: layers per dense block.
      growth_rate: k, the channels that a layer appends.
      bottleneck: layers have a 1×1 convolution before the 3×3 one.
      compression: θ, output / input channels of a transition.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dropout_rate: share of the output of every convolution but the first that training sets to 0.
      kernel_init: initializer of the kernels.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages that keep nothing for the backward pass but their input, and are computed again there.
    """

    stem: str
    stem_channels: int
    stage_sizes: tuple[int, ...]
    growth_rate: int
    bottleneck: bool
    compression: float
    activation: str
    norm: str
    dropout_rate: float
    kernel_init: Callable[..., Array]
    dtype: str
    remat: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        conv = {"use_bias": self.norm == "none", "kernel_init": self.kernel_init, "dtype": self.dtype}
        if self.stem == "imagenet":
            make_stem = ConvNormAct(
                self.stem_channels, 7, stride=2, norm=self.norm, activation=self.activation, name="stem", **conv
            )
            maps = {"stem": make_stem(x, train=train)}
            x = MaxPool(window=3, stride=2, padding=1, name="pool")(maps["stem"])
        else:
            maps = {"stem": Conv(self.stem_channels, 3, name="stem", **conv)(x)}
            x = maps["stem"]
        shared = {
            "activation": self.activation,
            "norm": self.norm,
            "dropout_rate": self.dropout_rate,
            "kernel_init": self.kernel_init,
            "dtype": self.dtype,
        }
        for i, layers in enumerate(self.stage_sizes, start=1):
            name = f"stage{i}"
            stage = DenseStage(
                layers,
                make_layer=functools.partial(DenseLayer, self.growth_rate, bottleneck=self.bottleneck, **shared),
                make_transition=functools.partial(Transition, **shared) if i > 1 else None,
                compression=self.compression,
                name=name,
            )
            maps[name] = x = run_stage(stage, x, train=train, remat=name in self.remat)
        x = norm_layer(self.norm, dtype=self.dtype, name="norm")(x, train=train)
        maps["final"] = activation_layer(self.activation, name="act")(x)
        return maps
