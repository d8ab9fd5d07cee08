"""What each variant chooses for itself, from the stored results of its trials."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.errors import UserError, unknown_name
from cnn_jax.study.cell import Cell
from cnn_jax.study.spec import Study, Tuning, trials, tuning_for
from cnn_jax.study.stored import stored_result


def choose(study: Study, cells: Sequence[Cell], directory: pathlib.Path) -> dict[str, Mapping[str, Any]]:
    """The best trial of each variant that is tuned: by the mean of the metric over the trials' seeds.

    A trial of which a run diverged or failed is not chosen; of equal ones the first is. Where none is left the first
    trial is, whose runs then show what became of them: that a variant trains nowhere is a result.

    Args:
      study: checked.
      cells: all trials, finished.
      directory: of the study.

    Raises:
      UserError: trials ended well, but none of them has the metric.
    """
    chosen: dict[str, Mapping[str, Any]] = {}
    for variant in dict.fromkeys(cell.variant for cell in cells):
        tuning = _tuning_of(study, variant)
        scores = _scores(tuning, [cell for cell in cells if cell.variant == variant], directory)
        results = [stored_result(cell.folder(directory)) or {} for cell in cells if cell.variant == variant]
        known = {name for result in results for name in result.get("metrics", {})}
        if not scores and known and tuning.metric not in known:
            raise unknown_name("study.tuning.metric", tuning.metric, known)
        chosen[variant] = trials(tuning)[_best(tuning, scores)]
    return chosen


def remarks(study: Study, cells: Sequence[Cell], directory: pathlib.Path) -> tuple[str, ...]:
    """What a reader must know of the choices: that there was none to make, or that it lies at the end of a grid.

    Args:
      study: checked.
      cells: trials, as far as they are done.
      directory: of the study.
    """
    found = []
    for variant in dict.fromkeys(cell.variant for cell in cells):
        tuning = _tuning_of(study, variant)
        scores, tried = _scores(tuning, [cell for cell in cells if cell.variant == variant], directory), trials(tuning)
        if not scores:
            found.append(f"{variant}: no trial of its tuning ended well; the first one was taken")
        elif len(tried) > 1 and len(scores) == len(tried) and len(set(scores.values())) == 1:
            found.append(f"{variant}: all {len(tried)} trials of its tuning scored the same; the first one was taken")
        else:
            chosen = tried[_best(tuning, scores)]
            found += [
                f"{variant}: tuning chose {path}={chosen[path]:g}, the end of what it tried ({values[0]:g} to"
                f" {values[-1]:g}); beyond it may be better"
                for path, grid in tuning.grid.items()
                if len(values := sorted(value for value in grid if isinstance(value, int | float))) > 2
                and chosen[path] in (values[0], values[-1])
            ]
    return tuple(found)


def _tuning_of(study: Study, variant: str) -> Tuning:
    tuning = tuning_for(study, variant)
    assert tuning is not None, "it has trials"
    return tuning


def _scores(tuning: Tuning, cells: Sequence[Cell], directory: pathlib.Path) -> dict[int, float]:
    """The number of each trial of one variant all of whose runs ended well, and its mean over seeds."""
    found = {}
    for number in range(len(trials(tuning))):
        values = [_score(cell, directory, tuning.metric) for cell in cells if cell.trial == number]
        if values and all(math.isfinite(value) for value in values):
            found[number] = sum(values) / len(values)
    return found


def _best(tuning: Tuning, scores: Mapping[int, float]) -> int:
    """The number of the best trial: of equal ones the first, and where there is none the first of all."""
    sign = -1.0 if tuning.direction == "higher" else 1.0
    return min(scores, key=lambda number: (sign * scores[number], number), default=0)


def _score(cell: Cell, directory: pathlib.Path, metric: str) -> float:
    """NaN for a run without the number."""
    result = stored_result(cell.folder(directory))
    value = (result or {}).get("metrics", {}).get(metric)
    if value is not None and not isinstance(value, int | float):
        raise UserError(f"{cell.folder(directory)} is damaged: its {metric} is {value!r}")
    return math.nan if value is None else float(value)
