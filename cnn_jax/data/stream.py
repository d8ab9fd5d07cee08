"""A split that does not fit in memory: Grain reads, decodes and transforms it, in the order of one that does."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int, UInt8

from cnn_jax.data.ahead import Elements, ahead
from cnn_jax.data.batches import evaluation_ranges, training_examples
from cnn_jax.data.examples import Examples, transformed
from cnn_jax.data.source import Source
from cnn_jax.errors import CorruptImageError, UserError
from cnn_jax.ops.pixels import Channels
from cnn_jax.ops.random import purpose_number

ENDLESS = 2**31 - 1
"""Steps of a training: the largest number that its counter holds."""

Nodes: TypeAlias = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamedImages:
    """One split whose images are read when they are needed.

    Attributes:
      examples: the base split.
      indices: which of them, int64 `[N]`.
      labels: class indices in `[0, len(class_names))`, int32 `[N]`; wrappers may have changed them.
      class_names: one name per class.
      origin: source, name, version, slice and wrappers, for reports and errors.
      base: the base split's name, and `indices`.
      channels: 1 for grey, 3 for RGB, 4 with transparency; None is what each image has.
      training_transforms: `{name, **options}` nodes of HOST_TRANSFORMS for training.
      evaluation_transforms: and for evaluation, none of them random.
      seed: of the random ones.
      workers: processes that decode; with 0 the threads of this one do.
      on_corrupt: an image that cannot be read is an "error", or "skip" masks its example.
      max_corrupt: so many may be skipped.
      corrupt: the lines that say which were, in the order that they were met.
    """

    examples: Examples
    indices: Int[np.ndarray, "N"]
    labels: Int[np.ndarray, "N"]
    class_names: tuple[str, ...]
    origin: str
    base: tuple[str, Int[np.ndarray, "N"]]
    channels: Channels | None = None
    training_transforms: Nodes = ()
    evaluation_transforms: Nodes = ()
    seed: int = 0
    workers: int = 0
    on_corrupt: str = "error"
    max_corrupt: int = 0
    corrupt: dict[str, None] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    @functools.cached_property
    def image_shape(self) -> tuple[int, ...]:
        """`[H, W, C]` of a training image."""
        return self._shape(self.training_transforms)

    def _shape(self, transforms: Nodes) -> tuple[int, ...]:
        """That of the first image that can be read."""
        for index in range(len(self)):
            with contextlib.suppress(CorruptImageError):
                return self._pixels(index, 0, transforms).shape
        raise UserError(f"{self.origin}: none of the {len(self):,} images can be read")

    def sha256(self) -> str:
        """A digest of the base split, of what is selected and of the labels: equal data, equal digest."""
        digest = hashlib.sha256(str(self._base_description["sha256"]).encode())
        digest.update(np.ascontiguousarray(self.indices.astype("<i8")).data)
        digest.update(np.ascontiguousarray(self.labels.astype("<i4")).data)
        return digest.hexdigest()

    @functools.cached_property
    def _base_description(self) -> Mapping[str, Any]:
        return self.examples.description()

    def description(self) -> dict[str, Any]:
        """What a passport says of the split."""
        digest_of = self._base_description["digest_of"]
        return {"origin": self.origin, "examples": len(self), "sha256": self.sha256(), "digest_of": digest_of}

    def read(self, index: Int[np.ndarray, "M"]) -> UInt8[np.ndarray, "M H W C"]:
        """The images of some examples as evaluation sees them; another one stands in for one that is skipped.

        Raises:
          CorruptImageError: an image cannot be read, where that is an error.
        """
        images, _, problems = self._read(index, np.zeros(len(index), np.int64), self.evaluation_transforms)
        self._register(problems)
        return images

    def training_batch(
        self, *, seed: int, step: int, batch_size: int, rows: Int[np.ndarray, "rows"] | None = None
    ) -> dict[str, np.ndarray]:
        """The batch of one step, read now; arguments and errors as `training_batches`."""
        batch, problems = _training_batch(self, step, seed=seed, batch_size=batch_size, rows=rows)
        self._register(problems)
        return batch

    def training_batches(
        self, *, seed: int, start: int, batch_size: int, rows: Int[np.ndarray, "rows"] | None = None
    ) -> Generator[dict[str, np.ndarray]]:
        """The batches of `batches.training_batch`, from the step `start` on without end, read ahead.

        Raises:
          CorruptImageError: an image cannot be read, where that is an error, or more than `max_corrupt`.
        """
        make = functools.partial(_training_batch, self, seed=seed, batch_size=batch_size, rows=rows)
        for batch, problems in ahead(Elements(make, ENDLESS), start=start, workers=self.workers):
            self._register(problems)
            if self.workers:
                # What a worker made lies in memory that is shared with it, and must not be held by whoever gets this.
                batch = {name: np.array(values) for name, values in batch.items()}
            yield batch

    def evaluation_batches(
        self, *, batch_size: int, multiple_of: int = 1, rows: Int[np.ndarray, "rows"] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches of `batches.evaluation_batches`, read ahead by threads: processes take too long to start.

        Args:
          batch_size: examples per batch, at most.
          multiple_of: the number of devices a batch is divided over.
          rows: which of the rows of each batch to read; all where it is None.

        Raises:
          CorruptImageError: as `training_batches`.
        """
        ranges = evaluation_ranges(len(self), batch_size=batch_size, multiple_of=multiple_of)
        make = functools.partial(_evaluation_batch, self, ranges=ranges, rows=rows)
        for batch, problems in ahead(Elements(make, len(ranges)), start=0, workers=0):
            self._register(problems)
            yield batch

    def evaluation_batch_size(self, *, batch_size: int, multiple_of: int = 1) -> int:
        """Rows of each of `evaluation_batches`, padding included."""
        return evaluation_ranges(len(self), batch_size=batch_size, multiple_of=multiple_of)[0][2]

    def _register(self, problems: Sequence[str]) -> None:
        """Count what could not be read, each image once; stop where there is too much of it."""
        for problem in problems:
            if self.on_corrupt == "error":
                raise CorruptImageError(f'{problem}; set data.on_corrupt="skip" to go on without it')
            self.corrupt[problem] = None
        if len(self.corrupt) > self.max_corrupt:
            raise CorruptImageError(
                f"{self.origin}: {len(self.corrupt)} images cannot be read, data.max_corrupt is {self.max_corrupt};"
                f" the last one: {next(reversed(self.corrupt))}"
            )

    def _pixels(self, index: int, epoch: int, transforms: Nodes) -> UInt8[np.ndarray, "H W C"]:
        # A function of (seed, epoch, example) alone. The first counter is the generator's own.
        counter = np.array([0, 0, epoch, index], np.uint64)
        key = np.array([self.seed, purpose_number("host_transforms")], np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        example = self.examples[int(self.indices[index])]
        return transformed(example, transforms, channels=self.channels, generator=generator)

    def _read(
        self, indices: Int[np.ndarray, "M"], epochs: Int[np.ndarray, "M"], transforms: Nodes
    ) -> tuple[UInt8[np.ndarray, "M H W C"], np.ndarray, list[str]]:
        """Images, 1 for each that could be read and 0 for the others, and why not."""
        images: list[np.ndarray | None] = []
        problems: list[str] = []
        for index, epoch in zip(indices.tolist(), epochs.tolist(), strict=True):
            try:
                images.append(self._pixels(index, epoch, transforms))
            except CorruptImageError as error:
                images.append(None)
                problems.append(str(error))
        read = [image for image in images if image is not None]
        shape = read[0].shape if read else self._shape(transforms)
        for index, image in zip(indices.tolist(), images, strict=True):
            if image is not None and image.shape != shape:
                name = self.examples[int(self.indices[index])].name
                raise UserError(
                    f"{self.origin}: {name} is {'×'.join(map(str, image.shape))}, others are"
                    f" {'×'.join(map(str, shape))}; give data.transforms a resize or a crop to one size"
                )
        # BatchNorm sees masked examples too: another image of the batch does it less harm than a black one.
        stand_in = read[0] if read else np.zeros(shape, np.uint8)
        mask = np.array([image is not None for image in images], np.float32)
        return np.stack([stand_in if image is None else image for image in images]), mask, problems


def open_stream(
    source: Source, spec: str, *, wrappers: Nodes = (), channels: Channels | None = None, **options: Any
) -> StreamedImages:
    """A split or slice of a data set as a stream; `Source.load` is its counterpart.

    Args:
      source: the data set.
      spec: a split or slice.
      wrappers: checked nodes of WRAPPERS, applied in order.
      channels: 1 is grey, 3 RGB, 4 RGBA; None is the source's own.
      **options: further ones of `StreamedImages`.

    Raises:
      UserError: as `Source.select`.
    """
    selection = source.select(spec, wrappers)
    return StreamedImages(
        examples=source.examples(selection.split),
        indices=selection.indices,
        labels=selection.labels,
        class_names=source.class_names,
        origin=selection.origin,
        base=selection.base,
        channels=channels or source.channels,
        **options,
    )


def _training_batch(
    split: StreamedImages, step: int, *, seed: int, batch_size: int, rows: Int[np.ndarray, "rows"] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    index, epoch = training_examples(len(split), seed=seed, step=step, batch_size=batch_size, rows=rows)
    images, mask, problems = split._read(index, epoch, split.training_transforms)
    batch = {"image": images, "label": split.labels[index], "mask": mask, "id": index, "epoch": epoch}
    return batch, problems


def _evaluation_batch(
    split: StreamedImages,
    number: int,
    *,
    ranges: Sequence[tuple[int, int, int]],
    rows: Int[np.ndarray, "rows"] | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    start, stop, size = ranges[number]
    mine = np.arange(size) if rows is None else rows
    real = mine < stop - start
    # Padding repeats the first example, which is read anyway, and is masked.
    index = np.where(real, start + mine, start)
    images, mask, problems = split._read(index, np.zeros(len(index), np.int64), split.evaluation_transforms)
    return {"image": images, "label": split.labels[index], "mask": mask * real.astype(np.float32)}, problems
