"""One base split of a source, whatever it is stored in: length, random access, labels and a description."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int


class Example(NamedTuple):
    """One labelled image as it is stored.

    Attributes:
      image: the content of an image file, or pixels uint8 `[*space, C]`.
      label: class index.
      name: where it comes from, for errors and reports: a path, or such as `train[17]`.
    """

    image: bytes | np.ndarray
    label: int
    name: str


@runtime_checkable
class Examples(Protocol):
    """The examples of one base split; pickled into the processes that decode, so it holds paths, not open files."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> Example:
        """One example; an image that cannot be read raises `CorruptImageError`."""
        ...

    def labels(self) -> Int[np.ndarray, "N"]:
        """All class indices, without reading an image where the storage allows it."""
        ...

    def description(self) -> Mapping[str, Any]:
        """What makes the content: `sha256`, and `digest_of`, "contents" or, for many large files, "names and sizes"."""
        ...
