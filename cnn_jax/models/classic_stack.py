"""The textbook network: [convolution → activation → pool]×N, then [dense → activation → dropout]×M → dense."""

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_stages
from cnn_jax.nn.heads import FINAL_POOLS, Classifier, DenseHead
from cnn_jax.nn.norm import BATCH_NORMS, NORMS
from cnn_jax.nn.pool import AveragePool, MaxPool
from cnn_jax.nn.remat import run_stage
from cnn_jax.nn.window import PADDINGS

POOLS = {"max": MaxPool, "average": AveragePool}
"""Pools by the name that configs use; "none" is the third choice."""

NORM_POSITIONS = {"before": "conv_norm_act", "after": "conv_act_norm"}
"""The order of a stage's layers by where its normalisation stands, relative to the activation."""


class ClassicStack(nn.Module):
    """[conv → norm? → activation → pool]×N, or with the norm behind the activation.

    Returns `{"stage1": ..., "stageN": ...}`, each map taken after its pool. The stride of stage i, in pixels of the
    input, is `(stride * pool_size) ** i`, or `stride ** i` with pool "none". Parameters lie under `stage1/conv`,
    `stage1/norm` and `stage1/act`.

    Attributes:
      channels: output channels per stage.
      kernel_sizes: per stage, in pixels, for all spatial axes.
      paddings: per stage, as in `nn.conv.Conv`.
      stride: of every convolution.
      pool: a key of `POOLS`, or "none".
      pool_size: window and stride of the pools, in pixels.
      activation: a key of `ACTIVATIONS`.
      negative_slope: as in `activation_layer`.
      norm: a key of `NORMS`.
      norm_position: a key of `NORM_POSITIONS`.
      dtype: compute type, "float32" or "bfloat16".
      remat: names of stages that are computed again in the backward pass, each with its pool; see `nn.remat`.
    """

    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    paddings: tuple[str | int, ...]
    stride: int = 1
    pool: str = "max"
    pool_size: int = 2
    activation: str = "relu"
    negative_slope: float | None = None
    norm: str = "none"
    norm_position: str = "before"
    dtype: str = "float32"
    remat: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        maps = {}
        stages = zip(self.channels, self.kernel_sizes, self.paddings, strict=True)
        for i, (features, kernel_size, padding) in enumerate(stages, start=1):
            layer = ConvNormAct(
                features,
                kernel_size,
                stride=self.stride,
                padding=padding,
                # Batch normalisation directly behind the convolution subtracts any bias again.
                use_bias=not (self.norm in BATCH_NORMS and self.norm_position == "before"),
                norm=self.norm,
                activation=self.activation,
                negative_slope=self.negative_slope,
                order=NORM_POSITIONS[self.norm_position],
                dtype=self.dtype,
                name=f"stage{i}",
            )
            pool = () if self.pool == "none" else (POOLS[self.pool](window=self.pool_size, name=f"pool{i}"),)
            x = run_stage(layer, x, *pool, train=train, remat=f"stage{i}" in self.remat)
            maps[f"stage{i}"] = x
        return maps


def classic_stack(
    *,
    num_classes: int,
    in_channels: int = 3,
    channels: tuple[int, ...] = (32, 64),
    kernel_size: int | tuple[int, ...] = 3,
    stride: int = 1,
    padding: str = "valid",
    pool: str = "max",
    pool_size: int = 2,
    activation: str = "relu",
    negative_slope: float | None = None,
    norm: str = "none",
    norm_position: str = "before",
    dense: tuple[int, ...] = (64,),
    dropout_rate: float = 0.0,
    final_pool: str = "flatten",
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """The textbook network with every textbook choice open.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Weights start as He et al. 2015 (Eq. 10), biases at 0.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      channels: output channels per stage; its length is the number of stages.
      kernel_size: in pixels, one for all stages or one per stage.
      stride: of every convolution.
      padding: "valid", "same", "full" or "reflect", as in `nn.conv.Conv`.
      pool: "max", "average" or "none".
      pool_size: window and stride of the pools, in pixels.
      activation: a key of `nn.activation.ACTIVATIONS`, in the stages and the hidden layers.
      negative_slope: slope of "leaky_relu" (None: 0.01), initial slope of "prelu" (None: 0.25).
      norm: a key of `nn.norm.NORMS`, in the stages.
      norm_position: "before" or "after" the activation.
      dense: units of the hidden layers behind the stages; `()` is none.
      dropout_rate: share of each hidden layer's units that training sets to 0.
      final_pool: "flatten" or "average" over space, before the dense layers.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", "stage2", ...; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    if not channels:
        raise UserError("channels is empty; a classic_stack has at least one stage (model 'mlp' has none)")
    require_positive("channels", *channels)
    kernel_sizes = (kernel_size,) * len(channels) if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(kernel_sizes) != len(channels):
        raise UserError(
            f"kernel_size {kernel_sizes} has {len(kernel_sizes)} entries, but channels {tuple(channels)} has"
            f" {len(channels)} stages"
        )
    require_positive("kernel_size", *kernel_sizes)
    require_positive("stride", stride)
    require_known("padding", padding, PADDINGS)
    require_known("pool", pool, (*POOLS, "none"))
    require_positive("pool_size", pool_size)
    require_activation(activation, negative_slope=negative_slope)
    require_known("norm", norm, NORMS)
    require_known("norm_position", norm_position, NORM_POSITIONS)
    require_positive("dense", *dense)
    require_known("final_pool", final_pool, FINAL_POOLS)
    require_stages(remat, (f"stage{i}" for i in range(1, len(channels) + 1)))
    return Classifier(
        backbone=ClassicStack(
            channels=tuple(channels),
            kernel_sizes=kernel_sizes,
            paddings=(padding,) * len(channels),
            stride=stride,
            pool=pool,
            pool_size=pool_size,
            activation=activation,
            negative_slope=negative_slope,
            norm=norm,
            norm_position=norm_position,
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
            dtype=dtype,
        ),
        in_channels=in_channels,
    )
