"""Sets of TensorFlow Datasets, read with random access and without TensorFlow."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from cnn_jax.data.decoded import decoded, stack_images
from cnn_jax.data.examples import Example, pixels_of
from cnn_jax.data.source import Source, check_class_names
from cnn_jax.errors import UserError, unknown_name
from cnn_jax.ops.pixels import Channels
from cnn_jax.untrusted import one_line, parse_json, read_regular

PREPARE = "`pip install -c constraints.txt -e '.[prepare]'` in the checkout"
# What TFDS and array_record raise for names, versions and files that are not as they should be.
TFDS_ERRORS = (AssertionError, OSError, RuntimeError, ValueError)
FEATURES, OWN_FEATURES = "features.json", "tensorflow_datasets.core.features."
CLASS_NAMES = ("pythonClassName", "python_class_name", "type")
"""Keys under which a set's description has them, the last one in those of older versions."""
DEFAULT_DIRECTORY = "~/tensorflow_datasets"
BLOCK = 1024
"""Examples that are read at once."""


class TfdsExamples:
    """The examples of one split as they are stored: encoded image files.

    Args:
      raw: TFDS's data source, which does not decode; it can be pickled.
      image: the name of the image's feature.
      label: the name of the class's feature.
      name: of the split, for the examples' names.
      folder: that the set was prepared in.
    """

    def __init__(self, raw: Any, *, image: str, label: str, name: str, folder: str):
        self._raw, self._image, self._label, self._name, self._folder = raw, image, label, name, folder

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> Example:
        return self._example(index, self._read(lambda: self._raw[index]))

    def range(self, start: int, stop: int) -> Iterator[Example]:
        """Examples in a row, several times as fast as one by one; few are in memory at a time."""
        for first in range(start, stop, BLOCK):
            rows = range(first, min(first + BLOCK, stop))
            for index, record in zip(rows, self._read(lambda rows=rows: self._raw.__getitems__(rows)), strict=True):
                yield self._example(index, record)

    def labels(self) -> Int[np.ndarray, "N"]:
        """All class indices. TFDS stores them with the images, so all is read; the cache of images keeps them."""

        def read() -> tuple[np.ndarray, np.ndarray]:
            labels = np.fromiter((example.label for example in self.range(0, len(self))), np.int32, len(self))
            return np.zeros((0,), np.uint8), labels

        return decoded((self._name, "labels", self._label), pathlib.Path(self._folder), read)[1].astype(np.int32)

    def description(self) -> Mapping[str, Any]:
        """The digest of the names and sizes of the prepared files."""
        folder = pathlib.Path(self._folder)
        files = sorted((file.name, file.stat().st_size) for file in folder.iterdir()) if folder.is_dir() else []
        digest = hashlib.sha256(repr((self._name, len(self), files)).encode()).hexdigest()
        return {"sha256": digest, "digest_of": "names and sizes"}

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except TFDS_ERRORS as error:
            reason = _first_line(error)
            raise UserError(
                f"{self._folder}, {self._name}, is damaged or incomplete: {reason}; prepare it again"
            ) from None

    def _example(self, index: int, record: Mapping[str, Any]) -> Example:
        return Example(record[self._image], int(record[self._label]), f"{self._name}[{index}]")


