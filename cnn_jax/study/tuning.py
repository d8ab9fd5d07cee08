"""What each variant chooses for itself, from the stored results of its trials."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.errors import unknown_name
from cnn_jax.study.cell import Cell
from cnn_jax.study.spec import Study, trials, tuning_for
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
        tuning = tuning_for(study, variant)
        assert tuning is not None, "it has trials"
        scores: list[tuple[float, int]] = []
        for number in range(len(trials(tuning))):
            mine = [cell for cell in cells if (cell.variant, cell.trial) == (variant, number)]
            values = [_score(cell, directory, tuning.metric) for cell in mine]
            if values and all(math.isfinite(value) for value in values):
                mean = sum(values) / len(values)
                scores.append((-mean if tuning.direction == "higher" else mean, number))
        results = [stored_result(cell.folder(directory)) or {} for cell in cells if cell.variant == variant]
        known = {name for result in results for name in result.get("metrics", {})}
        if not scores and known and tuning.metric not in known:
            raise unknown_name("study.tuning.metric", tuning.metric, known)
        chosen[variant] = trials(tuning)[min(scores)[1] if scores else 0]
    return chosen


def _score(cell: Cell, directory: pathlib.Path, metric: str) -> float:
    """NaN for a run without the number."""
    result = stored_result(cell.folder(directory))
    value = (result or {}).get("metrics", {}).get(metric)
    return math.nan if value is None else float(value)
