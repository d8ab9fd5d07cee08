"""What a checkpoint must be: its manifest, the digests of its files and arrays, and what is found when they differ.

Orbax returns flipped bits without an error, and so does every format that has no digests; a checkpoint without a
manifest that fits is therefore no checkpoint.
"""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.untrusted import parse_json, read_regular

FORMAT = 1
"""The version of what a checkpoint's folder holds; it grows with every change that an older cnn_jax cannot read."""
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**26
"""Bytes; that of a network with a hundred thousand arrays is smaller."""


class DamagedError(UserError):
    """A file of a checkpoint is not what was written; the message names it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayDigest:
    """What an array was when it was saved.

    Attributes:
      shape: its axes.
      dtype: NumPy's name of its type.
      sha256: of its bytes in C order, in this machine's (little-endian) order.
    """

    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is written beside Orbax's files.

    Attributes:
      step: optimizer steps done.
      progress: what the loop knows, see `checkpoint.Progress`.
      arrays: checkpointable to the path of each array to its digest.
      files: path below the checkpoint's folder to (bytes, SHA-256).
      format: of the folder.
    """

    step: int
    progress: Mapping[str, Any]
    arrays: Mapping[str, Mapping[str, ArrayDigest]]
    files: Mapping[str, tuple[int, str]]
    format: int = FORMAT


def array_digest(x: np.ndarray) -> ArrayDigest:
    """The digest of an array on the host."""
    flat = np.ascontiguousarray(x).reshape(-1)  # [...] -> [N]
    return ArrayDigest(shape=x.shape, dtype=x.dtype.name, sha256=hashlib.sha256(flat.view(np.uint8).data).hexdigest())


def file_digests(folder: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Path below a folder to size and SHA-256 of every file in it, but for the manifest."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            found[path.relative_to(folder).as_posix()] = (path.stat().st_size, _sha256(path))
    return found


def write_manifest(folder: pathlib.Path, manifest: Manifest) -> None:
    """Write a manifest with its own digest, and force it to the disk."""
    with (folder / MANIFEST).open("wb") as file:
        file.write(_encode(json.loads(json.dumps(dataclasses.asdict(manifest)))))
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: pathlib.Path) -> Manifest:
    """The manifest of a checkpoint, checked against its own digest; the files are not looked at.

    Raises:
      DamagedError: it is missing or not what was written.
      UserError: it is of a newer cnn_jax.
    """
    try:
        text = read_regular(folder / MANIFEST, largest=LARGEST_MANIFEST)
        content = parse_json(text)["content"]
        whole = text == _encode(content)
    except FileNotFoundError:
        raise DamagedError(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise _unreadable(folder / MANIFEST, error) from None
    except (UserError, ValueError, TypeError, LookupError):  # no file, no JSON, or not this JSON
        whole, content = False, None
    if not whole or not isinstance(content, dict):
        raise DamagedError(f"the content of {MANIFEST} is not what was written")
    if content.get("format") != FORMAT:
        raise UserError(
            f"checkpoint {folder} has format {content.get('format')!r}, this cnn_jax reads format {FORMAT}; use the"
            " cnn_jax that wrote it, its version stands in passport.json"
        )
    try:
        return _from_json(content)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise DamagedError(f"{MANIFEST} does not say what a manifest says") from None


def _from_json(content: Mapping[str, Any]) -> Manifest:
    """A manifest, of which nothing is believed that a stranger may have written."""
    names = [pathlib.PurePosixPath(name) for name in content["files"]]
    if any(name.is_absolute() or ".." in name.parts for name in names):
        raise ValueError("a name leads out of the folder")
    return Manifest(
        step=int(content["step"]),
        progress=dict(content["progress"]),
        arrays={
            name: {
                path: ArrayDigest(
                    shape=tuple(int(n) for n in array["shape"]),
                    dtype=np.dtype(array["dtype"]).name,
                    sha256=str(array["sha256"]),
                )
                for path, array in arrays.items()
            }
            for name, arrays in content["arrays"].items()
        },
        files={name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()},
    )


def _unreadable(path: pathlib.Path, error: OSError) -> UserError:
    """What an error of the system in reading says of a file: damage only where reading again would not help."""
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EIO, errno.EINVAL, errno.EFBIG):
        return DamagedError(f"{path.name} cannot be read ({error.strerror})")
    return UserError(f"{path} cannot be read: {error.strerror}; try again when it can")


def check_files(folder: pathlib.Path) -> Manifest:
    """The manifest of a checkpoint, each of whose files was read and is what was written.

    Raises:
      DamagedError: the manifest or a file is missing, cut off or changed.
      UserError: the checkpoint is of a newer cnn_jax.
    """
    manifest = read_manifest(folder)
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise DamagedError(f"{name} is no file")
            if found.st_size != size:
                raise DamagedError(f"{name} has {found.st_size:,} bytes instead of {size:,}")
            if _sha256(path) != digest:
                raise DamagedError(f"the content of {name} is not what was written")
        except FileNotFoundError:
            raise DamagedError(f"{name} is missing") from None
        except OSError as error:
            raise _unreadable(path, error) from None
    return manifest


def check_array(where: str, x: np.ndarray, expected: ArrayDigest) -> None:
    """Compare an array that was read with the one that was saved.

    Raises:
      DamagedError: it is another.
    """
    if array_digest(x) != expected:
        raise DamagedError(f"the array {where} is not what was written")


def _encode(content: Any) -> bytes:
    """Canonical JSON with the digest of the content: equal contents have equal bytes, whatever they went through."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    whole = {"content": content, "sha256": digest}
    return (json.dumps(whole, sort_keys=True, ensure_ascii=True, allow_nan=False, indent=1) + "\n").encode()


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
