"""The capsule network: Sabour et al. 2017, "Dynamic routing between capsules"."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cnn_jax.models.capsules import RoutedCapsules, keep_one, lengths, squash
from cnn_jax.nn.activation import activation_layer, require_activation
from cnn_jax.nn.channels import require_width_multiplier, scaled_channels
from cnn_jax.nn.checks import require_classifier, require_positive
from cnn_jax.nn.conv import Conv
from cnn_jax.nn.dense import Dense
from cnn_jax.nn.heads import Classifier

DECODER_SIZES = (512, 1024)
"""Hidden units of the decoder: Fig. 2."""


class PrimaryCapsules(nn.Module):
    """A 9×9 convolution, a second one of stride 2 whose channels are capsules, and their squashing (Section 4).

    Returns `{"stem": ..., "primary": ...}`, strides 1 and 2: of n pixels the first makes n - 8, the second
    floor((n - 17) / 2) + 1. The channels of "primary" are `types` capsules of `size` channels each.

    Attributes:
      features: channels of the first convolution.
      types: capsules at each position.
      size: channels of a capsule.
      activation: a key of `ACTIVATIONS`, behind the first convolution.
      dtype: compute type, "float32" or "bfloat16".
    """

    features: int
    types: int
    size: int
    activation: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps; equal for both values of `train`."""
        del train  # Nothing here differs in training.
        stem = Conv(self.features, 9, padding="valid", dtype=self.dtype, name="stem")(x)
        stem = activation_layer(self.activation, name="act")(stem)
        conv = Conv(self.types * self.size, 9, stride=2, padding="valid", dtype=self.dtype, name="primary")
        y = conv(stem).astype(jnp.float32)
        # [B, *space, types * size] -> [B, *space, types, size] -> [B, *space, types * size]
        capsules = squash(y.reshape((*y.shape[:-1], self.types, self.size))).reshape(y.shape)
        return {"stem": stem, "primary": capsules.astype(self.dtype)}


