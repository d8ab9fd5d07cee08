"""Published weights, fetched once and kept: a file is whole and has the published digest, or it is not there."""

import hashlib
import logging
import os
import pathlib
import sys
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import IO

from cnn_jax.errors import UserError
from cnn_jax.paths import cache_home, expanded
from cnn_jax.weights.files import remove, unfinished
from cnn_jax.weights.pretrained import Pretrained

logger = logging.getLogger(__name__)

FOLDER = "CNN_JAX_WEIGHTS"
"""The environment variable that names the folder; without it, it is `weights` below the user's caches."""
TIMEOUT_SECONDS = 30
CHUNK = 2**20
"""Bytes from one report of progress to the next."""


def folder() -> pathlib.Path:
    """Where downloaded weights are kept.

    Raises:
      UserError: the environment does not say.
    """
    named, home = os.environ.get(FOLDER), cache_home(os.environ)
    if named:
        return expanded(named)
    if home is None:
        raise UserError(f"there is no folder for downloaded weights: set {FOLDER}, or HOME")
    return home / "weights"


def fetch(entry: Pretrained) -> pathlib.Path:
    """The file of published weights, downloaded if it is not there yet.

    A file that the user has put there is as good; both must have the published digest.

    Raises:
      UserError: it cannot be downloaded or kept, or has another digest; the message says what to do.
    """
    path = folder() / entry.file
    if path.is_file():
        digest = _digest(path)
        if not digest.startswith(entry.sha256 or ""):
            raise UserError(
                f"{str(path)!r} is damaged: its SHA-256 is {digest}, that of {entry.name} starts with {entry.sha256};"
                " remove the file, and it will be downloaded again"
            )
        return path
    part = unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with part.open("xb") as file:
            _download(entry, file, by_hand=f"fetch it by other means and put it at {str(path)!r}")
        digest = _digest(part)  # of what has reached the disk
        if not digest.startswith(entry.sha256 or ""):
            raise UserError(
                f"{entry.url} has the SHA-256 {digest}, but that of {entry.name} starts with {entry.sha256}: it was"
                " changed on the way or by its publisher, and is not used"
            )
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        remove(part)
    if entry.sha256 is None:
        logger.warning("no digest of %s is published to compare with; the file's SHA-256 is %s", entry.name, digest)
    return path


def _unwritable(path: pathlib.Path, error: OSError) -> UserError:
    return UserError(f"{str(path)!r} cannot be written: {error.strerror or error}; set {FOLDER} to another folder")


def _digest(path: pathlib.Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None


def _download(entry: Pretrained, file: IO[bytes], *, by_hand: str) -> None:
    """Writes what is at the URL to the file."""
    request = urllib.request.Request(entry.url, headers={"User-Agent": "cnn_jax"})  # some servers want a name
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        raise UserError(f"{entry.url} answers {error.code} {error.reason}; {by_hand}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"{entry.url} cannot be reached ({_reason(error)}); {by_hand}") from None
    with response:
        _copied(entry, response, file, by_hand=by_hand)


def _copied(entry: Pretrained, response: HTTPResponse, file: IO[bytes], *, by_hand: str) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    done = 0
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() and len(length) < 20 else None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(entry.name, total=total)
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, HTTPException) as error:
                raise UserError(f"{entry.url} ended after {done:,} bytes ({_reason(error)}); {by_hand}") from None
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            progress.update(task, completed=done)
    if total not in (None, done):
        raise UserError(f"{entry.url} ended after {done:,} of {total:,} bytes; try again, or {by_hand}")


def _reason(error: Exception) -> str:
    """The cause of a failed connection in one line."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return (text.splitlines() or [type(error).__name__])[0]
