"""The handwritten digits that come with scikit-learn: real images without a download."""

import functools
import gzip
import importlib.util
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from cnn_jax.data.source import Source
from cnn_jax.errors import unknown_name

DIGITS_TRAIN_SHARE = 0.8
DIGITS_LEVELS = 16.0


def sklearn_source(name: str, *, directory: str | None, split_seed: int) -> Source:
    """The handwritten digits that come with scikit-learn: 1,797 images of 8×8×1, no download.

    The 17 grey levels 0 … 16 become 0 … 255. Training and test split, 80 % and 20 %, are a fixed permutation of
    `split_seed`.

    Args:
      name: "digits".
      directory: not used; the images are in the package.
      split_seed: seed of the permutation.

    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
    """
    del directory
    if name != "digits":
        raise unknown_name("data set of source 'sklearn'", name, ["digits"])
    images, labels = _read()
    order = np.random.Generator(np.random.PCG64(split_seed)).permutation(len(labels))
    count = int(DIGITS_TRAIN_SHARE * len(labels))
    parts = {"train": order[:count], "test": order[count:]}
    return Source(
        name="sklearn/digits",
        class_names=tuple(str(digit) for digit in range(10)),
        sizes={split: len(index) for split, index in parts.items()},
        load_range=lambda split, start, stop: (images[parts[split][start:stop]], labels[parts[split][start:stop]]),
    )


@functools.cache
def _read() -> tuple[UInt8[np.ndarray, "N 8 8 1"], Int[np.ndarray, "N"]]:
    """Images and labels; reading the text that they are stored as takes a while, and a study builds many runs."""
    levels, targets = _from_file() or _from_library()
    images = np.round(levels * (255.0 / DIGITS_LEVELS)).astype(np.uint8)
    labels = targets.astype(np.int32)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def _from_file() -> tuple[np.ndarray, np.ndarray] | None:
    """Grey levels `[N, 8, 8, 1]` and labels from the file of the package, or None where it has no such file.

    Importing scikit-learn, for its own reader, takes thirty times as long as reading.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        return None
    path = pathlib.Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1]  # [N, 64] -> [N, 8, 8, 1]


def _from_library() -> tuple[np.ndarray, np.ndarray]:
    """The same by scikit-learn's own reader."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.images[..., None], bunch.target  # [N, 8, 8] -> [N, 8, 8, 1]
