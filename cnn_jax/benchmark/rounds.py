"""Two sides measured in turn: worker processes that wait while the other runs, and the statistics of their rounds."""

import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnn_jax.errors import UserError

PAUSE_SECONDS = 0.05
"""Between turns: OpenMP's threads spin for some milliseconds before they sleep, and would run on the other's time."""


class WorkerError(UserError):
    """A worker process ended; the message has the last line that it wrote."""


class Worker:
    """A process that answers requests, one JSON object a line each way; use it as a context manager.

    Args:
      command: how to start it.
      environment: all of its environment variables.
      options: merged into every request.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], options: Mapping[str, Any]):
        self._options, self._name = dict(options), " ".join(pathlib.Path(part).name for part in command[:3])
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
          WorkerError: the process ended instead.
        """
        line = ""
        if self._process.stdin and self._process.stdout:
            try:
                self._process.stdin.write(json.dumps({"do": do, **self._options, **request}) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except BrokenPipeError:
                pass
        if not line:
            raise WorkerError(f"{self._name}: {self._last_words()}")
        return json.loads(line)

    def cpu_seconds(self) -> float | None:
        """Processor time that the process and those below it have used; None where the system does not tell."""
        return _cpu_seconds(self._process.pid)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit status {self._process.wait()}"

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.stdin:
            self._process.stdin.close()  # the end of its input ends it
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()


def _cpu_seconds(process: int) -> float | None:
    """Processor time of a process, its children and theirs; None where the system does not tell."""
    found: dict[int, list[str]] = {}
    for file in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(file.parent.name)] = file.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
    if process not in found:
        return None
    family = {process}
    while more := {number for number, fields in found.items() if int(fields[1]) in family} - family:
        family |= more
    # utime and stime, and the same of children that have ended.
    ticks = sum(int(field) for number in family for field in found[number][11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_in_turn(
    sides: Mapping[str, Callable[[int], float]],
    *,
    rounds: int,
    turn_seconds: float,
    budget_seconds: float,
    most_rounds: int = 25,
) -> dict[str, list[float]]:
    """Seconds per step of each side in each round.

    Each side first takes a turn that is not counted, which sets how many steps its turns have. Then the sides take
    turns; every second round has them in the opposite order, so that neither always follows the other.

    Args:
      sides: name to a function that takes so many steps and returns the seconds they took.
      rounds: at least this many.
      turn_seconds: how long a turn should last.
      budget_seconds: more rounds are made while they fit into this.
      most_rounds: at most this many.
    """
    started, steps = time.perf_counter(), {}
    for name, run in sides.items():
        time.sleep(PAUSE_SECONDS)
        steps[name] = max(1, round(turn_seconds / max(run(2) / 2, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    names, done = tuple(sides), 0
    while done < rounds or (done < most_rounds and _fits(started, done, budget_seconds)):
        for name in names if done % 2 == 0 else reversed(names):
            time.sleep(PAUSE_SECONDS)
            found[name].append(sides[name](steps[name]) / steps[name])
        done += 1
    return found


def _fits(started: float, done: int, budget_seconds: float) -> bool:
    """Whether one more round would end within the budget."""
    return (time.perf_counter() - started) * (done + 1) / done <= budget_seconds


def busy_seconds() -> float | None:
    """Processor time that all processes of the machine have used; None where the system does not tell."""
    try:
        first = pathlib.Path("/proc/stat").read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, *interrupts = (int(field) for field in first.split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def compare(ours: Sequence[float], peer: Sequence[float] | None) -> dict[str, float | list[float] | int | None]:
    """Examples per second of both sides, and how much faster ours is.

    Args:
      ours: examples per second, one a round.
      peer: those of the peer in the same rounds, or None where there is none.

    Returns:
      `ours` and `peer`, the medians over rounds; `ratio`, the median of the rounds' ratios ours / peer (above 1: ours
      is faster); each with a `_spread`, the least and the greatest; and `rounds`.

    Example:
      >>> compare([10.0, 5.0, 2.5], [5.0, 5.0, 5.0])["ratio_spread"]
      [0.5, 2.0]
    """
    row: dict[str, Any] = {"rounds": len(ours)}
    ratios = None if peer is None else [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    values = {"ours": ours, "peer": peer, "ratio": ratios}
    for name, numbers in values.items():
        row[name] = None if numbers is None else statistics.median(numbers)
        row[f"{name}_spread"] = None if numbers is None else [min(numbers), max(numbers)]
    return row
