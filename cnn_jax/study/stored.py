"""What a study's directory holds: the study itself, and of each cell its result, its failure and its log."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.study.cell import CELLS, Cell
from cnn_jax.study.outcome import COUNTED, RunRow
from cnn_jax.study.spec import StepsTo, Study, check_study
from cnn_jax.train.config import to_plain
from cnn_jax.train.run_directory import METRICS, PASSPORT, RESULT, read_json, write_json
from cnn_jax.train.writers import read_rows
from cnn_jax.untrusted import one_line

STUDY, FAILURE = "study.json", "failure.json"
CHECKSUM_DIGITS = 16
BAD_CONTENT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What comes of values that are not those that were written."""


def write_study(directory: pathlib.Path, study: Study) -> None:
    """Keep the study in its directory.

    Raises:
      UserError: the directory holds another study.
    """
    path = directory / STUDY
    if path.exists():
        stored = read_json(path)
        for name, other, mine in (("study", stored.get("id"), study.id), ("scale", stored.get("scale"), study.scale)):
            if other != mine:
                raise UserError(f"{str(directory)!r} holds the {name} {other!r}, not {mine!r}; give another --workdir")
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, to_plain(study))


def read_study(directory: pathlib.Path) -> Study:
    """The study of a directory.

    Raises:
      UserError: there is none, or it is damaged.
    """
    if not (directory / STUDY).exists():
        raise UserError(f"{str(directory)!r} holds no {STUDY}; is it the directory of a study?")
    return check_study(read_json(directory / STUDY))


def stored_result(folder: pathlib.Path) -> dict[str, Any] | None:
    """The result of a finished run, also of one that diverged; None where there is none."""
    return read_json(folder / RESULT) if (folder / RESULT).exists() else None


def write_failure(folder: pathlib.Path, message: str) -> None:
    """Note that an error ended a run, beside it: the run itself may be locked or unwritable."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_json(failure_of(folder), {"message": message})


def forget_failures(directory: pathlib.Path) -> None:
    """Let failed runs be trained again."""
    for path in (directory / CELLS).glob(f"*.{FAILURE}"):
        path.unlink()


def failure_of(folder: pathlib.Path) -> pathlib.Path:
    """The file that says why a run failed."""
    return folder.with_name(f"{folder.name}.{FAILURE}")


def is_done(folder: pathlib.Path) -> bool:
    """Whether a cell needs no more work: it is finished, diverged or failed."""
    return (folder / RESULT).exists() or failure_of(folder).exists()


def row_of(study: Study, cell: Cell, directory: pathlib.Path) -> RunRow:
    """What is stored of a cell.

    Raises:
      UserError: it is damaged.
    """
    try:
        return _row_of(study, cell, directory)
    except UserError:
        raise
    except BAD_CONTENT as error:
        path = cell.folder(directory) / RESULT
        raise UserError(f"{path} is damaged ({_reason(error)}); delete its folder and run the study again") from None


def _reason(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")


def _row_of(study: Study, cell: Cell, directory: pathlib.Path) -> RunRow:
    folder = cell.folder(directory)
    common: dict[str, Any] = {
        "variant": cell.variant,
        "seed": cell.seed,
        "chosen": cell.chosen,
        "key": cell.key,
        "data": {split: digest[:CHECKSUM_DIGITS] for split, digest in cell.data.items()},
    }
    result = stored_result(folder)
    if result is None:
        failure = failure_of(folder)
        if failure.exists():
            return RunRow(status="failed", message=str(read_json(failure).get("message")), **common)
        return RunRow(status="missing", **common)
    values = dict(result["metrics"]) | dict(result.get("probes", {}))
    for name, value in result["metrics"].items():
        split, _, metric = name.partition("/")
        if metric == "accuracy":  # whose logarithm is of interest
            values[f"{split}/error"] = None if value is None else 1 - value
    values |= {name: result[name] for name in ("parameters", "steps") if name in result}
    together = result.get("runs_together", 1)
    values["seconds"] = result["wall_seconds"] / together
    if result["examples_per_second"] is not None:
        # Many runs of a program share its time: each has the speed that it would have had with all of it.
        values["examples_per_second"] = result["examples_per_second"] * together
    for name, measure in study.measures.items():
        if measure.steps_to is not None:
            # A run that ended early without it would seem fast.
            total = result["steps"] if result["status"] == "completed" else None
            values[name] = _first_step(measure.steps_to, folder, total=total)
    dirty = "+" if result["dirty"] else ""
    return RunRow(
        status=_status(result["status"]),
        values={name: None if value is None else float(value) for name, value in values.items()},
        commit=f"{result['commit'] or 'no commit'}{dirty}",
        hardware=_hardware(result["hardware"]),
        message=_text(result.get("message", "")),
        **common,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _status(value: Any) -> str:
    if value not in (*COUNTED, "diverged"):
        raise ValueError(f"{value!r} is no status")
    return value


def _hardware(hardware: Mapping[str, Any]) -> str:
    return f"{hardware['device']}, {hardware['processor']}, {hardware['cores']} cores"


def _first_step(wanted: StepsTo, folder: pathlib.Path, *, total: int | None) -> float | None:
    sign = 1.0 if wanted.direction == "higher" else -1.0
    known = False
    for row in read_rows(folder / METRICS):
        value = row.get(wanted.metric)
        known = known or value is not None
        if value is not None and sign * value >= sign * wanted.target:
            return float(row["step"])
    return float(total) if known and total is not None else None


Curves = Mapping[str, Mapping[str, Mapping[int, Sequence[tuple[int, float]]]]]
"""Metric to variant to seed to the logged values by step."""


def curves_of(cells: Sequence[Cell], directory: pathlib.Path, metrics: Sequence[str]) -> Curves:
    """The logged values of some metrics.

    Args:
      cells: that count.
      directory: of the study.
      metrics: such as `train/loss` and `validation/accuracy`; those that no log has are left out.
    """
    found: dict[str, dict[str, dict[int, list[tuple[int, float]]]]] = {}
    for cell in cells:
        for row in read_rows(cell.folder(directory) / METRICS):
            for metric in metrics:
                value = row.get(metric)
                if value is not None and math.isfinite(value):
                    of_variant = found.setdefault(metric, {}).setdefault(cell.variant, {})
                    of_variant.setdefault(cell.seed, []).append((int(row["step"]), float(value)))
    return {metric: found[metric] for metric in metrics if metric in found}


def passports(cells: Sequence[Cell], directory: pathlib.Path) -> list[dict[str, Any]]:
    """The newest passport of each cell that has one, in the cells' order."""
    paths = [cell.folder(directory) / PASSPORT for cell in cells]
    return [_newest(path) for path in paths if path.exists()]


def _newest(path: pathlib.Path) -> dict[str, Any]:
    """The last passport of a run, of which reports show texts by name."""
    try:
        session = read_json(path)["sessions"][-1]
        texts = {name: dict(session[name]) for name in ("versions", "flags")}
    except BAD_CONTENT as error:
        raise UserError(f"{path} is damaged ({_reason(error)})") from None
    if not all(isinstance(text, str) for known in texts.values() for text in known.values()):
        raise UserError(f"{path} is damaged: its versions and flags are no texts")
    return session
