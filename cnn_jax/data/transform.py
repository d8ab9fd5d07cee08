"""What a batch goes through on the device, inside the step: to float32, augmented, normalised."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from cnn_jax.data.augment import AUGMENTATIONS, BY_EPOCH
from cnn_jax.ops.random import example_keys, named_key
from cnn_jax.types import Batch


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
