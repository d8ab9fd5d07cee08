"""Processes that work on one study: of this machine, or jobs of a cluster."""

import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from cnn_jax.data.ahead import end_with_parent
from cnn_jax.errors import UserError
from cnn_jax.memory import keep_freed_memory
from cnn_jax.study.build import Note
from cnn_jax.study.cell import CELLS, read_plan
from cnn_jax.study.runner import work
from cnn_jax.study.stored import read_study
from cnn_jax.train.many_runs import Mode
from cnn_jax.train.run_directory import RESULT

Launcher = Literal["slurm", "local"]
LOGS = "logs"
POLL_SECONDS = 0.2
BEGIN = b"begin\n"
"""What a worker that waits is sent."""


@contextlib.contextmanager
def workers_that_wait(
    directory: pathlib.Path, command: Sequence[str], *, workers: int
) -> Iterator[Callable[[Note], None]]:
    """Start processes of this machine, each with its share of the cores, that get ready and wait to begin.

    Args:
      directory: of the study.
      command: that works on it, and takes `--worker=I`, `--parent=PROCESS` and `--wait`, see `wait_to_begin`.
      workers: how many.

    Yields:
      What lets them begin and waits for their end, and is given what is told what goes on. It raises UserError if all
      of them ended with an error; the message is the last line of a log.
    """
    logs = directory / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    # One process alone would take most of a GPU's memory when it starts, and leave none to the others.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    try:
        for worker in range(workers):
            own = [*command, f"--worker={worker}", f"--parent={os.getpid()}", "--wait"]
            with (logs / f"worker_{worker}.log").open("a", encoding="utf-8") as file:
                # In a group of its own: Ctrl-C reaches this process alone, which lets the workers save before they end.
                processes.append(
                    subprocess.Popen(
                        own,
                        stdin=subprocess.PIPE,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        process_group=0,
                    )
                )
        yield functools.partial(_finish, processes, directory)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _finish(processes: Sequence[subprocess.Popen[bytes]], directory: pathlib.Path, note: Note) -> None:
    """Let workers begin, and wait for their end."""
    for process in processes:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # one that has ended says why in its log
            process.stdin.write(BEGIN)
            process.stdin.flush()
    before = -1
    while any(process.poll() is None for process in processes):
        done = len(list((directory / CELLS).glob(f"*/{RESULT}")))
        if done != before:
            note(f"{done} results; {sum(process.poll() is None for process in processes)} workers")
            before = done
        time.sleep(POLL_SECONDS)
    failed = [worker for worker, process in enumerate(processes) if process.returncode]
    if failed:
        log = directory / LOGS / f"worker_{failed[0]}.log"
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        last = text.splitlines()[-1] if text else "it wrote nothing"
        message = f"worker {failed[0]} of {len(processes)} ended with status {processes[failed[0]].returncode}: {last}"
        if len(failed) == len(processes):
            raise UserError(message.replace("error: ", ""))
        note(f"{message}; the others did its work")


def wait_to_begin(cores: Collection[int]) -> None:
    """Wait until the process that started this one as a worker lets it begin, and take the worker's cores.

    Args:
      cores: what `join` gave.

    Raises:
      UserError: the other process has ended, or changed its mind.
    """
    if sys.stdin.buffer.readline() != BEGIN:
        raise UserError("the study ended before its workers began")
    if cores:
        _pin(cores)


