"""Processes that work on one study: of this machine, or jobs of a cluster."""

import contextlib
import functools
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
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
POLL_SECONDS = 1.0


def run_workers(directory: pathlib.Path, command: Sequence[str], *, workers: int, note: Note) -> None:
    """Start processes of this machine, each with its share of the cores, and wait for them.

    Args:
      directory: of the study.
      command: that works on it, and takes `--worker=I` and `--parent=PROCESS`.
      workers: how many.
      note: told what goes on.

    Raises:
      UserError: all of them ended with an error; the message is the last line of a log.
    """
    logs = directory / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    processes = []
    # One process alone would take most of a GPU's memory when it starts, and leave none to the others.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    for worker in range(workers):
        log = logs / f"worker_{worker}.log"
        own = [*command, f"--worker={worker}", f"--parent={os.getpid()}"]
        with log.open("a", encoding="utf-8") as file:
            # In a group of its own: Ctrl-C reaches this process alone, which lets the workers save before they end.
            started = subprocess.Popen(own, stdout=file, stderr=subprocess.STDOUT, env=environment, process_group=0)
            processes.append(started)
    try:
        before = -1
        while any(process.poll() is None for process in processes):
            done = len(list((directory / CELLS).glob(f"*/{RESULT}")))
            if done != before:
                note(f"{done} results; {sum(process.poll() is None for process in processes)} workers")
                before = done
            time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait()
    failed = [worker for worker, process in enumerate(processes) if process.returncode]
    if failed:
        text = (logs / f"worker_{failed[0]}.log").read_text(encoding="utf-8", errors="replace").strip()
        last = text.splitlines()[-1] if text else "it wrote nothing"
        message = f"worker {failed[0]} of {workers} ended with status {processes[failed[0]].returncode}: {last}"
        if len(failed) == workers:
            raise UserError(message.replace("error: ", ""))
        note(f"{message}; the others did its work")


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


def work_in(directory: str, worker: int, workers: int, mode: Mode | None) -> None:
    """Work on the study of a directory until it is done; what every worker does, and a job calls by its name.

    Args:
      directory: of a study that was begun.
      worker: see `runner.work`.
      workers: how many there are.
      mode: None is what the study was begun with.

    Raises:
      UserError: there is no study; or as `runner.work`.
    """
    keep_freed_memory(os.environ)  # a job is started by submitit, not by one of our commands
    path = pathlib.Path(directory)
    study, mode = read_study(path), mode or read_plan(path).mode
    work(study, path, mode=mode, worker=worker, workers=workers, note=functools.partial(print, flush=True))


def join(worker: int, workers: int, parent: int) -> None:
    """Make this process one of several: it gets its share of the cores, and ends when its parent has ended.

    Call it before JAX has a device, which counts the cores.

    Args:
      worker: its number, from 0.
      workers: how many there are; more of them than cores share all cores.
      parent: the number of the process that started it.
    """
    end_with_parent(parent)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share_of_cores(worker, workers))


def share_of_cores(worker: int, workers: int) -> list[int]:
    """The numbers of the cores that one of several workers on this machine gets.

    Args:
      worker: its number, from 0.
      workers: how many there are; more of them than cores share all cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // workers
    return cores[worker * share : (worker + 1) * share] if share else cores


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
