"""Names of splits in files, and a division of examples into splits for data that comes without one."""

import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from cnn_jax.errors import UserError

SHARES: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The splits of data that comes without splits."""
SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""How folders and files spell the names of splits."""
LARGEST_HASHED = 2**30
"""Bytes of files whose contents are read for a digest."""


def stratified_split(
    names: Sequence[str], labels: Sequence[int], *, shares: Mapping[str, float], seed: int
) -> dict[str, Int[np.ndarray, "_"]]:
    """Divide the examples of each class by chance.

    The order within a class is that of a digest of the seed and the example's name: it does not depend on the other
    examples, on the order in which they are given, or on the machine. Splits without an example are left out.

    Args:
      names: of the examples, all different.
      labels: their class indices.
      shares: of each split, which sum to 1; the ends of the splits in a class are rounded.
      seed: of the division.

    Returns:
      For each split the positions of its examples, ascending.

    Raises:
      UserError: the shares do not sum to 1.

    Example:
      >>> parts = stratified_split(list("abcdefghij"), [0] * 10, shares={"train": 0.8, "test": 0.2}, seed=0)
      >>> [len(rows) for rows in parts.values()]
      [8, 2]
    """
    ends = np.cumsum(list(shares.values()))
    if abs(ends[-1] - 1) > 1e-6 or min(shares.values()) < 0:
        raise UserError(f"shares {dict(shares)} must be positive and sum to 1")
    classes: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        classes.setdefault(label, []).append(position)
    parts: dict[str, list[int]] = {split: [] for split in shares}
    for members in classes.values():
        ordered = sorted(members, key=lambda position: _rank(names[position], seed))
        start = 0
        for split, end in zip(shares, ends, strict=True):
            stop = round(end * len(members))
            parts[split] += ordered[start:stop]
            start = stop
    return {split: np.sort(np.asarray(rows, np.int64)) for split, rows in parts.items() if rows}


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/".encode() + os.fsencode(name)).digest()
