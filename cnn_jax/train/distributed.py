"""Several processes, one run: each holds some of the devices and runs the same program; the first one writes.

JAX finds the processes of Slurm, Kubernetes and TPU pods by itself; elsewhere each is told the address of the first,
their number and its own. Whatever one process alone does (read a file, lock a directory, check data) goes through
`together`, so that its failure ends all of them instead of leaving the others to wait.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnn_jax.errors import ProcessLostError, UserError

T = TypeVar("T")
AUTOMATIC = "auto"
# After so long without a sign of life from one process, the others abort.
HEARTBEAT_SECONDS = 120
# How long a process waits for the others to start.
START_SECONDS = 300
LONGEST_MESSAGE = 1024
AGREED = "all processes know of this error"
"""A note on what `together` raises: such a process can end as usual, which waits for the others."""
LONGEST_REASON = 100
# In what Gloo, NCCL and JAX's coordination service say of it.
SIGNS_OF_A_LOST_PROCESS = ("Gloo", "NCCL", "heartbeat", "UNAVAILABLE")


def start(*, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes; must come before anything else that starts JAX's devices.

    Args:
      coordinator: `HOST:PORT` of the first process; "auto" where Slurm, Kubernetes or a TPU pod tells; None for a run
        of one process.
      processes: their number; not with "auto".
      process: which this one is, counted from 0; not with "auto".

    Raises:
      UserError: the arguments do not go together, nothing tells where the others are, or they do not come.
    """
    if coordinator is None:
        if processes is not None or process is not None:
            raise UserError("--processes and --process need --coordinator=HOST:PORT, the address of process 0")
        return
    address = None
    if coordinator == AUTOMATIC:
        if processes is not None or process is not None:
            raise UserError("--coordinator=auto finds --processes and --process by itself; leave them out")
    else:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator is {coordinator!r}; it must be HOST:PORT, or auto")
        if processes is None or process is None:
            raise UserError("--coordinator=HOST:PORT needs --processes=N and --process=I")
        if not 0 <= process < processes:
            raise UserError(f"--process is {process}; with --processes={processes} it must lie in 0 … {processes - 1}")
        address = coordinator
    try:
        jax.distributed.initialize(
            address,
            num_processes=processes,
            process_id=process,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=START_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the processes did not find each other ({reason}); check --coordinator") from None


@contextlib.contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Turn what JAX raises when another process is gone into one line.

    Raises:
      ProcessLostError: another process ended, or cannot be reached.
    """
    try:
        yield
    except UserError:
        raise
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # a collective of the host raises the latter
        reason = str(error).strip().partition("\n")[0]
        if jax.process_count() == 1 or not any(sign in reason for sign in SIGNS_OF_A_LOST_PROCESS):
            raise
        raise ProcessLostError(
            f"another process ended or cannot be reached ({reason[-LONGEST_REASON:]}); start all again with --resume"
        ) from error


def is_first() -> bool:
    """Whether this process writes logs, passport, figures and result; the only one of a run of one process."""
    return jax.process_index() == 0


def warn(message: str) -> None:
    """One line on standard error, from the first process alone."""
    if is_first():
        with contextlib.suppress(OSError):  # a full disk behind standard error is no reason to stop
            print(f"warning: {message}", file=sys.stderr)


def together(function: Callable[[], T]) -> T:
    """Call a function in every process and wait for all; where one fails, all do.

    Args:
      function: may do different things in different processes, but nothing that waits for another one.

    Returns:
      What the function returned in this process.

    Raises:
      UserError: that of the first other process that failed.
      Exception: what the function raised in this process.
    """
    if jax.process_count() == 1:
        return function()
    try:
        result = function()
    except Exception as error:  # whatever it is, the others must not wait for this process
        _messages(str(error).strip().partition("\n")[0] or type(error).__name__)
        error.add_note(AGREED)
        raise
    for process, message in enumerate(_messages("")):
        if message:
            raise UserError(f"process {process} ended: {message}")
    return result


def agreed(number: int) -> int:
    """The first process's number, in every process: what each lists of a shared folder may be of different age."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _messages(own: str) -> list[str]:
    """One text from every process, empty where all is well."""
    text = np.zeros(LONGEST_MESSAGE, np.uint8)
    encoded = np.frombuffer(own.encode()[:LONGEST_MESSAGE], np.uint8)
    text[: len(encoded)] = encoded
    texts = np.asarray(multihost_utils.process_allgather(text))  # [processes, LONGEST_MESSAGE]
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in texts]
