"""One base split of a source, whatever it is stored in: length, random access, labels and a description."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from cnn_jax.data.host_transforms import transform_image
from cnn_jax.errors import CorruptImageError, UserError
from cnn_jax.ops.image_files import LARGEST_PIXELS, decode_image, open_image
from cnn_jax.ops.jpeg import decode_plain_jpeg
from cnn_jax.ops.pixels import Channels, to_channels


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
        """All class indices, int32, without reading an image where the storage allows it."""
        ...

    def description(self) -> Mapping[str, Any]:
        """What makes the content: `sha256`, and `digest_of`, "contents" or, for many large files, "names and sizes"."""
        ...


class ArrayExamples:
    """Examples that lie in memory.

    Args:
      images: uint8 `[N, *space, C]`.
      labels: class indices `[N]`.
      name: of the split, for the examples' names.
    """

    def __init__(self, images: UInt8[np.ndarray, "N *space C"], labels: Int[np.ndarray, "N"], name: str):
        self._images, self._labels, self._name = images, labels.astype(np.int32), name

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        return Example(self._images[index], int(self._labels[index]), f"{self._name}[{index}]")

    def labels(self) -> Int[np.ndarray, "N"]:
        """All class indices."""
        return self._labels

    def description(self) -> Mapping[str, Any]:
        """The digest of shapes, pixels and labels."""
        return {"sha256": digest_of_arrays(self._images, self._labels), "digest_of": "contents"}


def digest_of_arrays(images: UInt8[np.ndarray, "N *space C"], labels: Int[np.ndarray, "N"]) -> str:
    """SHA-256 of shapes, pixels and labels: equal data, equal digest."""
    digest = hashlib.sha256(repr((images.shape, labels.shape)).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels.astype("<i4")).data)
    return digest.hexdigest()


def transformed(
    example: Example,
    nodes: Sequence[Mapping[str, Any]],
    *,
    channels: Channels | None,
    generator: np.random.Generator | None,
) -> UInt8[np.ndarray, "*space C"]:
    """The pixels of an example after transforms on the host, which work on the decoded file itself.

    Args:
      example: of `Examples`.
      nodes: as of `transform_image`.
      channels: as of `pixels_of`.
      generator: as of `transform_image`.

    Raises:
      CorruptImageError: the file is no image or damaged, or it cannot be transformed, see `transform_image`.
    """
    if not nodes:
        return pixels_of(example, channels=channels)
    if isinstance(example.image, bytes):
        image: Any = decode_plain_jpeg(example.image, channels=channels, largest=LARGEST_PIXELS)
        if image is None:
            image = open_image(example.image, name=example.name, channels=channels)
    else:
        image = pixels_of(example, channels=channels)
    try:
        return transform_image(image, nodes, generator=generator)
    except UserError as error:
        raise CorruptImageError(f"{example.name!r}: {error}") from None


def pixels_of(
    example: Example, *, channels: Channels | None, draft: int | None = None
) -> UInt8[np.ndarray, "*space C"]:
    """The pixels of an example, decoded where it is a file.

    Args:
      example: of `Examples`.
      channels: 1 is grey, 3 RGB, 4 RGBA; None leaves what is stored.
      draft: see `decode_image`.

    Raises:
      CorruptImageError: the file is no image or damaged.
      UserError: pixels whose channels cannot be converted.
    """
    if isinstance(example.image, bytes):
        return decode_image(example.image, name=example.name, channels=channels, draft=draft)
    if channels is None or example.image.shape[-1] == channels:
        return example.image
    if example.image.ndim != 3:
        raise UserError(f"{example.name} is no plane image, so its channels cannot become {channels}")
    return to_channels(example.image, channels)