def submit(
    directory: pathlib.Path,
    *,
    launcher: Launcher,
    workers: int,
    mode: Mode | None,
    parameters: Mapping[str, Any],
    note: Note,
) -> None:
    """Submit workers as jobs, by submitit, and wait for them.

    Args:
      directory: of the study, which all machines see.
      launcher: "slurm", or "local" for processes of this machine by the same way.
      workers: how many jobs.
      mode: see `runner.work`.
      parameters: of submitit's executor, such as `slurm_partition` or `timeout_min`.
      note: told what goes on.

    Raises:
      UserError: submitit is not installed, does not know a parameter, or there is no Slurm; or all jobs failed.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--launcher needs an extra: `pip install -e '.[slurm]'` in the checkout") from None
    try:
        executor = submitit.AutoExecutor(folder=directory / LOGS, cluster=launcher)
        executor.update_parameters(name="study", **{"timeout_min": 24 * 60, **parameters})
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise UserError(f"--launcher={launcher}: {error}") from None
    jobs = [executor.submit(work_in, str(directory), worker, workers, mode) for worker in range(workers)]
    note(f"submitted {', '.join(job.job_id for job in jobs)}; logs in {directory / LOGS}")
    errors = [job.exception() for job in jobs]
    failed = [(job, error) for job, error in zip(jobs, errors, strict=True) if error is not None]
    if failed:
        job, error = failed[0]
        message = f"job {job.job_id} failed: {str(error).strip().splitlines()[-1]}"
        if len(failed) == workers:
            raise UserError(message)
        note(f"{message}; the others did its work")


def work_in(
    directory: str, worker: int, workers: int, mode: Mode | None, *, wait: Callable[[], None] | None = None
) -> None:
    """Work on the study of a directory until it is done; what every worker does, and a job calls by its name.

    Args:
      directory: of a study that was begun.
      worker: see `runner.work`.
      workers: how many there are.
      mode: None is what the study was begun with.
      wait: called when the cells are built and none has begun; the plan may change until it returns.

    Raises:
      UserError: there is no study; or as `runner.work`.
    """
    keep_freed_memory(os.environ)  # a job is started by submitit, not by one of our commands
    path = pathlib.Path(directory)
    study = read_study(path)

    def planned() -> Mode | None:
        if wait is not None:
            wait()
        return mode or read_plan(path).mode

    note = functools.partial(print, flush=True)
    asked = planned() if wait is None else planned
    work(study, path, mode=asked, worker=worker, workers=workers, note=note)


def join(worker: int, workers: int, parent: int, *, wait: bool = False) -> list[int]:
    """Make this process one of several: it gets its share of the cores, and ends when its parent has ended.

    Call it before JAX has a device, which counts the cores.

    Args:
      worker: its number, from 0.
      workers: how many there are; more of them than cores share all cores.
      parent: the number of the process that started it.
      wait: it gets ready beside the parent, which measures on the cores of worker 0 meanwhile, see `as_a_worker`: those
        of another worker until `wait_to_begin` gives it its own.

    Returns:
      The numbers of its own cores; none where the system pins no process.
    """
    end_with_parent(parent)
    if not hasattr(os, "sched_setaffinity"):
        return []
    own, meanwhile = share_of_cores(worker, workers), share_of_cores(max(worker, min(1, workers - 1)), workers)
    _pin(meanwhile if wait else own)
    return own


def _pin(cores: Collection[int]) -> None:
    """Give this process these cores: all its threads, of which libraries may have started some."""
    for thread in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread may end meanwhile
            os.sched_setaffinity(int(thread.name), cores)


def share_of_cores(worker: int, workers: int) -> list[int]:
    """The numbers of the cores that one of several workers on this machine gets.

    Args:
      worker: its number, from 0.
      workers: how many there are; more of them than cores share all cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // workers
    return cores[worker * share : (worker + 1) * share] if share else cores


def have_own_cores(workers: int) -> bool:
    """Whether workers of this machine share no core, so that one may measure while the others get ready.

    Args:
      workers: how many.
    """
    return hasattr(os, "sched_getaffinity") and 1 < workers <= len(os.sched_getaffinity(0))


@contextlib.contextmanager
def as_a_worker(workers: int) -> Iterator[None]:
    """Compute with as many cores as a worker gets, for a measurement; JAX keeps the number with which it starts.

    Args:
      workers: of this machine.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, share_of_cores(0, workers))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
