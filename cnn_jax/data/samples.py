"""Some examples of each class, as they are stored and as training sees them in any epoch."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from cnn_jax.data.examples import Examples, transformed
from cnn_jax.data.order import epoch_order_on_host
from cnn_jax.data.stream import StreamedImages
from cnn_jax.data.transform import training_transform
from cnn_jax.errors import UserError
from cnn_jax.ops.pixels import Channels
from cnn_jax.ops.random import purpose_number
from cnn_jax.types import Batch

Nodes = Sequence[Mapping[str, Any]]


def choose_samples(
    labels: Int[np.ndarray, "N"], usable: Bool[np.ndarray, "N"], *, per_class: int, classes: int, seed: int
) -> Int[np.ndarray, "M"]:
    """Positions of random examples, class by class.

    Args:
      labels: class indices.
      usable: which may be chosen.
      per_class: examples of each class, or as many as there are.
      classes: of those that have one, at most so many, spread evenly over the class indices.
      seed: of the choice.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, purpose_number("samples")], np.uint64)))
    order = generator.permutation(np.flatnonzero(usable))
    present = np.unique(labels[order])
    shown = present[np.linspace(0, len(present) - 1, min(classes, len(present))).round().astype(np.int64)]
    return np.concatenate([order[labels[order] == label][:per_class] for label in shown] or [order])


def batches_in_memory(
    examples: Examples,
    indices: Int[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    *,
    positions: Int[np.ndarray, "M"],
    channels: Channels | None,
    transforms: Nodes,
    epochs: int,
) -> Iterator[Batch]:
    """For each epoch the batch of some examples that are transformed once and held in memory; all but `epoch` is equal.

    Args:
      examples: of the base split.
      indices: of the split's examples in it, those that can be read: an example's place here is its `id`.
      labels: their class indices.
      positions: which of them.
      channels: of `pixels_of`.
      transforms: checked nodes of HOST_TRANSFORMS, none of them random.
      epochs: how many.

    Raises:
      UserError: the images are of different sizes.
    """
    chosen = [examples[int(index)] for index in indices[positions]]
    images = [transformed(one, transforms, channels=channels, generator=None) for one in chosen]
    for one, image in zip(chosen, images, strict=True):
        if image.shape != images[0].shape:
            shapes = ["×".join(map(str, shape)) for shape in (image.shape, images[0].shape)]
            raise UserError(
                f"{one.name} is {shapes[0]}, {chosen[0].name} is {shapes[1]}; only equal-sized images make a batch: add"
                " data.transforms such as resize and center_crop"
            )
    for epoch in range(epochs):
        yield _batch(np.stack(images), labels, positions, epoch)


def streamed_batches(
    split: StreamedImages, *, positions: Int[np.ndarray, "M"], seed: int, epochs: int
) -> Iterator[Batch]:
    """For each epoch the batch of some examples of a stream, with the pixels that training has in this epoch.

    Args:
      split: with its random transforms.
      positions: which examples, each once.
      seed: the run's.
      epochs: how many.

    Raises:
      UserError: the images are of different sizes.
    """
    # With a whole epoch as the batch, step e is epoch e, and only the rows of these examples are read.
    for epoch in range(epochs):
        rows = np.flatnonzero(np.isin(epoch_order_on_host(seed, epoch, len(split)), positions))
        batches = split.training_batches(seed=seed, start=epoch, batch_size=len(split), rows=rows)
        with contextlib.closing(batches):
            batch = next(batches)
        place = np.argsort(batch["id"])[np.argsort(np.argsort(positions))]
        yield _batch(batch["image"][place], split.labels, positions, epoch)


def _batch(
    images: np.ndarray, labels: Int[np.ndarray, "N"], positions: Int[np.ndarray, "M"], epoch: int
) -> dict[str, np.ndarray]:
    return {
        "image": images,
        "label": labels[positions],
        "mask": np.ones(len(positions), np.float32),
        "id": positions.astype(np.int32),
        "epoch": np.full(len(positions), epoch, np.int32),
    }


def augmented(
    key: Key[Array, ""], batches: Iterator[Batch], *, augmentations: Nodes, num_classes: int
) -> Iterator[Float[Array, "M *space C"]]:
    """The images of batches after the augmentations, in [0, 1], not normalised.

    A mixing takes its partners from the batch: in training they are others.

    Args:
      key: the run's key.
      batches: of one shape, with `id` and `epoch`.
      augmentations: checked nodes, as of `training_transform`.
      num_classes: K.
    """

    @jax.jit
    def augment(key: Key[Array, ""], batch: Batch) -> Float[Array, "M *space C"]:
        channels = batch["image"].shape[-1]
        same = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
        return training_transform(key, batch, augmentations=augmentations, num_classes=num_classes, **same)["image"]

    for batch in batches:
        yield augment(key, jax.tree.map(jnp.asarray, batch))
