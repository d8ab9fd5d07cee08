"""What a split holds, found in one pass: classes, sizes, formats, levels, digests of pixels, files that are damaged.

Images are read one by one and forgotten; what is kept of each is its label and two digests of 16 bytes.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

from cnn_jax.data.examples import Example, Examples, pixels_of
from cnn_jax.data.host_transforms import transform_image
from cnn_jax.errors import UserError
from cnn_jax.ops.image_files import FORMATS, misnamed_format
from cnn_jax.ops.pixels import Channels

BLOCK = 32
"""Images that a thread takes at once."""
BLOCKS_AHEAD = 16
PIXELS_AT_ONCE = 2**20
"""bincount makes 64-bit integers of all that it gets."""
LEVELS = 256
FORMS = {
    **{"1": "black and white", "L": "grey", "LA": "grey with transparency", "P": "palette", "RGB": "RGB"},
    **{"RGBA": "RGB with transparency", "CMYK": "CMYK", "I;16": "grey, 16 bits", "I;16B": "grey, 16 bits"},
}
"""Pillow's modes in words."""

Nodes = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What one split holds.

    Attributes:
      labels: class indices, int32 `[N]`.
      class_counts: examples of each class, int64 `[K]`, those included whose image cannot be read.
      outside: examples whose label is none of the K classes.
      sizes: `[*space]` of the images as they are stored, to how many have it; EXIF orientation is applied.
      forms: format and colours of the images as they are stored, such as "JPEG, RGB", to how many have them.
      levels: number of channels C to int64 `[C, 256]`: how often each level occurs in each channel after the
        transforms, over all images with so many channels.
      digests: uint64 `[N, 2]`, equal for equal shapes and pixels before the transforms, and for no others: BLAKE2b.
      unturned: uint64 `[N, 2]`, equal also for an image and its mirror image, left to right.
      readable: bool `[N]`; the digests of the others are 0.
      corrupt: what is wrong with the images that cannot be read, converted or transformed, one line each, in order.
      misnamed: files whose content has another format than their extension says, one line each, in order.
    """

    labels: Int[np.ndarray, "N"]
    class_counts: Int[np.ndarray, "K"]
    outside: int
    sizes: Mapping[tuple[int, ...], int]
    forms: Mapping[str, int]
    levels: Mapping[int, Int[np.ndarray, "C 256"]]
    digests: UInt64[np.ndarray, "N 2"]
    unturned: UInt64[np.ndarray, "N 2"]
    readable: Bool[np.ndarray, "N"]
    corrupt: tuple[str, ...]
    misnamed: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def inspect_split(
    examples: Examples,
    indices: Int[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    *,
    classes: int,
    channels: Channels | None,
    transforms: Nodes,
    progress: Callable[[int], object],
) -> Inspection:
    """Read every image of a split once, in threads.

    Args:
      examples: of the base split.
      indices: which of them.
      labels: their class indices; wrappers may have changed them.
      classes: K.
      channels: what images are converted to; None leaves what is stored.
      transforms: checked nodes of HOST_TRANSFORMS that are not random, which the levels are counted after.
      progress: is told of each block how many images it had.
    """
    sizes, forms = collections.Counter(), collections.Counter()
    levels: dict[int, np.ndarray] = {}
    digests = np.zeros((2, len(indices), 2), np.uint64)
    readable = np.zeros(len(indices), bool)
    corrupt, misnamed = [], []
    inspect = functools.partial(_inspect_block, examples, channels=channels, transforms=transforms)
    starts = range(0, len(indices), BLOCK)
    with warnings.catch_warnings():
        # Of what is large, or odd but readable. Here, because threads cannot have filters of their own.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for start, block in zip(
            starts, _in_threads(inspect, (indices[start : start + BLOCK] for start in starts)), strict=True
        ):
            stop = start + len(block.readable)
            digests[:, start:stop], readable[start:stop] = block.digests, block.readable
            sizes.update(block.sizes)
            forms.update(block.forms)
            for count, counted in block.levels.items():
                levels[count] = levels.get(count, 0) + counted
            corrupt += block.corrupt
            misnamed += block.misnamed
            progress(stop - start)
    known = (labels >= 0) & (labels < classes)
    return Inspection(
        labels=labels,
        class_counts=np.bincount(labels[known], minlength=classes),
        outside=int((~known).sum()),
        sizes=sizes,
        forms=forms,
        levels=levels,
        digests=digests[0],
        unturned=digests[1],
        readable=readable,
        corrupt=tuple(corrupt),
        misnamed=tuple(misnamed),
    )


@dataclasses.dataclass
class _Block:
    """What was found in some images; as `Inspection`, `digests` are both."""

    digests: np.ndarray
    readable: np.ndarray
    sizes: collections.Counter[tuple[int, ...]] = dataclasses.field(default_factory=collections.Counter)
    forms: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    levels: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    corrupt: list[str] = dataclasses.field(default_factory=list)
    misnamed: list[str] = dataclasses.field(default_factory=list)


def _inspect_block(
    examples: Examples, indices: Int[np.ndarray, "M"], *, channels: Channels | None, transforms: Nodes
) -> _Block:
    block = _Block(np.zeros((2, len(indices), 2), np.uint64), np.zeros(len(indices), bool))
    for place, index in enumerate(indices.tolist()):
        try:
            example = examples[index]
            if isinstance(example.image, bytes):
                found = misnamed_format(example.image, name=example.name)
                if found is not None:
                    block.misnamed.append(f"{example.name!r} is {found}")
            pixels = pixels_of(example, channels=channels)
        except UserError as error:
            block.corrupt.append(str(error))
            continue
        try:
            seen = transform_image(pixels, transforms, generator=None) if transforms else pixels
        except UserError as error:
            block.corrupt.append(f"{example.name!r}: {error}")
            continue
        block.readable[place] = True
        block.sizes[pixels.shape[:-1]] += 1
        block.forms[_form(example)] += 1
        block.digests[:, place] = _digests(pixels)
        counted = level_counts(seen)
        block.levels[len(counted)] = block.levels.get(len(counted), 0) + counted
    return block


def _in_threads(function: Callable[[Any], _Block], items: Iterable[Any]) -> Iterator[_Block]:
    """What the function makes of each, in order; only a few are begun before they are asked for."""
    pool = concurrent.futures.ThreadPoolExecutor()
    waiting: collections.deque[concurrent.futures.Future[_Block]] = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == BLOCKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _form(example: Example) -> str:
    if not isinstance(example.image, bytes):
        return f"pixels, {example.image.shape[-1]} channel{'s' if example.image.shape[-1] > 1 else ''}"
    from PIL import Image

    image = Image.open(io.BytesIO(example.image), formats=FORMATS)
    return f"{image.format}, {FORMS.get(image.mode, image.mode)}"


def _digests(pixels: UInt8[np.ndarray, "*space C"]) -> UInt64[np.ndarray, "2 2"]:
    """The digest of an image, and the smaller one of it and its mirror image's; other ranks have no mirror."""
    own = _digest(pixels)
    turned = _digest(pixels[:, ::-1]) if pixels.ndim == 3 else own
    return np.frombuffer(own + min(own, turned), "<u8").reshape(2, 2)  # [4] -> [2, 2]