def tfds_source(name: str, *, directory: str | None, split_seed: int) -> Source:
    """Any TFDS set with an image and a class label, read with random access.

    Of several images or labels those called `image` and `label` are taken.

    A set that is not in `directory` yet is downloaded and prepared there, which needs the extra `prepare`.

    Args:
      name: TFDS name, for example "cifar10".
      directory: holds the prepared sets; default is the environment variable TFDS_DATA_DIR, then TFDS's own default.
      split_seed: not used; TFDS defines the splits.

    Raises:
      UserError: unknown name, missing directory, a set that is not prepared, or one without an image or a class label.
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
    _refuse_code(name, directory)
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
    image, label = (_feature(builder.info.features, kind, name) for kind in ("image", "label"))
    channels = _channels(builder.info.features[image], name)
    if not builder.info.splits:
        _prepare(builder, name)
    full_name, folder = builder.info.full_name, str(builder.data_dir)

    def examples_of(split: str) -> TfdsExamples:
        try:
            raw: Any = builder.as_data_source(split=split, decoders={image: tfds.decode.SkipDecoding()})
        except NotImplementedError:
            raise UserError(
                f"{folder} is not in the array_record format; prepare {name!r} again in another directory"
            ) from None
        return TfdsExamples(raw, image=image, label=label, name=f"tfds/{full_name}/{split}", folder=folder)

    def load_range(split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        identity = (full_name, split, start, stop, importlib.metadata.version("pillow"))
        return decoded(identity, pathlib.Path(folder), lambda: decode_range(split, start, stop))

    def decode_range(split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        labels: list[int] = []

        def pixels() -> Iterator[tuple[str, np.ndarray]]:
            for example in examples_of(split).range(start, stop):
                labels.append(example.label)
                yield example.name, pixels_of(example, channels=channels)

        images = stack_images(pixels(), count=stop - start)
        return images, np.asarray(labels, np.int32)

    return Source(
        name=f"tfds/{full_name}",
        class_names=check_class_names(tuple(map(str, builder.info.features[label].names)), folder),
        sizes={split: info.num_examples for split, info in builder.info.splits.items()},
        load_range=load_range,
        examples_of=examples_of,
        channels=channels,
    )


def _refuse_code(name: str, directory: str | None) -> None:
    """Refuse what makes TFDS import or download code: names of other publishers' sets, and features of other modules.

    The file that describes a prepared set names the classes of its features, and TFDS imports their modules.
    """
    from tensorflow_datasets.core import naming

    if re.match(r"[^:/]*:[^:/]*[A-Za-z]", name):
        raise UserError(
            f"TFDS data set {name!r} is another publisher's, whose code TFDS would run; name one of its own"
        )
    base = naming.camelcase_to_snakecase(re.split("[:/]", name)[0])
    folder = pathlib.Path(directory or DEFAULT_DIRECTORY).expanduser()
    for path in sorted(folder.glob(f"{base}/**/{FEATURES}")) if base and "*" not in base else ():
        try:
            features = parse_json(read_regular(path))
        except (OSError, ValueError) as error:
            raise UserError(f"{str(path)!r} is damaged: {error}; prepare {name!r} again") from None
        for named in _class_names(features):
            if not named.startswith(OWN_FEATURES):
                raise UserError(
                    f"refused: {str(path)!r} names the class {one_line(named)!r}, whose module TFDS would import;"
                    " only features of TFDS's own are read"
                )


def _class_names(features: Any) -> Iterator[str]:
    """Every class that the description of features names; parts of it are JSON in JSON."""
    if isinstance(features, dict):
        for key, value in features.items():
            if key in CLASS_NAMES and isinstance(value, str):
                yield value
            elif key == "json" and isinstance(value, str):
                with contextlib.suppress(ValueError):
                    yield from _class_names(parse_json(value))
            else:
                yield from _class_names(value)
    elif isinstance(features, list):
        for value in features:
            yield from _class_names(value)


def _feature(features: Any, kind: Literal["image", "label"], name: str) -> str:
    """The name of the feature that holds the image, or the class."""
    import tensorflow_datasets as tfds

    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}[kind]
    shown = str(features).replace("\n", " ")
    if not isinstance(features, tfds.features.FeaturesDict):
        raise UserError(f"TFDS data set {name!r} has no image and label; it has {shown}")
    found = [key for key, feature in features.items() if isinstance(feature, wanted)]
    if kind in found:
        return kind
    if len(found) == 1:
        return found[0]
    what = {"image": "image", "label": "class label"}[kind]
    many = f"several {what}s, none called {kind!r}" if found else f"no {what}"
    raise UserError(f"TFDS data set {name!r} has {many}; it has {shown}")


def _channels(feature: Any, name: str) -> Channels:
    """The channels that images are decoded to."""
    if feature.np_dtype != np.uint8:
        raise UserError(f"TFDS data set {name!r} has images of {np.dtype(feature.np_dtype)}; only uint8 is read")
    channels = feature.shape[-1]
    return channels if channels in (1, 3, 4) else 3


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
