"""The lock of a directory: one process at a time, and one that was killed keeps nobody out.

The kernel releases the lock of a process that ends, however it ends. It does so for processes of one machine, and of
several where the file system tells them of each other's locks; where it does not, the holder's sign of life decides.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time
from typing import IO, Any

from cnn_jax.errors import UserError

BEAT_SECONDS = 10.0
"""How often the holder of a lock gives a sign of life."""
SILENT_BEATS = 3
"""After so many missed signs of life, the holder on another machine is dead."""


class InUseError(UserError):
    """Another process holds the lock of a directory."""


class Lock:
    """An exclusive lock, held from when it is made until it is closed.

    Args:
      path: of the lock file; its folder must be there.
      what: is locked, for messages.

    Raises:
      InUseError: another process holds it, and lives.
      OSError: the file cannot be made.
    """

    def __init__(self, path: pathlib.Path, *, what: str):
        self._path = path
        self._file: IO[str] = path.open("a+", encoding="utf-8")
        try:
            self._take(what)
        except BaseException:
            self._file.close()
            raise
        self._closed = threading.Event()
        self._life = threading.Thread(target=self._beat, name=f"lock of {path}", daemon=True)
        self._life.start()

    def _take(self, what: str) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(_refusal(what, self._holder())) from None
        holder = self._holder()
        # Empty where the last holder ended as it should. A dead one of this machine is known to be dead: the kernel has
        # just given us its lock.
        elsewhere = bool(holder) and holder.get("host") != socket.gethostname()
        if elsewhere:
            _say(f"{what} was locked by {_who(holder)}; waiting for a sign of life")
            if self._lives():
                raise InUseError(_refusal(what, self._holder()))
            _say(f"there was none: taking {what} over")
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        mine = {"host": socket.gethostname(), "process": os.getpid(), "started": started}
        self._file.seek(0)
        self._file.truncate(0)
        json.dump(mine, self._file)
        self._file.flush()
        if elsewhere:  # another one may have waited beside this one: the last to write has it
            time.sleep(BEAT_SECONDS)
            if self._holder() != mine:
                raise InUseError(_refusal(what, self._holder()))

    def _holder(self) -> dict[str, Any]:
        """What the file says of the process that holds it, or held it last; {} if nothing."""
        self._file.seek(0)
        try:
            holder = json.loads(self._file.read(4096))
        except (ValueError, RecursionError):
            return {}
        return holder if isinstance(holder, dict) else {}

    def _lives(self) -> bool:
        """Whether the file's time changes; only its changes count, as clocks of machines differ."""
        before = self._path.stat().st_mtime_ns
        for _ in range(SILENT_BEATS):
            time.sleep(BEAT_SECONDS)
            if self._path.stat().st_mtime_ns != before:
                return True
        return False

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next sign of life may succeed
                os.utime(self._path)

    def close(self) -> None:
        """Release the lock; from now on nobody waits for this process."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._life.join()
        with contextlib.suppress(OSError):  # a full disk must not keep the lock closed
            self._file.truncate(0)
        self._file.close()


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # a full disk behind standard error is no reason to stop
        print(message, file=sys.stderr)


def _who(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('process')} on {holder.get('host')}, started {holder.get('started')}"


def _refusal(what: str, holder: dict[str, Any]) -> str:
    return f"{what} is in use by {_who(holder)}; wait, or choose another --workdir"
