"""The peer of the data benchmark: `tf.data`, which augments whole batches, in TensorFlow's own environment.

Images are uint8 in memory; batches are float32 `[B, H, W, C]`. One JSON object a line comes in and one goes out, see
`cnn_jax/benchmark/data_worker.py`.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

SETTLE = 16
"""More batches than `tf.data` makes before they are asked for."""


def draws(row: dict, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the windows begin in the padded images, `[B, 2]`, and which of them are mirrored, `[B]`."""
    starts = tf.random.uniform((count, 2), 0, 2 * row["padding"] + 1, tf.int32)
    return starts, tf.random.uniform((count,)) < 0.5


def transform(row: dict, images: tf.Tensor) -> tf.Tensor:
    """Crop and flip by the operation that transforms a batch of images, each by its own matrix."""
    starts, flip = draws(row, tf.shape(images)[0])
    size = row["image"][0]
    top, left = (tf.cast(starts[:, axis] - row["padding"], tf.float32) for axis in (0, 1))
    zero = tf.zeros_like(top)
    rows = [tf.where(flip, -1.0, 1.0), zero, left + tf.where(flip, size - 1.0, 0.0), zero, zero + 1, top, zero, zero]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(rows, axis=1),
        output_shape=tf.constant([size, size]),
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )


def gather(row: dict, images: tf.Tensor) -> tf.Tensor:
    """Crop and flip by gathering pixels of the padded batch."""
    (size, _, channels), padding, count = row["image"], row["padding"], tf.shape(images)[0]
    starts, flip = draws(row, count)
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    side, along = size + 2 * padding, tf.range(size)
    rows = tf.range(count)[:, None] * side + starts[:, :1] + along
    columns = starts[:, 1:] + tf.where(flip[:, None], size - 1 - along, along)
    # [B, H, W, C] -> [B·H·W, C]
    return tf.gather(tf.reshape(padded, [-1, channels]), rows[:, :, None] * side + columns[:, None, :])


def shuffled(row: dict) -> tf.data.Dataset:
    """Indices of batches, `[B]`, from the buffer of `Dataset.shuffle`."""
    indices = tf.data.Dataset.range(row["examples"]).shuffle(row["examples"]).repeat()
    return indices.batch(row["batch_size"], drop_remainder=True)


def permuted(row: dict) -> tf.data.Dataset:
    """Indices of batches, `[B]`, from a permutation of each epoch."""
    size, examples = row["batch_size"], row["examples"]
    used = examples // size * size

    def order(_: tf.Tensor) -> tf.data.Dataset:
        # [N] -> [N / B, B]
        return tf.data.Dataset.from_tensor_slices(tf.reshape(tf.random.shuffle(tf.range(examples))[:used], [-1, size]))

    return tf.data.Dataset.range(1).repeat().flat_map(order)


Indices = Callable[[dict], tf.data.Dataset]
Crop = Callable[[dict, tf.Tensor], tf.Tensor]
VARIANTS: dict[str, tuple[Indices, Crop]] = {
    "shuffle, transform": (shuffled, transform),
    "permutation, transform": (permuted, transform),
    "permutation, gather": (permuted, gather),
}


def make_batches(row: dict, variant: str) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Batches without end, each epoch in another order."""
    indices, crop = VARIANTS[variant]
    everything = tf.random.uniform((row["examples"], *row["image"]), 0, 256, tf.int32)
    images, labels = tf.cast(everything, tf.uint8), tf.random.uniform((row["examples"],), 0, 10, tf.int32)

    def make(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.cast(crop(row, tf.gather(images, index)), tf.float32)
        return (pixels / 255.0 - row["mean"]) / row["std"], tf.gather(labels, index)

    made = indices(row).map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return iter(made.prefetch(tf.data.AUTOTUNE))


def main() -> None:
    """Answer requests until the standard input ends."""
    prepared: dict[str, Iterator[tuple[tf.Tensor, tf.Tensor]]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict = {}
        started = time.perf_counter()
        if request["do"] == "describe":
            answer["examples"] = request["row"]["batch_size"]
            answer["versions"] = {"tensorflow": tf.__version__}
            answer["variants"] = list(VARIANTS)
        elif request["do"] == "prepare":
            batches = prepared[request["variant"]] = make_batches(request["row"], request["variant"])
            for _ in range(request["warm_up"]):
                next(batches)
            answer["seconds"] = time.perf_counter() - started
        elif request["do"] == "sample":
            sample, labels = (values.numpy() for values in next(prepared[request["variant"]]))
            answer = {"shape": [*sample.shape], "type": str(sample.dtype), "labels": len(labels)}
            answer |= {"mean": float(sample.mean()), "std": float(sample.std())}
        else:
            batches = prepared[request["variant"]]
            for _ in range(SETTLE):
                next(batches)  # made in the other side's time, so not counted
            started = time.perf_counter()
            for _ in range(request["steps"]):
                next(batches)
            answer["seconds"] = time.perf_counter() - started
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