class CapsuleHead(nn.Module):
    """A capsule for each class, `output`; the logits are their lengths, between 0 and 1.

    Attributes:
      num_classes: K.
      primary_size: channels of a capsule of the feature map.
      size: D, numbers in a capsule's vector.
      iterations: of the routing.
    """

    num_classes: int
    primary_size: int
    size: int
    iterations: int

    def setup(self) -> None:
        """Makes the layer of capsules."""
        self.output = RoutedCapsules(self.num_classes, self.size, self.iterations)

    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 lengths `[B, K]`; equal for both values of `train`."""
        del train  # Heads have one signature.
        return lengths(self.capsules(x))

    def capsules(self, x: Float[Array, "B *space C"]) -> Float[Array, "B K D"]:
        """The capsules of `[B, *space, C]`, float32 `[B, K, D]`."""
        return self.output(x.reshape((x.shape[0], -1, self.primary_size)))  # [B, *space, C] -> [B, N, d]


class Decoder(nn.Module):
    """Three dense layers from the capsules to an image, the last one with a sigmoid (Section 4.1, Fig. 2).

    Parameters lie under `dense1`, `dense2` and `output`.

    Attributes:
      dtype: compute type of the hidden layers; the last one computes in float32.
    """

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B K D"], *, image_shape: tuple[int, ...]) -> Float[Array, "B *space C"]:
        """Maps `[B, K, D]` to float32 images `[B, *image_shape]` with values from 0 to 1."""
        x = x.reshape((x.shape[0], -1))  # [B, K, D] -> [B, K * D]
        for i, size in enumerate(DECODER_SIZES, start=1):
            x = nn.relu(Dense(size, dtype=self.dtype, name=f"dense{i}")(x))
        x = nn.Dense(math.prod(image_shape), name="output")(x.astype(jnp.float32))
        return nn.sigmoid(x).reshape((-1, *image_shape))  # [B, space * C] -> [B, *space, C]


class CapsuleNetwork(Classifier, kw_only=True):
    """A classifier whose head has a vector for each class, and a decoder that draws the image from one of them.

    A call gives the lengths; `capsules` and `reconstruct` are there besides. The decoder's parameters lie under
    `decoder/...`; logits do not depend on them. Both they and the head's depend on the size of the images.

    Attributes:
      decoder: called as `decoder(capsules, image_shape=...)`.

    Example:
      >>> import jax
      >>> model = capsule_network(num_classes=10, width_multiplier=0.05)
      >>> images = jnp.zeros((2, 28, 28, 1))
      >>> variables = jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))
      >>> def draw(variables, images):
      ...     vectors = model.apply(variables, images, method="capsules")
      ...     return vectors, model.apply(variables, vectors, image_shape=(28, 28, 1), method="reconstruct")
      >>> vectors, drawn = jax.eval_shape(draw, variables, images)
      >>> vectors.shape, drawn.shape
      ((2, 10, 16), (2, 28, 28, 1))
    """

    decoder: nn.Module

    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Computes the lengths of the capsules, float32 `[B, K]`; equal for both values of `train`."""
        if self.is_initializing():
            self.reconstruct(self.capsules(x), image_shape=x.shape[1:])
        return super().__call__(x, train=train)

    def capsules(self, x: Float[Array, "B *space C"]) -> Float[Array, "B K D"]:
        """The capsules of images, float32 `[B, K, D]`: vectors, one for each class."""
        return self.head.capsules(tuple(self.features(x, train=False).values())[-1])

    def reconstruct(
        self,
        capsules: Float[Array, "B K D"],
        *,
        image_shape: tuple[int, ...],
        labels: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B *space C"]:
        """Images drawn from one capsule of each example, the others being set to 0 (Section 4.1).

        Args:
          capsules: as `capsules` gives them.
          image_shape: `[*space, C]` of the images.
          labels: which capsule draws, int32 `[B]`: the true class, in training; None: the longest one.

        Returns:
          Images with values from 0 to 1, float32.
        """
        return self.decoder(keep_one(capsules, labels=labels), image_shape=tuple(image_shape))


def capsule_network(
    *,
    num_classes: int,
    in_channels: int = 1,
    width_multiplier: float = 1.0,
    primary_size: int = 8,
    capsule_size: int = 16,
    routing_iterations: int = 3,
    activation: str = "relu",
    dtype: str = "float32",
) -> CapsuleNetwork:
    """The capsule network for images of one size, for any number of space axes; in the paper 28×28 with one channel.

    Input `[B, *space, in_channels]` with 17 pixels per axis or more; logits `[B, num_classes]` are the lengths of the
    capsules, between 0 and 1, which the loss "margin_loss" is for. Feature maps: `stem` (stride 1) and `primary` (2).
    Kernels start as He et al. 2015 (Eq. 10, fan-in), transformations with deviation 0.1. With ten classes and 28×28×1
    it has 8,215,568 parameters, 1,411,344 of them in the decoder. The paper adds 0.0005 times the reconstruction's
    summed squared error to the loss.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      width_multiplier: of the first convolution's 256 channels and the 32 capsules at each position, rounded.
      primary_size: channels of a primary capsule.
      capsule_size: numbers in the vector of a class's capsule.
      routing_iterations: see `route`.
      activation: a key of `nn.activation.ACTIVATIONS`, behind the first convolution.
      dtype: compute type, "float32" or "bfloat16"; routing computes in float32.

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=0.0, dtype=dtype)
    require_width_multiplier(width_multiplier)
    require_positive("primary_size", primary_size)
    require_positive("capsule_size", capsule_size)
    require_positive("routing_iterations", routing_iterations)
    require_activation(activation)
    return CapsuleNetwork(
        backbone=PrimaryCapsules(
            features=scaled_channels(256, multiplier=width_multiplier),
            types=scaled_channels(32, multiplier=width_multiplier, divisor=1),
            size=primary_size,
            activation=activation,
            dtype=dtype,
        ),
        head=CapsuleHead(
            num_classes=num_classes,
            primary_size=primary_size,
            size=capsule_size,
            iterations=routing_iterations,
        ),
        in_channels=in_channels,
        decoder=Decoder(dtype=dtype),
    )
