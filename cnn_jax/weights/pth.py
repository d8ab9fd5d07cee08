"""torch's `.pth` and `.pt` files, both of its formats, without torch and without pickle."""

import collections
import io
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.untrusted import one_line, open_regular
from cnn_jax.weights.tensor_pickle import Storage, Tensor, storages, unpickle

ZIP, LEGACY, TAR = b"PK\x03\x04", b"\x80", b"ustar"
TAR_OFFSET = 257
PICKLE = "/data.pkl"
MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001
"""With these torch before 1.6 began its files."""

CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights")
"""Under what names trainers put the state dict into their checkpoints."""
DEEPEST = 4
DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OverflowError, ValueError, struct.error)
"""What Python's `zipfile` raises for archives that are not as they should be."""
PARALLEL = "module."
"""What torch's `DataParallel` puts before every name."""


def read_pth(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The state dict of a torch file: arrays by torch's names, in torch's layout.

    A checkpoint is searched for the state dict in it (`CONTAINERS`), and the "module." of parallel training is taken
    off. Arrays can be views of one another, as the tensors were; none can be written to.

    Raises:
      UserError: the file cannot be read, is damaged, holds no state dict, or asks for anything but tensors.
    """
    try:
        with open_regular(path) as file:
            start = file.read(TAR_OFFSET + len(TAR))
            file.seek(0)
            if start.startswith(ZIP):
                return _read_zip(file)
            if start.startswith(LEGACY):
                return _read_legacy(io.BytesIO(file.read()))
            if start[TAR_OFFSET:] == TAR:
                raise UserError("it is in torch's tar format from before 2017; load and save it once with torch")
            raise UserError("it is empty" if not start else f"it starts with {start[:4]!r}, as no file of torch's")
    except UserError as error:
        raise UserError(f"{str(path)!r}: {error}") from None
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise UserError(f"{str(path)!r} does not fit in memory") from None


def _read_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    """What the archive of torch since 1.6 holds: one pickle, and a file for each storage."""
    try:
        with zipfile.ZipFile(file) as archive:
            root = _checked(archive, size=file.seek(0, io.SEEK_END))
            names = set(archive.namelist())
            order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in names else b"little"
            if order not in (b"little", b"big"):
                raise UserError(f"refused: its byte order is {order[:20]!r}")
            state = _state_dict(unpickle(io.BytesIO(archive.read(root + PICKLE))))
            buffers = {}
            for key, storage in storages(state).items():
                name = f"{root}/data/{key}"
                if name not in names:
                    raise UserError(f"it is damaged: it has no storage {storage.shown}")
                buffers[key] = _elements(archive.read(name), storage, swap=order == b"big")
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(
            f"it is damaged or incomplete ({str(error).splitlines()[0][:100] if str(error) else ''})"
        ) from None
    return _filled(state, buffers)


def _checked(archive: zipfile.ZipFile, *, size: int) -> str:
    """The one folder of an archive whose entries are what torch writes: stored, each once, and within the file."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    name, count = (collections.Counter(names).most_common(1) or [("", 0)])[0]
    if count > 1:
        raise UserError(f"refused: the archive has {count} entries {name[:100]!r}")
    roots = [name.removesuffix(PICKLE) for name in names if name.count("/") == 1 and name.endswith(PICKLE)]
    if not roots:
        raise UserError("it is a zip archive, but has no data.pkl: no file of torch's")
    root = roots[0]
    for entry in entries:
        parts = entry.filename.split("/")
        if parts[0] != root or ".." in parts or "" in parts or "\\" in entry.filename:
            raise UserError(f"refused: the archive has an entry {entry.filename[:100]!r}, which torch does not write")
        if parts[1:] == ["constants.pkl"]:
            raise UserError("refused: it is a TorchScript program; save model.state_dict() instead")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise UserError(
                f"refused: the entry {entry.filename[:100]!r} is compressed or encrypted, as torch's never are"
            )
    if sum(entry.file_size for entry in entries) > size:
        raise UserError("refused: its entries declare more bytes than the file has")
    return root


def _read_legacy(stream: io.BytesIO) -> dict[str, np.ndarray]:
    """What torch before 1.6 wrote: five pickles, then the storages one behind another."""
    if unpickle(stream) != MAGIC_NUMBER or unpickle(stream) != PROTOCOL_VERSION:
        raise UserError("refused: it is a pickle, but no file of torch's")
    system = unpickle(stream)
    value, keys = unpickle(stream), unpickle(stream)
    state, declared = _state_dict(value), storages(value)
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not isinstance(system, dict) or not named or sorted(keys) != sorted(declared):
        raise UserError("it is damaged: its storages are not those of its tensors")
    little = system.get("little_endian", True)
    buffers = {}
    for key in keys:
        storage = declared[key]
        size = int.from_bytes(stream.read(8), "little" if little else "big")
        if size != storage.size:
            raise UserError(
                f"it is damaged: storage {storage.shown} has {size} elements, its tensors say {storage.size}"
            )
        buffers[key] = _elements(stream.read(size * storage.dtype.itemsize), storage, swap=not little)
    if stream.read(1):
        raise UserError("it is damaged: there are bytes behind its last storage")
    return _filled(state, buffers)


def _elements(data: bytes, storage: Storage, *, swap: bool) -> np.ndarray:
    """The bytes of a storage as its elements, in this machine's order (which is little-endian)."""
    itemsize = storage.dtype.itemsize
    if len(data) != storage.size * itemsize:
        raise UserError(
            f"it is damaged or incomplete: storage {storage.shown} has {len(data)} bytes, its tensors say"
            f" {storage.size} of {itemsize} bytes"
        )
    words = np.frombuffer(data, f"u{itemsize}")
    if storage.dtype == np.bool_ and words.size and words.max() > 1:
        raise UserError(f"it is damaged: storage {storage.shown} of booleans has other bytes than 0 and 1")
    return (words.byteswap() if swap else words).view(storage.dtype)


def _filled(state: Mapping[str, Tensor], buffers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a state dict."""
    arrays = {}
    for name, tensor in state.items():
        buffer = buffers[tensor.storage.key]
        if 0 in tensor.shape:
            arrays[name] = np.empty(tensor.shape, buffer.dtype)
            continue
        steps = tuple(stride * buffer.itemsize for stride in tensor.strides)
        arrays[name] = np.ndarray(tensor.shape, buffer.dtype, buffer, tensor.offset * buffer.itemsize, steps)
        arrays[name].flags.writeable = False
    return arrays


def _state_dict(value: Any) -> dict[str, Tensor]:
    """The dictionary of tensors in what a file holds."""
    for _ in range(DEEPEST):  # a dictionary can be in itself
        if not isinstance(value, dict):
            break
        if value and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()):
            parallel = all(key.startswith(PARALLEL) for key in value)
            return {key.removeprefix(PARALLEL) if parallel else key: item for key, item in value.items()}
        inner = next((name for name in CONTAINERS if isinstance(value.get(name), dict)), None)
        if inner is None:
            others = [one_line(str(key), longest=40) for key, item in value.items() if not isinstance(item, Tensor)]
            raise UserError(
                f"it holds no state dict: in its dictionary {', '.join(others[:8]) or 'nothing'} is no named tensor,"
                f" and none of {', '.join(CONTAINERS)} is a dictionary"
            )
        value = value[inner]
    raise UserError(f"it holds a {type(value).__name__.lower()}, no state dict")