def _digest(pixels: UInt8[np.ndarray, "*space C"]) -> bytes:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def level_counts(pixels: UInt8[np.ndarray, "*space C"]) -> Int[np.ndarray, "C 256"]:
    """How often each level occurs in each channel.

    Args:
      pixels: of one image or of many.
    """
    flat = pixels.reshape(-1, pixels.shape[-1])  # [*space, C] -> [pixels, C]
    counts = np.zeros((pixels.shape[-1], LEVELS), np.int64)
    for start in range(0, len(flat), PIXELS_AT_ONCE):
        part = flat[start : start + PIXELS_AT_ONCE]
        counts += [np.bincount(part[:, channel], minlength=LEVELS) for channel in range(len(counts))]
    return counts


def moments(levels: Int[np.ndarray, "C 256"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel in units of [0, 1]; a deviation of 0 becomes 1.

    Sums are whole numbers, so the result is the same on every processor, in any order of the images.

    Args:
      levels: how often each level occurs; every channel has a pixel.

    Example:
      >>> moments(np.eye(256, dtype=np.int64)[[0, 255]])
      ((0.0, 1.0), (1.0, 1.0))
    """
    means, deviations = [], []
    for counts in levels.tolist():
        n = sum(counts)
        first = sum(count * level for level, count in enumerate(counts))
        second = sum(count * level * level for level, count in enumerate(counts))
        means.append(first / (255 * n))
        deviations.append(math.sqrt(n * second - first * first) / (255 * n) or 1.0)
    return tuple(means), tuple(deviations)
