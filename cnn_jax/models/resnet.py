"""Residual networks, and the plain networks they are compared with: He et al. 2016, "Deep residual learning".

Their bottlenecks may be grouped (Xie et al. 2017, "Aggregated residual transformations"), wider (Zagoruyko & Komodakis
2016), gated (Hu et al. 2018, "Squeeze-and-excitation networks") or dilated (Chen et al. 2017, "Rethinking atrous
convolution"). The backbone and its parts; `resnet_presets` builds the published networks from them.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.nn.activation import activation_layer
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import scaled_channels
from cnn_jax.nn.conv import Conv
from cnn_jax.nn.norm import norm_layer
from cnn_jax.nn.pool import MaxPool
from cnn_jax.nn.remat import run_stage
from cnn_jax.nn.squeeze_excite import SqueezeExcite

BLOCKS = {
    "basic": ((3, True, 1), (3, False, 1)),
    "bottleneck": ((1, False, 1), (3, True, 1), (1, False, 4)),
}
"""Convolutions of a block, (kernel size, carries the block's stride, output channels / block's channels): Fig. 5.

The one that carries a bottleneck's stride also carries its groups and dilation.
"""

SHORTCUTS = ("A", "B", "none")
"""Where the shape changes, A subsamples and appends zero channels (no parameters), B projects; "none": no shortcuts."""

STEMS = {"imagenet": (7, 2), "cifar": (3, 1)}
"""Kernel size and stride of the first convolution; "imagenet" has a 3×3 max pool of stride 2 behind it."""

FIRST_STRIDES = {"imagenet": 4, "cifar": 1}
"""Strides of the first stage, by stem; every further stage doubles it."""


class Shortcut(nn.Module):
    """The input of a block in the shape of its output (Section 3.3, options A and B).

    Attributes:
      features: channels of the block's output.
      stride: the block's stride.
      kind: "A" or "B".
      norm: a key of `NORMS`, behind the projection.
      kernel_init: initializer of the projection.
      dtype: compute type.
    """

    features: int
    stride: int
    kind: str
    norm: str
    kernel_init: Callable[..., Array]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, ceil(n / stride) pixels per axis."""
        rank, channels = x.ndim - 2, x.shape[-1]
        if self.stride == 1 and channels == self.features:
            return x
        if self.kind == "A":
            every = slice(None, None, self.stride)
            x = x[(slice(None), *(every,) * rank, slice(None))]
            # New channels come last, as in the authors' Torch code.
            return jnp.pad(x, ((0, 0), *((0, 0),) * rank, (0, self.features - channels)))
        conv = Conv(
            self.features,
            1,
            stride=self.stride,
            use_bias=self.norm == "none",
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="conv",
        )
        return norm_layer(self.norm, dtype=self.dtype, name="norm")(conv(x), train=train)


class Block(nn.Module):
    """A residual block: act(F(x) + shortcut(x)) (Eq. 1 and 2), or act(F(x)) with shortcut "none".

    Parameters lie under `conv1`, `norm1`, ... and, for option B where the shape changes, `shortcut/conv` and
    `shortcut/norm`; the gate's, if it has one, under `squeeze_excite`.

    Attributes:
      kind: a key of `BLOCKS`.
      features: the block's channels; a bottleneck has four times as many in its output.
      stride: of the block.
      shortcut: one of `SHORTCUTS`.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      zero_init_residual: the last norm's scale starts at 0, so that the block starts as its shortcut.
      kernel_init: initializer of the kernels.
      dtype: compute type.
      inner: channels between a bottleneck's convolutions; None is `features`.
      groups: of the convolution that carries the stride.
      dilation: of that convolution.
      squeeze_reduction: channels of the output / channels between the layers of the gate, `SqueezeExcite`, of the last
        norm's output; None is no gate.
    """

    kind: str
    features: int
    stride: int
    shortcut: str
    activation: str
    norm: str
    zero_init_residual: bool
    kernel_init: Callable[..., Array]
    dtype: str
    inner: int | None = None
    groups: int = 1
    dilation: int = 1
    squeeze_reduction: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out D"]:
        """Maps `[B, *space, C]` to `[B, *out, D]`, ceil(n / stride) pixels per axis."""
        layers = BLOCKS[self.kind]
        y = x
        for i, (kernel_size, strided, expansion) in enumerate(layers, start=1):
            last = i == len(layers)
            y = Conv(
                self.features * expansion if last else self.inner or self.features,
                kernel_size,
                stride=self.stride if strided else 1,
                groups=self.groups if strided else 1,
                dilation=self.dilation if strided else 1,
                use_bias=self.norm == "none",
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                name=f"conv{i}",
            )(y)
            scale_init = nn.initializers.zeros if last and self.zero_init_residual else nn.initializers.ones
            y = norm_layer(self.norm, dtype=self.dtype, scale_init=scale_init, name=f"norm{i}")(y, train=train)
            if last and self.squeeze_reduction is not None:
                y = SqueezeExcite(
                    scaled_channels(y.shape[-1], multiplier=1 / self.squeeze_reduction),
                    kernel_init=self.kernel_init,
                    dtype=self.dtype,
                    name="squeeze_excite",
                )(y)
            if last and self.shortcut != "none":
                y = y + Shortcut(
                    y.shape[-1],
                    self.stride,
                    kind=self.shortcut,
                    norm=self.norm,
                    kernel_init=self.kernel_init,
                    dtype=self.dtype,
                    name="shortcut",
                )(x, train=train)
            y = activation_layer(self.activation, name=f"act{i}")(y)
        return y


