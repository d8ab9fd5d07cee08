"""What each variant chooses for itself, from the stored results of its trials."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.study.cell import Cell
from cnn_jax.study.spec import Study, trials, tuning_for
from cnn_jax.study.stored import stored_result


def choose(study: Study, cells: Sequence[Cell], directory: pathlib.Path) -> dict[str, Mapping[str, Any]]:
    """The best trial of each variant that is tuned: by the mean of the metric over the trials' seeds.

    A trial of which a run diverged or failed is not chosen; of equal ones the first is.

    Args:
      study: checked.
      cells: all trials, finished.
      directory: of the study.

    Raises:
      UserError: no trial of a variant is left, or none has the metric.
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
        if not scores:
            raise UserError(
                f"variant {variant!r}: no trial of its tuning has a finite {tuning.metric!r};"
                " widen study.tuning.grid, or give the metric of a split that the config has"
            )
        chosen[variant] = trials(tuning)[min(scores)[1]]
    return chosen


def _score(cell: Cell, directory: pathlib.Path, metric: str) -> float:
    """NaN for a run without the number."""
    result = stored_result(cell.folder(directory))
    value = (result or {}).get("metrics", {}).get(metric)
    return math.nan if value is None else float(value)
