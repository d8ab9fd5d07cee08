"""The textbook network: [convolution → activation → pool]×N, then [dense → activation → dropout]×M → dense."""

import functools
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.blocks import ConvNormAct, SeparableConvNormAct
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_rate, require_stages
from cnn_jax.nn.conv import he_fan_in, scaled
from cnn_jax.nn.heads import FINAL_POOLS, Classifier, DenseHead
from cnn_jax.nn.norm import BATCH_NORMS, NORMS
from cnn_jax.nn.pool import AveragePool, L2Pool, MaxPool
from cnn_jax.nn.remat import run_stage
from cnn_jax.nn.window import PADDINGS

POOLS = {"max": MaxPool, "average": AveragePool, "l2": L2Pool}
"""Pools by the name that configs use; "none" is the third choice."""

NORM_POSITIONS = {"before": "conv_norm_act", "after": "conv_act_norm"}
"""The order of a stage's layers by where its normalisation stands, relative to the activation."""


class ConvolutionsInARow(nn.Module):
    """The convolutions of a stage that has several, `conv1`, `conv2`, ..., all alike but for the first one's stride.

    Attributes:
      features: output channels of each.
      kernel_size: of each, in pixels.
      count: how many.
      stride: of the first; the others have 1.
      padding: as in `nn.conv.Conv`.
      make: a convolution with all that stands behind it, such as `ConvNormAct`.
    """

    features: int
    kernel_size: int
    count: int
    stride: int
    padding: str | int
    make: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`."""
        for i in range(1, self.count + 1):
            stride = self.stride if i == 1 else 1
            layer = self.make(self.features, self.kernel_size, stride=stride, padding=self.padding, name=f"conv{i}")
            x = layer(x, train=train)
        return x


class ClassicStack(nn.Module):
    """[conv → norm? → activation → pool]×N, or with the norm behind the activation.

    Returns `{"stage1": ..., "stageN": ...}`, each map taken after its pool. The stride of stage i, in pixels of the
    input, is `(stride * pool_size) ** i`, or `stride ** i` with pool "none". Parameters lie under `stage1/conv`,
    `stage1/norm` and `stage1/act`; in a stage with several convolutions under `stage1/conv1/conv` and so on.

    Attributes:
      channels: output channels per stage.
      kernel_sizes: per stage, in pixels, for all spatial axes.
      paddings: per stage, as in `nn.conv.Conv`.
      stride: of each stage's first convolution, one for all stages or one per stage.
      convolutions: per stage, before its pool; None is one in each.
      separable: as in `classic_stack`.
      pool: a key of `POOLS`, or "none".
      pool_size: window and stride of the pools, in pixels.
      activation: a key of `ACTIVATIONS`.
      negative_slope: as in `activation_layer`.
      norm: a key of `NORMS`.
      norm_position: a key of `NORM_POSITIONS`.
      spatial_dropout_rate: share of each stage's maps that training sets to 0, behind the pool.
      kernel_init: initializer of the kernels.
      dtype: compute type, "float32" or "bfloat16".
      remat: names of stages that are computed again in the backward pass, each with its pool; see `nn.remat`.
    """

    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    paddings: tuple[str | int, ...]
    stride: int | tuple[int, ...] = 1
    convolutions: tuple[int, ...] | None = None
    separable: bool = False
    pool: str = "max"
    pool_size: int = 2
    activation: str = "relu"
    negative_slope: float | None = None
    norm: str = "none"
    norm_position: str = "before"
    spatial_dropout_rate: float = 0.0
    kernel_init: Callable[..., Array] = he_fan_in
    dtype: str = "float32"
    remat: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        maps = {}
        count = len(self.channels)
        full = functools.partial(
            ConvNormAct,
            # Batch normalisation directly behind the convolution subtracts any bias again.
            use_bias=not (self.norm in BATCH_NORMS and self.norm_position == "before"),
            norm=self.norm,
            activation=self.activation,
            negative_slope=self.negative_slope,
            order=NORM_POSITIONS[self.norm_position],
            kernel_init=self.kernel_init,
            dtype=self.dtype,
        )
        stages = zip(
            self.channels,
            self.kernel_sizes,
            self.paddings,
            (self.stride,) * count if isinstance(self.stride, int) else self.stride,
            self.convolutions or (1,) * count,
            strict=True,
        )
        for i, (features, kernel_size, padding, stride, convolutions) in enumerate(stages, start=1):
            make = functools.partial(SeparableConvNormAct, make=full) if self.separable and i > 1 else full
            if convolutions > 1:
                make = functools.partial(ConvolutionsInARow, count=convolutions, make=make)
            layer = make(features, kernel_size, stride=stride, padding=padding, name=f"stage{i}")
            pool = () if self.pool == "none" else (POOLS[self.pool](window=self.pool_size, name=f"pool{i}"),)
            x = run_stage(layer, x, *pool, train=train, remat=f"stage{i}" in self.remat)
            maps[f"stage{i}"] = x
            # One draw for all of space: neighbouring pixels of a map tell the same (Tompson et al. 2015, Section 3.2).
            space = tuple(range(1, x.ndim - 1))
            dropout = nn.Dropout(self.spatial_dropout_rate, broadcast_dims=space, name=f"dropout{i}")
            x = dropout(x, deterministic=not train)
        return maps


def classic_stack(
    *,
    num_classes: int,
    in_channels: int = 3,
    channels: tuple[int, ...] = (32, 64),
    kernel_size: int | tuple[int, ...] = 3,
    stride: int | tuple[int, ...] = 1,
    convolutions: int | tuple[int, ...] = 1,
    separable: bool = False,
    padding: str = "valid",
    pool: str = "max",
    pool_size: int = 2,
    activation: str = "relu",
    negative_slope: float | None = None,
    norm: str = "none",
    norm_position: str = "before",
    dense: tuple[int, ...] = (64,),
    dropout_rate: float = 0.0,
    spatial_dropout_rate: float = 0.0,
    final_pool: str = "flatten",
    init_scale: float = 1.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """The textbook network with every textbook choice open.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Weights start as He et al. 2015 (Eq. 10), those of the
    last layer as LeCun et al. 1998, biases at 0.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      channels: output channels per stage; its length is the number of stages.
      kernel_size: in pixels, one for all stages or one per stage.
      stride: of each stage's first convolution, one for all stages or one per stage.
      convolutions: in a row, before the pool, one number for all stages or one per stage (VGG has 1 to 4).
      separable: from the second stage on each convolution is a filter of each channel and a 1×1 convolution, with norm
        and activation behind both (Howard et al. 2017, Section 3.1; MobileNet's first convolution is a full one too).
      padding: "valid", "same", "full" or "reflect", as in `nn.conv.Conv`.
      pool: "max", "average", "l2" or "none".
      pool_size: window and stride of the pools, in pixels.
      activation: a key of `nn.activation.ACTIVATIONS`, in the stages and the hidden layers.
      negative_slope: slope of "leaky_relu" (None: 0.01), initial slope of "prelu" (None: 0.25).
      norm: a key of `nn.norm.NORMS`, in the stages.
      norm_position: "before" or "after" the activation.
      dense: units of the hidden layers behind the stages; `()` is none.
      dropout_rate: share of each hidden layer's units that training sets to 0.
      spatial_dropout_rate: share of each stage's maps, whole channels, that training sets to 0, behind the pool
        (Tompson et al. 2015, Section 3.2).
      final_pool: "flatten" or "average" over space, before the dense layers.
      init_scale: factor of all kernels' initial values.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", "stage2", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    if not channels:
        raise UserError("channels is empty; a classic_stack has at least one stage (model 'mlp' has none)")
    require_positive("channels", *channels)
    kernel_sizes = _per_stage("kernel_size", kernel_size, channels)
    require_known("padding", padding, PADDINGS)
    require_known("pool", pool, (*POOLS, "none"))
    require_positive("pool_size", pool_size)
    require_activation(activation, negative_slope=negative_slope)
    require_known("norm", norm, NORMS)
    require_known("norm_position", norm_position, NORM_POSITIONS)
    require_positive("dense", *dense)
    require_rate("spatial_dropout_rate", spatial_dropout_rate)
    require_known("final_pool", final_pool, FINAL_POOLS)
    if init_scale <= 0:
        raise UserError(f"init_scale is {init_scale}; it must be above 0 (1 is He et al. 2015)")
    require_stages(remat, (f"stage{i}" for i in range(1, len(channels) + 1)))
    return Classifier(
        backbone=ClassicStack(
            channels=tuple(channels),
            kernel_sizes=kernel_sizes,
            paddings=(padding,) * len(channels),
            stride=_per_stage("stride", stride, channels),
            convolutions=_per_stage("convolutions", convolutions, channels),
            separable=separable,
            pool=pool,
            pool_size=pool_size,
            activation=activation,
            negative_slope=negative_slope,
            norm=norm,
            norm_position=norm_position,
            spatial_dropout_rate=spatial_dropout_rate,
            kernel_init=scaled(he_fan_in, init_scale),
            dtype=dtype,
            remat=tuple(remat),
        ),
        head=DenseHead(
            sizes=tuple(dense),
            num_classes=num_classes,
            activation=activation,
            negative_slope=negative_slope,
            dropout_rate=dropout_rate,
            final_pool=final_pool,
            kernel_init=scaled(he_fan_in, init_scale),
            output_init=scaled(nn.initializers.lecun_normal(), init_scale),
            dtype=dtype,
        ),
        in_channels=in_channels,
    )


def _per_stage(what: str, value: int | tuple[int, ...], channels: tuple[int, ...]) -> tuple[int, ...]:
    """One number for all stages, or one per stage, as one per stage."""
    values = (value,) * len(channels) if isinstance(value, int) else tuple(value)
    if len(values) != len(channels):
        raise UserError(
            f"{what} {values} has {len(values)} entries, but channels {tuple(channels)} has {len(channels)} stages"
        )
    require_positive(what, *values)
    return values
