"""The directory of one run: what it holds, who may write into it, and when a second start is refused."""

import contextlib
import errno
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from cnn_jax.errors import StorageError, UserError
from cnn_jax.train.config import Config, difference, identity, to_plain
from cnn_jax.train.lock import Lock
from cnn_jax.untrusted import parse_json, read_regular

CONFIG, PASSPORT, RESULT, REPORT = "config.json", "passport.json", "result.json", "report.md"
RESULT_KEYS = {"status", "metrics", "steps", "seed", "model", "data", "wall_seconds", "examples_per_second"}
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
METRICS, CHECKPOINTS, FIGURES, LOCK = "metrics.jsonl", "checkpoints", "figures", ".lock"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write UTF-8 JSON so that a reader sees the old file or the new one, never half of one.

    Raises:
      StorageError: the disk is full, or fails.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # several processes may write the same
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files need not be text
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a UTF-8 JSON object.

    Raises:
      UserError: the file is missing, cannot be read, or is damaged.
    """
    try:
        value = parse_json(read_regular(path).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; is {str(path.parent)!r} a run directory?") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds a {type(value).__name__}, not an object")
    return value


def read_sessions(run: pathlib.Path) -> list[dict[str, Any]]:
    """The passports of a run, one a session, the newest last.

    Raises:
      UserError: the file is missing or damaged.
    """
    sessions = read_json(run / PASSPORT).get("sessions")
    if not isinstance(sessions, list) or not sessions or not all(isinstance(s, dict) for s in sessions):
        raise UserError(f"{run / PASSPORT} is damaged: it has no list of sessions")
    return sessions


@contextlib.contextmanager
def naming_storage_errors(directory: pathlib.Path) -> Iterator[None]:
    """Turn what the system says of a full or failing disk into one line.

    Raises:
      StorageError: with the file where the system names it, or else the directory.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:  # another error, or one that says all already
            raise
        message = f"{error.filename or directory} cannot be written: {error.strerror}"
        raise StorageError.of(message, error) from error


class RunDirectory:
    """One run's directory, locked while this object is open; use it as a context manager.

    Args:
      path: created if it is not there.
      config: resolved; must equal the one the directory already holds.
      resume: whether to go on with what is there. A new or empty directory starts a run either way.
      owner: False for a process that takes part in the run but writes nothing: it neither checks nor locks.

    Raises:
      InUseError: another process holds it.
      UserError: not writable, holds other files, holds another config, or holds a run and `resume` is False.
    """

    def __init__(self, path: str | pathlib.Path, config: Config, *, resume: bool, owner: bool = True):
        self.path = pathlib.Path(path).expanduser().resolve()
        self.config = config
        self._lock: Lock | None = None
        if not owner:
            return
        try:
            self._refuse_other_files()  # before anything is written
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path / LOCK, what=f"work directory {str(self.path)!r}")
        except OSError as error:
            raise UserError(
                f"work directory {str(self.path)!r} is not writable: {error.strerror}; choose another --workdir"
            ) from None
        try:
            self.is_new = self._check(resume)
        except UserError:
            self.close()
            raise

    def _refuse_other_files(self) -> None:
        """A directory without a run may hold only what a start that was killed at once leaves."""
        if self.path.is_dir() and not (self.path / CONFIG).exists():
            names = sorted(path.name for path in self.path.iterdir() if path.name not in (LOCK, PASSPORT))
            others = [name for name in names if not (name.startswith((PASSPORT, CONFIG)) and name.endswith(".tmp"))]
            if others:
                raise UserError(
                    f"work directory {str(self.path)!r} holds {others[0]!r} but no run; choose an empty --workdir"
                )

    def _check(self, resume: bool) -> bool:
        """Whether this is a new run."""
        stored = self.path / CONFIG
        if not stored.exists():
            return True
        new = json.loads(json.dumps(to_plain(self.config)))
        changes = difference(identity(read_json(stored)), identity(new))
        if changes:
            changed = "; ".join(changes)
            raise UserError(
                f"work directory {str(self.path)!r} holds a different config ({changed}); choose another --workdir"
            )
        if not resume:
            raise UserError(
                f"work directory {str(self.path)!r} already holds this run; add --resume to continue it, or choose"
                " another --workdir"
            )
        return False

    @property
    def checkpoints(self) -> pathlib.Path:
        """Where checkpoints are."""
        return self.path / CHECKPOINTS

    @property
    def metrics(self) -> pathlib.Path:
        """The log, one JSON object a line."""
        return self.path / METRICS

    @property
    def figures(self) -> pathlib.Path:
        """Where figures are."""
        return self.path / FIGURES

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, or None."""
        if not (self.path / RESULT).exists():
            return None
        result = read_json(self.path / RESULT)
        missing = sorted(RESULT_KEYS - result.keys())
        if missing:
            raise UserError(f"{self.path / RESULT} is damaged: it has no {missing[0]!r}")
        return result

    def sessions(self) -> list[dict[str, Any]]:
        """The passports of this run, one a session, the newest last.

        Raises:
          UserError: the file is damaged.
        """
        return read_sessions(self.path)

    def begin(self, passport: Mapping[str, Any]) -> None:
        """Record config and passport; on resuming, each session adds its own passport to the list.

        The config comes last: a directory that has it has its passport too.
        """
        sessions = [] if self.is_new else self.sessions()
        write_json(self.path / PASSPORT, {"sessions": [*sessions, dict(passport)]})
        if self.is_new:
            write_json(self.path / CONFIG, to_plain(self.config))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`: from now on the run is finished."""
        write_json(self.path / RESULT, dict(result))

    def reopen(self) -> None:
        """Take away `result.json`: from now on the run is not finished."""
        (self.path / RESULT).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