class Stage(nn.Module):
    """Blocks of one width, `block1`, `block2`, ...; the first one has the stride.

    Attributes:
      blocks: how many.
      stride: of the first block; the others have 1.
      make_block: a kind of block with every attribute but its stride.
      make_first: the same for the first block, where it differs by more than the stride.
    """

    blocks: int
    stride: int
    make_block: Callable[..., nn.Module]
    make_first: Callable[..., nn.Module] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out D"]:
        """Maps `[B, *space, C]` to `[B, *out, D]`, ceil(n / stride) pixels per axis."""
        x = (self.make_first or self.make_block)(stride=self.stride, name="block1")(x, train=train)
        for i in range(2, self.blocks + 1):
            x = self.make_block(stride=1, name=f"block{i}")(x, train=train)
        return x


class ResNet(nn.Module):
    """A stem and stages of blocks; stage i has `width * 2 ** (i - 1)` channels, times four with bottlenecks.

    Returns `{"stem": ..., "stage1": ..., "stage2": ..., ...}`. Strides, in pixels of the input: stem "imagenet" 2
    (taken before its max pool), then 4, 8, 16, 32; stem "cifar" 1, then 1, 2, 4, 8; none above `output_stride`. An
    axis of n pixels becomes ceil(n / stride).

    Attributes:
      block: a key of `BLOCKS`.
      stage_sizes: blocks per stage.
      stem: a key of `STEMS`.
      shortcut: one of `SHORTCUTS`.
      width: channels of the stem and the first stage's blocks.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      zero_init_residual: each block starts as its shortcut (Goyal et al. 2017, Section 5.1).
      kernel_init: initializer of the kernels.
      dtype: compute type, "float32" or "bfloat16".
      remat: names of feature maps whose stage keeps nothing for the backward pass but its input, and is computed again
        there: less memory for more time, the same parameters and values.
      groups: of the convolution that carries a bottleneck's stride.
      width_per_group: that convolution has `groups * width_per_group` channels in the first stage, and twice as many in
        each further one; None is `width`.
      squeeze_reduction: as in `Block`.
      output_stride: stages that would go beyond this stride dilate their bottlenecks instead, by the factor that their
        stride had; the first block of such a stage still has the dilation of the stage before. None is no limit.
    """

    block: str
    stage_sizes: tuple[int, ...]
    stem: str
    shortcut: str
    width: int
    activation: str
    norm: str
    zero_init_residual: bool
    kernel_init: Callable[..., Array]
    dtype: str
    remat: tuple[str, ...] = ()
    groups: int = 1
    width_per_group: int | None = None
    squeeze_reduction: int | None = None
    output_stride: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        kernel_size, stride = STEMS[self.stem]
        stem = ConvNormAct(
            self.width,
            kernel_size,
            stride=stride,
            use_bias=self.norm == "none",
            norm=self.norm,
            activation=self.activation,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="stem",
        )
        x = run_stage(stem, x, train=train, remat="stem" in self.remat)
        maps = {"stem": x}
        if self.stem == "imagenet":
            x = MaxPool(window=3, stride=2, padding=1, name="pool")(x)
        total_stride, dilation = FIRST_STRIDES[self.stem], 1
        for i, blocks in enumerate(self.stage_sizes, start=1):
            stride, first_dilation = 1 if i == 1 else 2, dilation
            if self.output_stride is not None and total_stride * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            total_stride *= stride
            make_block = functools.partial(
                Block,
                kind=self.block,
                features=self.width * 2 ** (i - 1),
                shortcut=self.shortcut,
                activation=self.activation,
                norm=self.norm,
                zero_init_residual=self.zero_init_residual,
                kernel_init=self.kernel_init,
                dtype=self.dtype,
                inner=self.groups * (self.width_per_group or self.width) * 2 ** (i - 1),
                groups=self.groups,
                squeeze_reduction=self.squeeze_reduction,
            )
            stage = Stage(
                blocks,
                stride,
                make_block=functools.partial(make_block, dilation=dilation),
                make_first=functools.partial(make_block, dilation=first_dilation),
                name=f"stage{i}",
            )
            x = run_stage(stage, x, train=train, remat=f"stage{i}" in self.remat)
            maps[f"stage{i}"] = x
        return maps
