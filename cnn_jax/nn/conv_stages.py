"""Networks without branches: stages of convolutions, each of which may end in a pool, given as a table."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.channels import scaled_channels
from cnn_jax.nn.conv import he_fan_in
from cnn_jax.nn.local_response_norm import LocalResponseNorm


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution of a stage, with what follows it.

    Attributes:
      features: output channels.
      kernel_size: in pixels, for all spatial axes.
      stride: in pixels.
      padding: as in `nn.conv.Conv`.
      groups: as in `nn.conv.Conv`.
      bias: initial value of the biases.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: str | int = "same"
    groups: int = 1
    bias: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """Some convolutions and what stands behind the last of them.

    Attributes:
      layers: the convolutions.
      pool: a pool without its name, such as `functools.partial(MaxPool, 3, 2)`; None is none.
      response_norm: local response normalisation, before the pool, with the constants of Krizhevsky et al. 2012.
    """

    layers: tuple[Layer, ...]
    pool: Callable[..., nn.Module] | None = None
    response_norm: bool = False


class ConvStages(nn.Module):
    """[[conv → norm → activation]×M → response norm? → pool? → dropout]×N, the last stage without dropout.

    Returns `{"stage1_conv1": ..., "stage1_conv2": ..., "stage1": ..., "stage2_conv1": ...}`: what each activation
    gives, and what each stage ends with before its dropout. A stage with neither pool nor response norm ends with its
    last convolution, which has the name of the stage only. Parameters lie under `stage1_conv1/conv`,
    `stage1_conv1/norm` and `stage1_conv1/act`.

    Attributes:
      stages: the network.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      use_bias: the convolutions have biases.
      dropout_rate: behind every stage but the last.
      input_dropout_rate: share of the image's values that training sets to 0.
      kernel_init: initializer of the kernels.
      dtype: compute type, "float32" or "bfloat16".
    """

    stages: tuple[Stage, ...]
    activation: str = "relu"
    norm: str = "none"
    use_bias: bool = True
    dropout_rate: float = 0.0
    input_dropout_rate: float = 0.0
    kernel_init: Callable[..., Array] = he_fan_in
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        maps = {}
        x = nn.Dropout(self.input_dropout_rate, name="input_dropout")(x, deterministic=not train)
        for i, stage in enumerate(self.stages, start=1):
            name = f"stage{i}"
            if i > 1:
                x = nn.Dropout(self.dropout_rate, name=f"stage{i - 1}_dropout")(x, deterministic=not train)
            for j, layer in enumerate(stage.layers, start=1):
                x = ConvNormAct(
                    layer.features,
                    layer.kernel_size,
                    stride=layer.stride,
                    padding=layer.padding,
                    groups=layer.groups,
                    use_bias=self.use_bias,
                    norm=self.norm,
                    activation=self.activation,
                    kernel_init=self.kernel_init,
                    bias_init=nn.initializers.constant(layer.bias),
                    dtype=self.dtype,
                    name=f"{name}_conv{j}",
                )(x, train=train)
                if j < len(stage.layers) or stage.pool or stage.response_norm:
                    maps[f"{name}_conv{j}"] = x
            if stage.response_norm:
                x = LocalResponseNorm(dtype=self.dtype, name=f"{name}_response_norm")(x)
            if stage.pool:
                x = stage.pool(name=f"{name}_pool")(x)
            maps[name] = x
        return maps


def widened(stages: tuple[Stage, ...], multiplier: float) -> tuple[Stage, ...]:
    """The stages with their channels times a multiplier, rounded as `scaled_channels` does."""

    def widen(layer: Layer) -> Layer:
        return dataclasses.replace(layer, features=scaled_channels(layer.features, multiplier=multiplier))

    return tuple(dataclasses.replace(stage, layers=tuple(map(widen, stage.layers))) for stage in stages)
