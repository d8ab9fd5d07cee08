"""A data set: named base splits, slices and selections of them, read one by one or loaded into memory."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8

from cnn_jax.data.decoded import stack_images
from cnn_jax.data.examples import ArrayExamples, Examples, transformed
from cnn_jax.data.labelled import LabelledImages
from cnn_jax.data.wrappers import apply_wrappers, describe_wrappers
from cnn_jax.errors import CorruptImageError, UserError, unknown_name
from cnn_jax.ops.pixels import Channels
from cnn_jax.untrusted import one_line

SLICE = re.compile(r"(?P<split>\w+)(\[(?P<start>\d+%?)?:(?P<stop>\d+%?)?\])?")
MAX_CORRUPT = 100
MOST_CLASSES = 2**20
"""A larger label is no class: memory would go to the names of classes that nobody has."""

LONGEST_NAME = 1000
"""Characters of a class's name; ImageNet's longest, with all synonyms, has 121."""

Node = Mapping[str, Any]
Arrays = tuple[UInt8[np.ndarray, "N *space C"], Int[np.ndarray, "N"]]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which examples of a base split make a split.

    Attributes:
      split: the base split.
      indices: of the examples in it, int64.
      labels: their class indices, int32; noise may have changed them.
      origin: source, slice and wrappers with their options, for reports and errors.
    """

    split: str
    indices: Int[np.ndarray, "N"]
    labels: Int[np.ndarray, "N"]
    origin: str

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def base(self) -> tuple[str, Int[np.ndarray, "N"]]:
        """The base split, and the indices in it."""
        return self.split, self.indices


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set whose base splits are read on demand; it has `load_range`, `examples_of`, or both.

    Attributes:
      name: for reports and errors.
      class_names: one name per class.
      sizes: examples in each base split.
      load_range: base split name, first and past-the-last index to (images uint8 `[N, *space, C]`, labels int32 `[N]`):
        the fast way to load.
      examples_of: base split name to its examples.
      channels: that image files are decoded to; None is what each file has.
    """

    name: str
    class_names: tuple[str, ...]
    sizes: Mapping[str, int]
    load_range: Callable[[str, int, int], tuple[np.ndarray, np.ndarray]] | None = None
    examples_of: Callable[[str], Examples] | None = None
    channels: Channels | None = None

    def bounds(self, spec: str) -> tuple[str, int, int]:
        """The base split, first and past-the-last index of a split or slice such as `train[:90%]`.

        Raises:
          UserError: the text is no slice, names no split, or selects nothing.
        """
        match = SLICE.fullmatch(spec)
        if not match:
            raise UserError(f"split {spec!r} is not understood; write a name or a slice such as 'train[:90%]'")
        split = match["split"]
        if split not in self.sizes:
            raise unknown_name(f"split of {self.name}", split, self.sizes)
        size = self.sizes[split]
        start, stop = _index(match["start"], 0, size), _index(match["stop"], size, size)
        if start >= stop:
            raise UserError(f"split {spec!r} of {self.name} is empty: {split!r} has {size} examples")
        return split, start, stop

    def examples(self, split: str) -> Examples:
        """The examples of a base split, with random access.

        Raises:
          UserError: no such split, or it cannot be read.
        """
        if split not in self.sizes:
            raise unknown_name(f"split of {self.name}", split, self.sizes)
        if self.examples_of is not None:
            return self.examples_of(split)
        if self.load_range is None:
            raise UserError(f"{self.name} has neither arrays nor examples")
        return ArrayExamples(*self.load_range(split, 0, self.sizes[split]), f"{self.name}/{split}")

    def select(self, spec: str, wrappers: Sequence[Node]) -> Selection:
        """The examples of a split or slice that are left after the wrappers, in the order of the base split.

        Args:
          spec: a split or slice.
          wrappers: checked `{name, **options}` nodes, applied in order; names are those of WRAPPERS.

        Raises:
          UserError: as `bounds`, a wrapper does not suit the data, or nothing is left.
        """
        split, start, stop = self.bounds(spec)
        return self._selection(spec, wrappers, self.examples(split).labels()[start:stop])

    def _selection(self, spec: str, wrappers: Sequence[Node], labels: Int[np.ndarray, "N"]) -> Selection:
        split, start, stop = self.bounds(spec)
        origin = f"{self.name}/{spec}{describe_wrappers(wrappers)}"
        indices, labels = np.arange(start, stop, dtype=np.int64), labels.astype(np.int32)
        if wrappers and labels.min() < 0:
            first = int(np.argmax(labels < 0))
            raise UserError(
                f"{origin}: example {first} has label {labels[first]}, no class; wrappers need the labels; mend the"
                " data, or leave the wrappers out"
            )
        try:
            indices, labels = apply_wrappers(indices, labels, wrappers)
        except UserError as error:
            raise UserError(f"{origin}: {error}") from None
        if not len(indices):
            raise UserError(f"{origin} is empty: no example is left")
        return Selection(split, indices, labels, origin)

    def load(
        self,
        spec: str,
        *,
        wrappers: Sequence[Node] = (),
        transforms: Sequence[Node] = (),
        channels: Channels | None = None,
        on_corrupt: Literal["error", "skip"] = "error",
        max_corrupt: int = MAX_CORRUPT,
    ) -> LabelledImages:
        """Load a split or slice into memory.

        Args:
          spec: a split or slice.
          wrappers: as of `select`.
          transforms: checked `{name, **options}` nodes of HOST_TRANSFORMS that are not random, applied in order.
          channels: 1 is grey, 3 RGB, 4 RGBA; None is the source's own.
          on_corrupt: what an image that cannot be read does: end it all, or be left out and listed.
          max_corrupt: images that may be left out.

        Raises:
          UserError: as `select`, images cannot be read, or are of different sizes.
        """
        if self.load_range is not None and not transforms and channels in (None, self.channels):
            split, start, stop = self.bounds(spec)
            try:
                images, labels = self.load_range(split, start, stop)
            except CorruptImageError:
                if on_corrupt == "error":
                    raise
            else:
                chosen = self._selection(spec, wrappers, labels)
                images = images[chosen.indices - start] if wrappers else images
                return LabelledImages(images, chosen.labels, self.class_names, chosen.origin, chosen.base)
        chosen = self.select(spec, wrappers)
        images, kept, corrupt = load_images(
            self.examples(chosen.split),
            chosen.indices,
            channels=channels or self.channels,
            transforms=transforms,
            max_corrupt=max_corrupt if on_corrupt == "skip" else None,
        )
        base = chosen.split, chosen.indices[kept]
        return LabelledImages(images, chosen.labels[kept], self.class_names, chosen.origin, base, corrupt)


def load_images(
    examples: Examples,
    indices: Int[np.ndarray, "N"],
    *,
    channels: Channels | None,
    transforms: Sequence[Node],
    max_corrupt: int | None,
) -> tuple[UInt8[np.ndarray, "M *space C"], Int[np.ndarray, "M"], tuple[str, ...]]:
    """Decode examples into one array.

    Args:
      examples: of a base split.
      indices: which of them.
      channels: as of `pixels_of`.
      transforms: as of `Source.load`.
      max_corrupt: how many may be left out because they cannot be read; None ends with the first one's error.

    Returns:
      The images, the positions in `indices` that they have, and what is wrong with those that were left out.

    Raises:
      UserError: images of different sizes, too many that cannot be read, or none that can.
    """
    kept: list[int] = []
    corrupt: list[str] = []

    def readable() -> Iterator[tuple[str, np.ndarray]]:
        for position, index in enumerate(indices.tolist()):
            try:
                example = examples[index]
                pixels = transformed(example, transforms, channels=channels, generator=None)
            except CorruptImageError as error:
                if max_corrupt is None:
                    raise
                corrupt.append(str(error))
                if len(corrupt) > max_corrupt:
                    raise UserError(f"more than {max_corrupt} images cannot be read; the last: {error}") from None
                continue
            kept.append(position)
            yield example.name, pixels

    images = stack_images(readable(), count=len(indices))
    if not kept:
        raise UserError(f"none of the {len(indices)} images can be read; the first: {corrupt[0]}")
    return images, np.asarray(kept, np.int64), tuple(corrupt)


def check_class_names(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The names, which stand in tables, figures and on terminals.

    Args:
      names: of the classes.
      where: they come from, for the error.

    Raises:
      UserError: a name that is long, or has characters that end a line or steer a terminal.
    """
    for name in names:
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise UserError(
                f"{where} has a class named {one_line(name)!r}; rename it: classes have printable names of at most"
                f" {LONGEST_NAME} characters"
            )
    return names


def _index(text: str | None, default: int, size: int) -> int:
    if text is None:
        return default
    return min(size, round(size * int(text[:-1]) / 100) if text.endswith("%") else int(text))
