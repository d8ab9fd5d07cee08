"""A split in memory, and what must hold before anything is trained on it: known labels, and no shared examples."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from cnn_jax.data.examples import digest_of_arrays
from cnn_jax.errors import UserError


@runtime_checkable
class Located(Protocol):
    """What knows which examples of which base split it holds, and their labels."""

    @property
    def labels(self) -> Int[np.ndarray, "N"]:
        """Class indices."""
        ...

    @property
    def origin(self) -> str:
        """Source, name, version, slice and wrappers, for reports and errors."""
        ...

    @property
    def base(self) -> tuple[str, Int[np.ndarray, "N"]]:
        """The base split, and the indices in it."""
        ...


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """One split in memory.

    Attributes:
      images: channels last.
      labels: class indices in `[0, len(class_names))`.
      class_names: one name per class.
      origin: source, name, version, slice and wrappers, for reports and errors.
      base: the base split, and the index of each example in it.
      corrupt: the images that could not be read and were left out, one line each.
    """

    images: UInt8[np.ndarray, "N *space C"]
    labels: Int[np.ndarray, "N"]
    class_names: tuple[str, ...]
    origin: str
    base: tuple[str, Int[np.ndarray, "N"]]
    corrupt: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`[*space, C]`."""
        return self.images.shape[1:]

    def read(self, index: Int[np.ndarray, "M"]) -> UInt8[np.ndarray, "M *space C"]:
        """Some of the images, as a split that is not in memory has to read them."""
        return self.images[index]

    def description(self) -> dict[str, Any]:
        """What a passport says of the split."""
        return {"origin": self.origin, "examples": len(self), "sha256": self.sha256(), "digest_of": "pixels"}

    def sha256(self) -> str:
        """A digest of shapes, pixels and labels: equal data, equal digest."""
        return digest_of_arrays(self.images, self.labels)


def check_disjoint(splits: Mapping[str, Located]) -> None:
    """Refuse splits that share examples: what was trained on is no measure of anything else.

    Raises:
      UserError: names the two splits.
    """
    for (name, one), (other, two) in itertools.combinations(splits.items(), 2):
        if one.base[0] == two.base[0] and _share(one.base[1], two.base[1]):
            raise UserError(
                f"config.data.splits.{name} and data.splits.{other} share examples: {one.origin} and {two.origin};"
                " evaluate a finished run on its training examples with experiments/evaluate.py --split=train"
            )


def _share(one: Int[np.ndarray, "N"], two: Int[np.ndarray, "M"]) -> bool:
    if not (one.size and two.size) or max(one.min(), two.min()) > min(one.max(), two.max()):
        return False
    return bool(np.isin(one, two).any())


def check_labels(data: Located, num_classes: int) -> None:
    """Refuse labels that a network of `num_classes` outputs cannot be trained on.

    Raises:
      UserError: names the first bad example, its label and the range.
    """
    bad = np.flatnonzero((data.labels < 0) | (data.labels >= num_classes))
    if bad.size:
        raise UserError(
            f"{data.origin}: example {bad[0]} has label {data.labels[bad[0]]}, outside [0, {num_classes});"
            " mend the data or set model.num_classes"
        )
