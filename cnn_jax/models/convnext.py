"""ConvNeXt: Liu et al. 2022, "A ConvNet for the 2020s"; V2: Woo et al. 2023, "ConvNeXt V2"."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.nn.activation import activation_layer
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.conv import Conv
from cnn_jax.nn.dense import Dense
from cnn_jax.nn.norm import norm_layer
from cnn_jax.nn.pool import GlobalAveragePool
from cnn_jax.nn.remat import run_stage
from cnn_jax.nn.stochastic_depth import StochasticDepth
from cnn_jax.ops.channels import over_channels

EPSILON = 1e-6
"""Of all norms."""

EXPANSION = 4
"""Channels between the two dense layers / channels of the block (Section 2.4, "Inverted Bottleneck")."""

normal_002 = nn.initializers.normal(0.02)
"""Of every kernel. The reference truncates at ±2, that is at a hundred deviations: not at all."""


class GlobalResponseNorm(nn.Module):
    """x + scale × x × n / mean(n) + bias, n being the root of the sum of x² over space (Woo et al. 2023, Algorithm 1).

    Channels compete: the mean is over them. Parameters: `scale` and `bias`, float32 `[C]`, which start at 0. It
    computes in float32.

    Attributes:
      dtype: type of the output.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *space C"]:
        """Normalises `[B, *space, C]`."""
        x = x.astype(jnp.float32)
        squares = jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim - 1)), keepdims=True)  # [B, 1, ..., 1, C]
        # A root has no gradient at 0, where a channel is 0 all over the image.
        size = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
        share = size / (jnp.mean(size, axis=-1, keepdims=True) + EPSILON)
        scale, bias = (self.param(name, nn.initializers.zeros, (x.shape[-1],)) for name in ("scale", "bias"))
        return (x + over_channels(scale, x) * (x * share) + over_channels(bias, x)).astype(self.dtype)


class ConvNeXtBlock(nn.Module):
    """7×7 convolution of each channel, norm, dense layer, activation, dense layer, added to the input (Fig. 4).

    Parameters lie under `depthwise`, `norm`, `expand`, `project`, in V2 `response_norm`, and in V1 there is the block's
    own `layer_scale`, float32 `[C]`.

    Attributes:
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      layer_scale: initial value of a trained factor per channel of the branch (Touvron et al. 2021, Eq. 5); None: none.
      response_norm: a `GlobalResponseNorm` behind the activation: V2.
      stochastic_depth_rate: share of the examples whose branch training leaves out.
      dtype: compute type.
    """

    activation: str
    norm: str
    layer_scale: float | None
    response_norm: bool
    stochastic_depth_rate: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *space C"]:
        """Maps `[B, *space, C]` to the same shape."""
        channels = x.shape[-1]
        shared = {"kernel_init": normal_002, "dtype": self.dtype}
        y = Conv(channels, 7, groups=channels, name="depthwise", **shared)(x)
        y = norm_layer(self.norm, dtype=self.dtype, epsilon=EPSILON, name="norm")(y, train=train)
        y = Dense(EXPANSION * channels, name="expand", **shared)(y)
        y = activation_layer(self.activation, name="act")(y)
        if self.response_norm:
            y = GlobalResponseNorm(dtype=self.dtype, name="response_norm")(y)
        y = Dense(channels, name="project", **shared)(y)
        if self.layer_scale is not None:
            scale = self.param("layer_scale", nn.initializers.constant(self.layer_scale), (channels,))
            y = y * over_channels(scale, y)
        return x + StochasticDepth(self.stochastic_depth_rate, name="stochastic_depth")(y, train=train)


class ConvNeXtStage(nn.Module):
    """A `norm` and a 2×2 convolution of stride 2, `downsample`, unless it is the first; then `block1`, `block2`, ...

    Attributes:
      features: channels.
      downsample: see above.
      rates: the stochastic depth rate of every block.
      norm: a key of `NORMS`.
      make_block: `ConvNeXtBlock` with every attribute but its rate.
      dtype: compute type.
    """

    features: int
    downsample: bool
    rates: tuple[float, ...]
    norm: str
    make_block: Callable[..., nn.Module]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, in all but the first stage floor(n / 2) pixels per axis."""
        if self.downsample:
            x = norm_layer(self.norm, dtype=self.dtype, epsilon=EPSILON, name="norm")(x, train=train)
            x = Conv(
                self.features,
                2,
                stride=2,
                padding="valid",
                kernel_init=normal_002,
                dtype=self.dtype,
                name="downsample",
            )(x)
        for i, rate in enumerate(self.rates, start=1):
            x = self.make_block(stochastic_depth_rate=rate, name=f"block{i}")(x, train=train)
        return x


class ConvNeXt(nn.Module):
    """A stem of 4×4 patches and stages of blocks; stage i has `width * 2 ** (i - 1)` channels.

    Returns `{"stem": ..., "stage1": ..., "stage2": ..., ...}`. Strides, in pixels of the input: stem 4, then 4, 8, 16,
    32. An axis of n pixels becomes floor(n / stride).

    Attributes:
      blocks: per stage.
      width: channels of the stem and the first stage.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      layer_scale: as in `ConvNeXtBlock`.
      response_norm: as in `ConvNeXtBlock`.
      stochastic_depth_rate: of the last block; the others' rates rise to it from 0, in equal steps.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages that keep nothing for the backward pass but their input, and are computed again there.
    """

    blocks: tuple[int, ...]
    width: int
    activation: str
    norm: str
    layer_scale: float | None
    response_norm: bool
    stochastic_depth_rate: float
    dtype: str
    remat: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        x = ConvNormAct(
            self.width,
            4,
            stride=4,
            padding="valid",
            norm=self.norm,
            epsilon=EPSILON,
            activation="identity",
            kernel_init=normal_002,
            dtype=self.dtype,
            name="stem",
        )(x, train=train)
        maps = {"stem": x}
        total, before = sum(self.blocks), 0
        for i, blocks in enumerate(self.blocks, start=1):
            make_block = functools.partial(
                ConvNeXtBlock,
                activation=self.activation,
                norm=self.norm,
                layer_scale=self.layer_scale,
                response_norm=self.response_norm,
                dtype=self.dtype,
            )
            name = f"stage{i}"
            stage = ConvNeXtStage(
                self.width * 2 ** (i - 1),
                downsample=i > 1,
                # Both ends included, where `linear_rates` ends one step earlier.
                rates=tuple(self.stochastic_depth_rate * (before + j) / max(1, total - 1) for j in range(blocks)),
                norm=self.norm,
                make_block=make_block,
                dtype=self.dtype,
                name=name,
            )
            maps[name] = x = run_stage(stage, x, train=train, remat=name in self.remat)
            before += blocks
        return maps


class ConvNeXtHead(nn.Module):
    """Global average pooling, norm, dropout, and one dense layer `output`: the norm comes behind the pooling.

    Attributes:
      num_classes: K.
      norm: a key of `NORMS`.
      dropout_rate: share of the normalised features that training sets to 0.
    """

    num_classes: int
    norm: str
    dropout_rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 logits `[B, K]`, computed in float32."""
        x = GlobalAveragePool(name="pool")(x)
        x = norm_layer(self.norm, dtype="float32", epsilon=EPSILON, name="norm")(x, train=train)
        x = nn.Dropout(self.dropout_rate, name="dropout")(x, deterministic=not train)
        return nn.Dense(self.num_classes, kernel_init=normal_002, name="output")(x)
