"""From feature maps to logits: the classifier and its heads."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import activation_layer
from cnn_jax.nn.checks import require_known
from cnn_jax.nn.conv import Conv, he_fan_in
from cnn_jax.nn.dense import Dense
from cnn_jax.nn.pool import AdaptiveAveragePool, GlobalAveragePool
from cnn_jax.nn.smallest import smallest_image_in_errors

FINAL_POOLS = ("flatten", "average")
"""How a `DenseHead` turns the last feature map into a vector."""


class Classifier(nn.Module):
    """A backbone that makes named feature maps, and a head that makes logits of the last one.

    Parameters lie under `backbone/...` and `head/...`; the last layer is `head/output` in every trainable head.

    Attributes:
      backbone: called as `backbone(x, train=...)`; returns a dict of feature maps, the last one entered last.
      head: called as `head(feature_map, train=...)`; returns logits `[B, K]`.
      in_channels: channels of the images, checked at every call.
      auxiliary: feature map to a second head on it, for training alone; called as `head` is. The heads' own names are
        the paths of their parameters: "auxiliary1", ...

    Raises:
      UserError: the image has other channels, or not one to three spatial axes.
      ImageTooSmallError: the image is too small for a layer of the backbone, or at initialisation of such a head; the
        message has the smallest size that works.
    """

    backbone: nn.Module
    head: nn.Module
    in_channels: int
    auxiliary: Mapping[str, nn.Module] = FrozenDict()

    preserve_adopted_names = True  # Flax would call them `auxiliary_<feature map>`.

    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B ... K"]:
        """Computes logits.

        Args:
          x: normalised images, `[B, *space, C]`.
          train: batch statistics and dropout (which needs the "dropout" key), or running statistics and none.

        Returns:
          Logits, float32 `[B, K]`; a `Segmenter`'s are `[B, *space, K]`.
        """
        with smallest_image_in_errors(self, x, auxiliary=self.is_initializing()):
            return self.logits(x, train=train)

    def logits(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B ... K"]:
        """What a call returns, without the smallest size in the message about an image that is too small."""
        maps = self._maps(x, train=train)
        if self.is_initializing():
            self._auxiliary(maps, train=train)
        return self._resized(self._main(maps, train=train), x.shape[1:-1])

    def with_auxiliary(
        self, x: Float[Array, "B *space C"], *, train: bool
    ) -> tuple[Float[Array, "B ... K"], dict[str, Float[Array, "B ... K"]]]:
        """Computes the logits of every head (Szegedy et al. 2015, Section 5).

        Args:
          x: normalised images, `[B, *space, C]`.
          train: as in a call.

        Returns:
          What a call returns, and the logits of the auxiliary heads by their feature maps; float32 `[B, K]`.
        """
        with smallest_image_in_errors(self, x, auxiliary=True):
            maps, space = self._maps(x, train=train), x.shape[1:-1]
            auxiliary = self._auxiliary(maps, train=train)
            main = self._resized(self._main(maps, train=train), space)
            return main, {name: self._resized(logits, space) for name, logits in auxiliary.items()}

    def _main(self, maps: Mapping[str, Array], *, train: bool) -> Array:
        return self.head(tuple(maps.values())[-1], train=train).astype(jnp.float32)

    def _auxiliary(self, maps: Mapping[str, Array], *, train: bool) -> dict[str, Array]:
        return {name: head(maps[name], train=train).astype(jnp.float32) for name, head in self.auxiliary.items()}

    def features(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """The backbone's named feature maps, in order from the image to the head.

        Address them by name: jit sorts the keys of a dict that it returns.

        Args:
          x: normalised images, `[B, *space, C]`.
          train: as in a call.
        """
        with smallest_image_in_errors(self, x, auxiliary=False):
            return self._maps(x, train=train)

    def _resized(self, logits: Array, space: tuple[int, ...]) -> Array:
        """What a call returns of a head's output, for an image of this space."""
        del space  # Of a whole image there is one vector.
        return logits

    def _maps(self, x: Array, *, train: bool) -> dict[str, Array]:
        channels = x.shape[-1]
        if not 3 <= x.ndim <= 5:
            raise UserError(f"images have the shape {x.shape}; a model takes [B, *space, C] with 1 to 3 spatial axes")
        if channels != self.in_channels:
            raise UserError(
                f"images have {channels} channels, but the model was built for {self.in_channels};"
                f" set model.in_channels={channels}"
            )
        return self.backbone(x, train=train)


