"""Which examples make a batch: a pure function of (seed, step) for training, and an exact cover for evaluation."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from cnn_jax.data.order import epoch_order_on_host
from cnn_jax.data.sources import LabelledImages


def training_batch(
    data: LabelledImages, *, seed: int, step: int, batch_size: int, rows: Int[np.ndarray, "rows"] | None = None
) -> dict[str, np.ndarray]:
    """The batch of one training step.

    Epochs follow each other without a gap: step s holds positions `s * B` to `s * B + B - 1` of the endless sequence
    of permuted epochs. Every batch is full, every example is used exactly once an epoch, and the sequence of examples
    is the same for every batch size.

    Args:
      data: the training split.
      seed: the run's seed.
      step: optimizer steps done before this one.
      batch_size: B.
      rows: which of the B rows to read, ascending: those of one process; all where it is None.

    Returns:
      `image` uint8 `[B, *space, C]`, `label` int32 `[B]`, `mask` float32 `[B]`, `id` int32 `[B]`, `epoch` int32 `[B]`,
      or as many as `rows` has.
    """
    index, epoch = training_examples(len(data), seed=seed, step=step, batch_size=batch_size, rows=rows)
    return {
        "image": data.images[index],
        "label": data.labels[index],
        "mask": np.ones(len(index), np.float32),
        "id": index,
        "epoch": epoch,
    }


def training_examples(
    examples: int, *, seed: int, step: int, batch_size: int, rows: Int[np.ndarray, "rows"] | None
) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
    """Which examples, and in which epoch, the rows of the batch of one training step are; both int32.

    Args:
      examples: N, the size of the split.
      seed: the run's seed.
      step: optimizer steps done before this one.
      batch_size: B.
      rows: as in `training_batch`.
    """
    position = step * batch_size + (np.arange(batch_size, dtype=np.int64) if rows is None else rows)
    epoch, offset = np.divmod(position, examples)
    epochs = range(int(epoch[0]), int(epoch[-1]) + 1)
    index = np.concatenate([epoch_order_on_host(seed, e, examples)[offset[epoch == e]] for e in epochs])
    return index, epoch.astype(np.int32)


def evaluation_batches(
    data: LabelledImages, *, batch_size: int, multiple_of: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Every example exactly once, in order, in batches of one shape; the tail is padded and masked.

    Args:
      data: the split.
      batch_size: examples per batch, at most; a split that is smaller makes one batch of its own size.
      multiple_of: the number of devices a batch is divided over; batches are rounded up to it.
    """
    for start, stop, size in evaluation_ranges(len(data), batch_size=batch_size, multiple_of=multiple_of):
        padding = size - (stop - start)
        yield {
            "image": _padded(data.images[start:stop], padding),
            "label": _padded(data.labels[start:stop], padding),
            "mask": _padded(np.ones(stop - start, np.float32), padding),
        }


def evaluation_ranges(examples: int, *, batch_size: int, multiple_of: int) -> list[tuple[int, int, int]]:
    """(first, past-the-last example, rows with padding) of each batch; arguments as in `evaluation_batches`."""
    size = -(-min(batch_size, examples) // multiple_of) * multiple_of
    return [(start, min(start + size, examples), size) for start in range(0, examples, size)]


def _padded(values: np.ndarray, padding: int) -> np.ndarray:
    """Append `padding` zeros along the first axis."""
    return np.pad(values, [(0, padding)] + [(0, 0)] * (values.ndim - 1)) if padding else values
