"""Where a run's numbers go while it runs: a log file, the terminal, and TensorBoard on request."""

import contextlib
import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import rich.console
import rich.progress
from rich.table import Column

from cnn_jax.errors import StorageError, UserError
from cnn_jax.train.distributed import warn
from cnn_jax.untrusted import parse_json, read_regular

Row = Mapping[str, Any]
# What fits a line of the terminal; the log file has everything.
SHOWN = ("/loss", "/accuracy", "/learning_rate", "/gradient_norm")


@runtime_checkable
class Writer(Protocol):
    """Takes one row of numbers at a time."""

    def write(self, step: int, row: Row) -> None:
        """Take the numbers of one step; `row["time"]` holds those that differ between equal runs."""
        ...

    def flush(self) -> None:
        """Called before a checkpoint is saved: what a resumed run cannot write again must be on disk now."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class JsonLines:
    """`metrics.jsonl`: one JSON object a line, on disk before the next checkpoint is.

    A line that cannot be written, as on a full disk, is kept and tried again with the next; training goes on, until a
    checkpoint needs it.

    Args:
      path: the file; created if it is not there.
      resume_step: on resuming, drop the lines after this step, which the resumed run writes again.
      unevaluated: the evaluation of that step is still to be made, so its line is dropped too.

    Raises:
      StorageError: what is there cannot be written again.
    """

    def __init__(self, path: pathlib.Path, *, resume_step: int, unevaluated: bool = False):
        self._path = path
        kept = [row for row in read_rows(path) if row["step"] <= resume_step]
        if unevaluated:
            kept = [row for row in kept if row["step"] < resume_step or "epoch" in row]  # lines of training have one
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in kept))
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
            temporary.replace(path)
            self._file = path.open("r+b", buffering=0)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._cannot(error) from error
        self._waiting = b""

    def write(self, step: int, row: Row) -> None:
        """Append one line; JSON has no NaN, so a number that is not finite becomes null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        first = not self._waiting
        self._waiting += (json.dumps({"step": step, **finite}, allow_nan=False) + "\n").encode()
        try:
            self._append()
        except OSError as error:
            if first:
                warn(f"{self._cannot(error)}; training goes on, the line is tried again")

    def _append(self) -> None:
        """Write what waits behind the last whole line; a part of a line that a failed attempt left is cut off."""
        self._file.seek(self._end)
        left = memoryview(self._waiting)
        while left:
            left = left[self._file.write(left) :]
        self._file.truncate()
        os.fsync(self._file.fileno())
        self._end += len(self._waiting)
        self._waiting = b""

    def flush(self) -> None:
        """Write the lines that could not be written before.

        Raises:
          StorageError: they still cannot.
        """
        if not self._waiting:
            return
        try:
            self._append()
        except OSError as error:
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> StorageError:
        return StorageError(f"{self._path} cannot be written: {error.strerror}")

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(StorageError):  # whoever closes after an error has been told already
            self.flush()
        self._file.close()


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that was cut off by a kill is left out.

    Raises:
      UserError: another line is damaged, or the file cannot be read.
    """
    if not path.exists():
        return []
    rows = []
    try:
        lines = read_regular(path).decode("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int) and _all_numbers(row):
            rows.append(row)
        elif number < len(lines):
            raise UserError(f"{path}, line {number}, is damaged; mend or delete the line")
    return rows


def _all_numbers(row: Row) -> bool:
    """Whether all but the times are numbers that a float can hold, or None."""
    return all(
        value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**1000)
        for name, value in row.items()
        if name != "time"
    )


class TensorBoard:
    """TensorBoard event files, written by tensorboardX (extra `tensorboard`).

    Args:
      directory: where the event files go.
      resume_step: events after this step are hidden.

    Raises:
      UserError: the extra is not installed.
    """

    def __init__(self, directory: pathlib.Path, *, resume_step: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError(
                "train.tensorboard needs an extra; run `pip install -e '.[tensorboard]'` in the checkout"
            ) from None
        self._writer = SummaryWriter(str(directory), purge_step=resume_step + 1)
        self._failed = False

    def write(self, step: int, row: Row) -> None:
        """Add every number as a scalar; after an error of the disk no more: the same numbers are in the log."""
        try:
            for name, value in row.items() if not self._failed else ():
                if name != "time":
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._failed = True
            warn(f"TensorBoard's files cannot be written ({error.strerror}); training goes on without them")

    def flush(self) -> None:
        """Nothing: a resumed run can do without."""

    def close(self) -> None:
        """Flush the event file."""
        with contextlib.suppress(OSError):
            self._writer.close()


class Terminal:
    """A live progress bar on a terminal; plain lines elsewhere.

    Args:
      total_steps: length of the run.
      resume_step: steps already done.
      console: where to show it; standard error by default.
    """

    def __init__(self, *, total_steps: int, resume_step: int, console: rich.console.Console | None = None):
        self._console = console or rich.console.Console(file=sys.stderr)
        self._total = total_steps
        self._latest: dict[str, float] = {}
        self._progress = None
        if self._console.is_terminal:
            # The numbers give way on a narrow terminal, never the bar, the count and the remaining time.
            count, remaining = len(f"{total_steps}/{total_steps}"), len("0:00:00")
            columns = (
                rich.progress.BarColumn(bar_width=12, table_column=Column(min_width=12, no_wrap=True)),
                rich.progress.MofNCompleteColumn(table_column=Column(min_width=count, no_wrap=True)),
                rich.progress.TimeRemainingColumn(table_column=Column(min_width=remaining, no_wrap=True)),
                rich.progress.TextColumn(
                    "{task.fields[numbers]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
                ),
            )
            self._progress = rich.progress.Progress(*columns, console=self._console, expand=True)
            self._bar = self._progress.add_task(
                "training", total=total_steps, completed=resume_step, numbers="compiling"
            )
            self._progress.start()

    def write(self, step: int, row: Row) -> None:
        """Show the latest loss and accuracy of each split, where there is still somebody to show it to."""
        with contextlib.suppress(OSError):
            self._show(step, row)

    def _show(self, step: int, row: Row) -> None:
        self._latest |= {name: value for name, value in row.items() if name.endswith(SHOWN)}
        if self._progress is not None:
            self._progress.update(self._bar, completed=step, numbers=self._summary())
        else:
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name.endswith(SHOWN))
            self._console.print(f"step {step}/{self._total}  {numbers}", highlight=False, soft_wrap=True)

    def _summary(self) -> str:
        """Such as `loss 0.582/0.571  accuracy 0.987/1.000`: training, then validation."""
        parts = []
        for metric in ("loss", "accuracy"):
            values = [self._latest.get(f"{split}/{metric}") for split in ("train", "validation")]
            shown = "/".join(f"{value:.3f}" for value in values if value is not None)
            parts += [f"{metric} {shown}"] if shown else []
        return "  ".join(parts)

    def flush(self) -> None:
        """Nothing: what was shown is gone."""

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            with contextlib.suppress(OSError):
                self._progress.stop()