class PooledHead(nn.Module):
    """Global average pooling, dropout, and one dense layer `output` (Lin et al. 2014; He et al. 2016).

    Attributes:
      num_classes: K.
      dropout_rate: share of the pooled features that training sets to 0.
    """

    num_classes: int
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 logits `[B, K]`, computed in float32."""
        x = GlobalAveragePool(name="pool")(x)
        x = nn.Dropout(self.dropout_rate, name="dropout")(x, deterministic=not train)
        return nn.Dense(self.num_classes, name="output")(x)


class DenseHead(nn.Module):
    """[dense → activation → dropout]×M → dense, under the names `dense1`, `act1`, ..., `output`.

    Attributes:
      sizes: units of the hidden layers.
      num_classes: K.
      activation: a key of `ACTIVATIONS`.
      negative_slope: as in `activation_layer`.
      dropout_rate: share of each hidden layer's units that training sets to 0.
      dropout_first: dropout stands before every hidden layer, on its inputs, and none before the last layer.
      final_pool: "flatten" (the input is all of the feature map, so the image size is fixed) or "average" over space.
      bins: the feature map is pooled to this many bins along each axis before it is flattened, so that images of all
        sizes fit; None leaves it as it is.
      kernel_init: initializer of the hidden layers' kernels.
      bias_init: initializer of the hidden layers' biases.
      output_init: initializer of the last kernel.
      dtype: compute type of the hidden layers; the last one computes in float32.

    Raises:
      UserError: an unknown name.
    """

    sizes: tuple[int, ...]
    num_classes: int
    activation: str = "relu"
    negative_slope: float | None = None
    dropout_rate: float = 0.0
    dropout_first: bool = False
    final_pool: str = "flatten"
    bins: int | None = None
    dtype: str = "float32"
    kernel_init: Callable[..., Array] = he_fan_in
    bias_init: Callable[..., Array] = nn.initializers.zeros
    output_init: Callable[..., Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 logits `[B, K]`."""
        require_known("final_pool", self.final_pool, FINAL_POOLS)
        if self.bins is not None:
            x = AdaptiveAveragePool(self.bins, name="pool")(x)
        if self.final_pool == "average":
            x = GlobalAveragePool(name="pool")(x)
        else:
            x = x.reshape((x.shape[0], -1))  # [B, *space, C] -> [B, space * C], channels fastest
        for i, size in enumerate(self.sizes, start=1):
            dropout = nn.Dropout(self.dropout_rate, name=f"dropout{i}")
            dense = Dense(size, self.dtype, kernel_init=self.kernel_init, bias_init=self.bias_init, name=f"dense{i}")
            x = dense(dropout(x, deterministic=not train) if self.dropout_first else x)
            x = activation_layer(self.activation, name=f"act{i}", negative_slope=self.negative_slope)(x)
            if not self.dropout_first:
                x = dropout(x, deterministic=not train)
        return nn.Dense(self.num_classes, kernel_init=self.output_init, name="output")(x.astype(jnp.float32))


class ConvHead(nn.Module):
    """Dropout, a 1×1 convolution `output` with a channel for each class, an activation, and the mean over space.

    The classifier without dense layers of Lin et al. 2014, Section 3.2.

    Attributes:
      num_classes: K.
      activation: a key of `ACTIVATIONS`; it stands before the mean.
      dropout_rate: share of the input that training sets to 0.
      kernel_init: initializer of the kernel.
    """

    num_classes: int
    activation: str = "relu"
    dropout_rate: float = 0.0
    kernel_init: Callable[..., Array] = he_fan_in

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 logits `[B, K]`, computed in float32."""
        x = nn.Dropout(self.dropout_rate, name="dropout")(x, deterministic=not train)
        x = Conv(self.num_classes, 1, kernel_init=self.kernel_init, name="output")(x)
        return GlobalAveragePool(name="pool")(activation_layer(self.activation, name="act")(x))
