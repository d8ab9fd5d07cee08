"""The arrays of a checkpoint by their paths, in memory and on disk."""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tensorstore
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from cnn_jax.errors import StorageError, UserError
from cnn_jax.train.manifest import ArrayDigest, DamagedError, check_array, check_files
from cnn_jax.types import PyTree

OS_ERROR = "os_error_code"
"""Stands in the text of an error of tensorstore that the system caused."""
SURELY_FITS = 2**30
UNPACKED = 128
"""Arrays may have so many times the bytes of their files, as numbers of zero compress; or else `SURELY_FITS` bytes."""


def by_path(tree: PyTree) -> dict[str, Any]:
    """Leaves by their paths: what is on disk depends on no Python class, and NumPy alone can read it."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def in_place_of(tree: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """A tree with other leaves, given by their paths."""
    return jax.tree.unflatten(jax.tree.structure(tree), [leaves[path] for path in by_path(tree)])


def abstract(x: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Shape, type and place of an array."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def whole(x: jax.Array) -> np.ndarray:
    """An array on the host; one that lies on several hosts is gathered, by all of them."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def check_shapes(where: str, expected: Mapping[str, Any], stored: Mapping[str, ArrayDigest]) -> None:
    """Refuse a checkpoint of another model before it is read.

    Raises:
      UserError: names the first array that does not fit.
    """
    for path in [*expected, *(path for path in stored if path not in expected)]:
        have = f"{stored[path].dtype}{list(stored[path].shape)}" if path in stored else "nothing"
        x = expected.get(path)
        want = "nothing" if x is None else f"{np.dtype(x.dtype).name}{list(x.shape)}"
        if have != want:
            raise UserError(f"{where} is of another model: it has {have} for {path}, this config has {want}")


def load(folder: pathlib.Path, wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arrays of a checkpoint, not checked.

    Args:
      folder: of one step.
      wanted: checkpointable to the path of each array to its shape, type and place.

    Raises:
      DamagedError: Orbax cannot read them.
    """
    stored = {name: {path: x for path, x in tree.items() if x.size} for name, tree in wanted.items()}
    try:
        loaded = ocp.load_checkpointables(str(folder), stored)
    except (MemoryError, jax.errors.JaxRuntimeError):  # no fault of the file's
        raise
    except Exception as error:  # Orbax raises errors of a dozen kinds for files that are not as they should be
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:200]
        raise DamagedError(f"Orbax cannot read it ({reason})") from error
    # Orbax stores no arrays without elements; nothing of them is lost.
    return {
        name: {path: loaded[name][path] if x.size else _nothing(x) for path, x in tree.items()}
        for name, tree in wanted.items()
    }


def _nothing(like: Any) -> Any:
    return jax.device_put(np.zeros(like.shape, like.dtype), like.sharding)


def read_arrays(folder: pathlib.Path, *, name: str = "state") -> dict[str, np.ndarray]:
    """The state of a checkpoint as NumPy arrays: no model, config or device is needed, and neither is Orbax.

    Args:
      folder: of one step, such as `run/checkpoints/100`.
      name: "state", or "step_metrics" for what was counted since the last line of the log.

    Returns:
      Path to array, such as `params/head/kernel`, `opt_state/0/trace/head/kernel` or `step`.

    Raises:
      DamagedError: a file is not what was written.
      UserError: it is of a newer cnn_jax.
    """
    folder = folder.resolve()
    try:
        manifest = check_files(folder)
        arrays = manifest.arrays[name]
        _check_sizes(arrays, sum(size for size, _ in manifest.files.values()))
        loaded = _read_all(folder / name, arrays)
        for path, expected in arrays.items():
            check_array(path, loaded[path], expected)
    except DamagedError as error:
        raise DamagedError(f"checkpoint {folder} is damaged: {error}") from None
    return loaded


def _check_sizes(arrays: Mapping[str, ArrayDigest], stored: int) -> None:
    """Refuse a stranger's checkpoint of a few bytes that unpacks to more than the memory."""
    declared = sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays.values())
    if declared > max(SURELY_FITS, UNPACKED * stored):
        raise DamagedError(f"it declares {declared:,} bytes of arrays in {stored:,} bytes of files")


def _read_all(folder: pathlib.Path, arrays: Mapping[str, ArrayDigest]) -> dict[str, np.ndarray]:
    """The arrays of a folder that Orbax wrote: an OCDBT database with an array of zarr's version 3 under each path."""
    reads = {}
    for path, array in arrays.items():
        place = {"driver": "file", "path": f"{folder}/"}
        database = {"driver": "ocdbt", "base": place, "path": f"{path}/"}
        if 0 not in array.shape:  # Orbax stores no others
            reads[path] = tensorstore.open({"driver": "zarr3", "kvstore": database}, read=True)
    found = {}
    try:
        for path, opened in reads.items():
            array = opened.result()
            if array.shape != arrays[path].shape:
                raise DamagedError(f"the array {path} has another shape than its manifest says")
            found[path] = array.read().result()
    except DamagedError:
        raise
    except ValueError as error:  # what tensorstore raises for everything
        raise DamagedError(f"tensorstore cannot read it ({str(error).splitlines()[0][:200]})") from error
    return {path: found[path] if path in found else np.zeros(a.shape, a.dtype) for path, a in arrays.items()}


@contextlib.contextmanager
def naming_write_errors(directory: pathlib.Path) -> Iterator[None]:
    """Turn what the system, or tensorstore for it, says of a failed write into one line.

    Raises:
      StorageError: the disk is full, or fails.
    """
    try:
        yield
    except OSError as error:
        message = f"a checkpoint in {directory} cannot be written: {error.strerror or error}"
        raise StorageError.of(message, error) from error
    except ValueError as error:  # so tensorstore, which Orbax writes with, tells of the system's errors
        if OS_ERROR not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise StorageError.of(f"a checkpoint in {directory} cannot be written: {reason}", error) from error
