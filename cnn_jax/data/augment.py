"""Augmentation and normalisation on the device, inside the step.

An augmentation is a pure function `(keys, images, *, options) -> images` with one key per example, so that the pixels
of example i in epoch e are the same for every batch size, device count and restart.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8
from pydantic import Field

from cnn_jax.ops.random import example_keys, named_key
from cnn_jax.types import Batch


def random_flip(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], *, probability: Annotated[float, Field(ge=0, le=1)] = 0.5
) -> Float[Array, "B *space C"]:
    """Mirror each image along its last spatial axis (left to right) with the given probability."""
    return _mirror(jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys), images)


def alternating_flip(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], *, epoch: Int[Array, "B"]
) -> Float[Array, "B *space C"]:
    """Mirror a random half of the examples in even epochs and the other half in odd ones.

    In any two epochs that follow each other the network sees both sides of every example, where independent flips
    repeat a side half of the time (Jordan 2024, Section 3.6).

    Args:
      keys: one per example, the same in every epoch.
      images: `[B, *space, C]`.
      epoch: the pass over the data that each example is in.
    """
    first = jax.vmap(jax.random.bernoulli)(keys)
    return _mirror(first ^ (epoch % 2 == 1), images)


def _mirror(flip: Bool[Array, "B"], images: Float[Array, "B *space C"]) -> Float[Array, "B *space C"]:
    """Mirror the images whose flag is set along their last spatial axis."""
    # [B] -> [B, 1, ..., 1]
    flip = flip.reshape(-1, *[1] * (images.ndim - 1))
    return jnp.where(flip, jnp.flip(images, axis=-2), images)


def random_crop(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    padding: Annotated[int, Field(ge=1)] = 4,
    mode: Literal["zero", "reflect"] = "zero",
) -> Float[Array, "B *space C"]:
    """Pad every spatial side by `padding` pixels, then crop a window of the original size at a random place.

    He et al. 2016, section 4.2, with 4 pixels of zeros. Zero is black: augmentation comes before normalisation.
    """
    rank = images.ndim - 2
    width = [(0, 0), *[(padding, padding)] * rank, (0, 0)]
    padded = jnp.pad(images, width, mode="constant" if mode == "zero" else "reflect")

    def crop(key: Key[Array, ""], image: Float[Array, "*padded C"]) -> Float[Array, "*space C"]:
        start = jax.random.randint(key, (rank,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(image, (*start, 0), images.shape[1:])

    return jax.vmap(crop)(keys, padded)


AUGMENTATIONS: dict[str, Callable[..., Array]] = {
    "random_flip": random_flip,
    "alternating_flip": alternating_flip,
    "random_crop": random_crop,
}

BY_EPOCH = ("alternating_flip",)
"""Augmentations that take the epoch itself, and keys that depend on the example alone."""


def to_float(images: UInt8[Array, "B *space C"]) -> Float[Array, "B *space C"]:
    """uint8 in [0, 255] to float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def normalise(
    images: Float[Array, "B *space C"], *, mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "B *space C"]:
    """Subtract the mean and divide by the deviation of each channel, both in units of [0, 1]."""
    # [C] -> [1, ..., 1, C]
    shape = (*[1] * (images.ndim - 1), images.shape[-1])
    return (images - jnp.asarray(mean, jnp.float32).reshape(shape)) / jnp.asarray(std, jnp.float32).reshape(shape)


def evaluation_transform(batch: Batch, *, mean: Sequence[float], std: Sequence[float]) -> Batch:
    """What every batch goes through before the network: float32 in [0, 1], then normalised."""
    return {**batch, "image": normalise(to_float(batch["image"]), mean=mean, std=std)}


def training_transform(
    key: Key[Array, ""],
    batch: Batch,
    *,
    augmentations: Sequence[Mapping[str, Any]],
    mean: Sequence[float],
    std: Sequence[float],
) -> Batch:
    """As `evaluation_transform`, with augmentations before the normalisation.

    Args:
      key: the run's key.
      batch: with `id` and `epoch`, from which each example's own key is derived.
      augmentations: `{name, **options}` nodes, applied in order; names are those of AUGMENTATIONS.
      mean: per channel, in units of [0, 1].
      std: per channel, in units of [0, 1].
    """
    images = to_float(batch["image"])
    for position, node in enumerate(augmentations):
        # The position keeps two uses of the same augmentation apart.
        purpose = named_key(key, f"augment/{position}/{node['name']}")
        options = {name: value for name, value in node.items() if name != "name"}
        epoch = batch["epoch"]
        if node["name"] in BY_EPOCH:
            options["epoch"], epoch = epoch, jnp.zeros_like(epoch)
        keys = example_keys(purpose, epoch, batch["id"])
        images = AUGMENTATIONS[node["name"]](keys, images, **options)
    return {**batch, "image": normalise(images, mean=mean, std=std)}
