"""From feature maps to logits: the classifier and its heads."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import activation_layer
from cnn_jax.nn.checks import require_known
from cnn_jax.nn.dense import Dense
from cnn_jax.nn.pool import GlobalAveragePool

FINAL_POOLS = ("flatten", "average")
"""How a `DenseHead` turns the last feature map into a vector."""


class Classifier(nn.Module):
    """A backbone that makes named feature maps, and a head that makes logits of the last one.

    Parameters lie under `backbone/...` and `head/...`; the last layer is `head/output` in every trainable head.

    Attributes:
      backbone: called as `backbone(x, train=...)`; returns a dict of feature maps, the last one entered last.
      head: called as `head(feature_map, train=...)`; returns logits `[B, K]`.
      in_channels: channels of the images, checked at every call.

    Raises:
      UserError: the image has other channels, or not one to three spatial axes.
      ImageTooSmallError: the image is too small for a layer of the backbone.
    """

    backbone: nn.Module
    head: nn.Module
    in_channels: int

    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Computes logits.

        Args:
          x: normalised images, `[B, *space, C]`.
          train: batch statistics and dropout (which needs the "dropout" key), or running statistics and none.

        Returns:
          Logits, float32 `[B, K]`.
        """
        maps = self.features(x, train=train)
        last = tuple(maps.values())[-1]
        return self.head(last, train=train).astype(jnp.float32)

    def features(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """The backbone's named feature maps, in order from the image to the head.

        Address them by name: jit sorts the keys of a dict that it returns.

        Args:
          x: normalised images, `[B, *space, C]`.
          train: as in a call.
        """
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
      final_pool: "flatten" (the input is all of the feature map, so the image size is fixed) or "average" over space.
      dtype: compute type of the hidden layers; the last one computes in float32.

    Raises:
      UserError: an unknown name.
    """

    sizes: tuple[int, ...]
    num_classes: int
    activation: str = "relu"
    negative_slope: float | None = None
    dropout_rate: float = 0.0
    final_pool: str = "flatten"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 logits `[B, K]`."""
        require_known("final_pool", self.final_pool, FINAL_POOLS)
        if self.final_pool == "average":
            x = GlobalAveragePool(name="pool")(x)
        else:
            x = x.reshape((x.shape[0], -1))  # [B, *space, C] -> [B, space * C], channels fastest
        for i, size in enumerate(self.sizes, start=1):
            x = Dense(size, dtype=self.dtype, name=f"dense{i}")(x)
            x = activation_layer(self.activation, name=f"act{i}", negative_slope=self.negative_slope)(x)
            x = nn.Dropout(self.dropout_rate, name=f"dropout{i}")(x, deterministic=not train)
        return nn.Dense(self.num_classes, name="output")(x.astype(jnp.float32))
