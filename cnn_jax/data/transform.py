"""What a batch goes through on the device, inside the step: to float32, augmented, normalised."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from cnn_jax.data.augment import AUGMENTATIONS, BY_EPOCH, GEOMETRIC, IN_PLACE
from cnn_jax.data.augment.mixing import MIXINGS
from cnn_jax.data.augment.warp import warp_boxes, warp_segmentation
from cnn_jax.errors import UserError
from cnn_jax.ops.random import example_keys, named_key
from cnn_jax.types import Batch

MOST = 257 / 65536
REST = 1 / 255 - MOST
"""1 / 255, less that number of nine bits."""


def to_float(images: UInt8[Array, "B *space C"]) -> Float[Array, "B *space C"]:
    """uint8 in [0, 255] to float32 in [0, 1]: the nearest numbers to level / 255.

    XLA makes the division a multiplication, whose rounding it leaves out in programs that add something at once (by a
    fused multiplication and addition), and not in others: the same images would differ from program to program. Here
    the first product is exact for all 256 levels, and the sum the same with and without the second one's rounding.
    """
    levels = images.astype(jnp.float32)
    return levels * MOST + levels * REST


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
    num_classes: int | None = None,
    mean: Sequence[float],
    std: Sequence[float],
) -> Batch:
    """As `evaluation_transform`, with augmentations before the normalisation.

    Where the batch has `boxes` or a `segmentation`, they move with the pixels.

    Args:
      key: the run's key.
      batch: with `id` and `epoch`, from which each example's own key is derived.
      augmentations: `{name, **options}` nodes, applied in order; names are those of AUGMENTATIONS and MIXINGS.
      num_classes: K, which a mixing needs: the first one makes `target` of `label`, where the batch has none.
      mean: per channel, in units of [0, 1].
      std: per channel, in units of [0, 1].

    Raises:
      UserError: a mixing without classes, or of a batch with boxes or segmentation maps; an augmentation that moves
        pixels, but not the boxes or segmentation maps that the batch has, or not in so many axes of space.
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
        if node["name"] in MIXINGS:
            targets = _targets(batch, node["name"], num_classes)
            images, targets = MIXINGS[node["name"]](keys, images, targets, batch["mask"], **options)
            batch = {**batch, "target": targets}
            continue
        size, images = images.shape[1:-1], AUGMENTATIONS[node["name"]](keys, images, **options)
        if node["name"] not in IN_PLACE and ("boxes" in batch or "segmentation" in batch):
            batch = _moved(keys, batch, node["name"], options, size=size, target=images.shape[1:-1])
    return {**batch, "image": normalise(images, mean=mean, std=std)}


def _moved(
    keys: Key[Array, "B"],
    batch: Batch,
    name: str,
    options: Mapping[str, Any],
    *,
    size: tuple[int, ...],
    target: tuple[int, ...],
) -> Batch:
    """The batch with boxes and segmentation maps where a geometric augmentation has taken their pixels."""
    if name not in GEOMETRIC:
        raise UserError(
            f"config.data.augment: {name!r} moves pixels, but not boxes or segmentation maps; with these, use "
            f"{', '.join(sorted([*GEOMETRIC, *IN_PLACE]))}"
        )
    if len(size) != 2:
        raise UserError(
            f"config.data.augment: {name!r} moves boxes and segmentation maps of images [B, H, W, C] only, "
            f"these have {len(size)} axes of space"
        )
    # The augmentation's own defaults are those of its matrices: they stand in one signature only.
    parameters = inspect.signature(AUGMENTATIONS[name]).parameters.values()
    known = {parameter.name: parameter.default for parameter in parameters} | dict(options)
    known |= {"keys": keys, "size": size, "target": target}
    height, width = target
    matrices = GEOMETRIC[name](**{name: known[name] for name in inspect.signature(GEOMETRIC[name]).parameters})
    moved = {}
    if "boxes" in batch:
        moved["boxes"] = warp_boxes(batch["boxes"], matrices, size=(height, width))
    if "segmentation" in batch:
        # What has no option for its border never looks outside.
        mode = known.get("mode", "zero")
        moved["segmentation"] = warp_segmentation(batch["segmentation"], matrices, mode=mode, size=(height, width))
    return {**batch, **moved}


def _targets(batch: Batch, mixing: str, num_classes: int | None) -> Float[Array, "B K"]:
    """What a mixing mixes beside the images: the targets of the one before it, or one-hot labels."""
    unmixed = [name for name in ("boxes", "segmentation") if name in batch]
    if unmixed:
        raise UserError(f"config.data.augment: {mixing!r} mixes images and classes, but the batch has {unmixed[0]!r}")
    if "target" in batch:
        return batch["target"]
    if num_classes is None:
        raise UserError(f"config.data.augment: {mixing!r} mixes classes; give num_classes")
    return jax.nn.one_hot(batch["label"], num_classes, dtype=jnp.float32)
