"""Where labelled images come from: a literal table of sources, each a function that returns named splits in memory."""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from cnn_jax.data.decoded import decode_images, decoded
from cnn_jax.errors import UserError, unknown_name

SLICE = re.compile(r"(?P<split>\w+)(\[(?P<start>\d+%?)?:(?P<stop>\d+%?)?\])?")
PREPARE = "`pip install -c constraints.txt -e '.[prepare]'` in the checkout"
# What TFDS and array_record raise for names, versions and files that are not as they should be.
TFDS_ERRORS = (AssertionError, OSError, RuntimeError, ValueError)
DIGITS_TRAIN_SHARE = 0.8
DIGITS_LEVELS = 16.0


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """One split in memory.

    Attributes:
      images: channels last.
      labels: class indices in `[0, len(class_names))`.
      class_names: one name per class.
      origin: source, name, version and slice, for reports and errors.
      base: the base split, and the first and past-the-last index in it.
    """

    images: UInt8[np.ndarray, "N *space C"]
    labels: Int[np.ndarray, "N"]
    class_names: tuple[str, ...]
    origin: str
    base: tuple[str, int, int]

    def __len__(self) -> int:
        return len(self.labels)

    def sha256(self) -> str:
        """A digest of shapes, pixels and labels: equal data, equal digest."""
        digest = hashlib.sha256(repr((self.images.shape, self.labels.shape)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels.astype("<i4")).data)
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set whose base splits are loaded on demand.

    Attributes:
      name: for reports and errors.
      class_names: one name per class.
      sizes: examples in each base split.
      load_range: base split name, first and past-the-last index to (images uint8 `[N, *space, C]`, labels int32 `[N]`).
    """

    name: str
    class_names: tuple[str, ...]
    sizes: Mapping[str, int]
    load_range: Callable[[str, int, int], tuple[np.ndarray, np.ndarray]]

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

    def load(self, spec: str) -> LabelledImages:
        """Load a split or slice.

        Raises:
          UserError: as `bounds`, or the images cannot be read.
        """
        split, start, stop = self.bounds(spec)
        images, labels = self.load_range(split, start, stop)
        origin = f"{self.name}/{spec}"
        return LabelledImages(images, labels.astype(np.int32), self.class_names, origin, (split, start, stop))


def _index(text: str | None, default: int, size: int) -> int:
    if text is None:
        return default
    return min(size, round(size * int(text[:-1]) / 100) if text.endswith("%") else int(text))


def check_disjoint(splits: Mapping[str, LabelledImages]) -> None:
    """Refuse splits that share examples: what was trained on is no measure of anything else.

    Raises:
      UserError: names the two splits.
    """
    for (name, one), (other, two) in itertools.combinations(splits.items(), 2):
        if one.base[0] == two.base[0] and max(one.base[1], two.base[1]) < min(one.base[2], two.base[2]):
            raise UserError(
                f"config.data.splits.{name} and data.splits.{other} share examples: {one.origin} and {two.origin};"
                " evaluate a finished run on its training examples with experiments/evaluate.py --split=train"
            )


def check_labels(data: LabelledImages, num_classes: int) -> None:
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
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.round(bunch.images[..., None] * (255.0 / DIGITS_LEVELS)).astype(np.uint8)  # [1797, 8, 8] -> [.., 1]
    labels = bunch.target.astype(np.int32)
    order = np.random.Generator(np.random.PCG64(split_seed)).permutation(len(labels))
    count = int(DIGITS_TRAIN_SHARE * len(labels))
    parts = {"train": order[:count], "test": order[count:]}
    return Source(
        name="sklearn/digits",
        class_names=tuple(str(digit) for digit in range(10)),
        sizes={split: len(index) for split, index in parts.items()},
        load_range=lambda split, start, stop: (images[parts[split][start:stop]], labels[parts[split][start:stop]]),
    )


def tfds_source(name: str, *, directory: str | None, split_seed: int) -> Source:
    """Any TFDS image classification set with an `image` and a `label` feature, read with random access.

    A set that is not in `directory` yet is downloaded and prepared there, which needs the extra `prepare`.

    Args:
      name: TFDS name, for example "cifar10".
      directory: holds the prepared sets; default is the environment variable TFDS_DATA_DIR, then TFDS's own default.
      split_seed: not used; TFDS defines the splits.

    Raises:
      UserError: unknown name, missing directory, a set that is not prepared, or one without equal-sized images.
    """
    del split_seed
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    directory = directory or os.environ.get("TFDS_DATA_DIR") or None
    if directory is not None:
        folder = pathlib.Path(directory).expanduser()
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise UserError(
                f"config.data.directory {directory!r} {what}; create it, or give another --config.data.directory"
            )
        directory = str(folder)
    try:
        builder = tfds.builder(name, data_dir=directory, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        known = re.findall(r"- (\w+)", str(error))
        near = str(unknown_name("TFDS data set", name, known)).partition(" Known:")[0]
        raise UserError(f"{near} All names: https://www.tensorflow.org/datasets/catalog/overview") from None
    except ImportError as error:
        needed = error.name or "TensorFlow"
        raise UserError(f"TFDS data set {name!r} needs {needed}; run {PREPARE}") from None
    except (*TFDS_ERRORS, ParseError) as error:
        raise UserError(f"TFDS data set {name!r} in {directory} cannot be opened: {_first_line(error)}") from None
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or not {"image", "label"} <= set(features):
        raise UserError(f"TFDS data set {name!r} has no image and label; it has {features}".replace("\n", " "))
    label: Any = features["label"]
    if not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"TFDS data set {name!r} has no class labels; its label is {label}".replace("\n", " "))
    if not builder.info.splits:
        _prepare(builder, name)

    def load_range(split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        identity = (builder.info.full_name, split, start, stop, importlib.metadata.version("pillow"))
        return decoded(identity, pathlib.Path(builder.data_dir), lambda: decode_range(split, start, stop))

    def decode_range(split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            raw: Any = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        except NotImplementedError:
            raise UserError(
                f"{builder.data_dir} is not in the array_record format; prepare {name!r} again in another directory"
            ) from None
        try:
            records = raw.__getitems__(range(start, stop))
        except TFDS_ERRORS as error:
            reason = _first_line(error)
            raise UserError(
                f"{builder.data_dir}, split {split!r}, is damaged or incomplete: {reason}; prepare it again"
            ) from None
        try:
            images = decode_images([record["image"] for record in records], channels=features["image"].shape[-1])
        except UserError as error:
            raise UserError(f"TFDS data set {name!r}, split {split!r}: {error}") from None
        return images, np.array([record["label"] for record in records], np.int32)

    return Source(
        name=f"tfds/{builder.info.full_name}",
        class_names=tuple(label.names),
        sizes={split: info.num_examples for split, info in builder.info.splits.items()},
        load_range=load_range,
    )


def _prepare(builder, name: str) -> None:
    """Download and prepare a TFDS set: the one thing here that needs TensorFlow."""
    import tensorflow_datasets as tfds

    # TFDS encodes images with it.
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"TFDS data set {name!r} is not prepared in {builder.data_dir}; run {PREPARE} and the same command again to"
            " download it, or point --config.data.directory or TFDS_DATA_DIR at a prepared copy"
        )
    try:
        builder.download_and_prepare()
    except (*TFDS_ERRORS, tfds.download.DownloadError) as error:
        reason = _first_line(error)
        raise UserError(f"TFDS data set {name!r} could not be prepared in {builder.data_dir}: {reason}") from None


def _first_line(error: Exception) -> str:
    """What a library says of its error, short enough for ours."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


SOURCES: dict[str, Callable[..., Source]] = {"sklearn": sklearn_source, "tfds": tfds_source}


def open_source(source: str, name: str, *, directory: str | None = None, split_seed: int = 0) -> Source:
    """The data set of a config's `data.source` and `data.name`.

    Raises:
      UserError: unknown source or name, or data that is not there.
    """
    if source not in SOURCES:
        raise unknown_name("config.data.source", source, SOURCES)
    return SOURCES[source](name, directory=directory, split_seed=split_seed)
