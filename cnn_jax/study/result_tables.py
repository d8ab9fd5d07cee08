"""The tables of a report that say what was found: the comparisons, and every measure of every variant."""

import math
import statistics
from collections.abc import Mapping, Sequence

from cnn_jax.study.document import Cell, Table
from cnn_jax.study.figures import CLAIMS
from cnn_jax.study.formats import COSTS, NONE, estimate, mean_and_deviation, number, probability, scale_of, span
from cnn_jax.study.outcome import COUNTED, Analysis, Interval, Judged, RunRow, Summary
from cnn_jax.study.spec import BASELINE, Study
from cnn_jax.study.statistics import bootstrap_interval, t_interval


def comparison_table(study: Study, analysis: Analysis) -> Table:
    """One row for each comparison.

    Args:
      study: checked.
      analysis: of its rows.
    """
    # Without several primary comparisons Holm's method changes nothing.
    adjusted = any(each.adjusted != each.interval and each.interval.n > 1 for each in analysis.tested)
    percent = f"{100 * study.confidence:g} %"
    header = ["comparison", "verdict", "measure", "claim", f"difference [{percent} interval]"]
    header += ["at Holm's level"] * adjusted + ["p (Holm)", "pairs", "left out"]
    rows = tuple(_comparison_row(study, each, adjusted=adjusted) for each in analysis.tested)
    return Table("Comparisons", tuple(header), rows, frozenset(range(4, len(header))))


def _comparison_row(study: Study, tested: Judged, *, adjusted: bool) -> tuple[Cell, ...]:
    comparison = tested.comparison
    scale = scale_of(comparison.measure, study.measures[comparison.measure])
    smallest = f", {number(comparison.smallest * scale.factor)} matters" if comparison.smallest else ""
    tail = estimate(tested.adjusted, scale).partition(" ")[2] or NONE
    return (
        Cell(f"{tested.name}{'' if comparison.primary else ' (not primary)'}"),
        Cell(tested.verdict, verdict=tested.verdict),
        Cell(scale.label),
        Cell(f"{CLAIMS[comparison.claim]}{smallest}"),
        Cell(estimate(tested.interval, scale), order=tested.interval.mean * scale.factor),
        *([Cell(tail, order=tested.adjusted.low * scale.factor)] if adjusted else []),
        Cell(probability(tested.adjusted_p), order=tested.adjusted_p),
        Cell(str(tested.interval.n), order=float(tested.interval.n)),
        Cell(str(tested.left_out), order=float(tested.left_out)),
    )


def variant_table(study: Study, rows: Sequence[RunRow], analysis: Analysis) -> Table:
    """Every measure of every variant, its difference to the baseline, and what the variant costs.

    Args:
      study: checked.
      rows: of its runs.
      analysis: of these.
    """
    costs = [name for name in COSTS if any(row.values.get(name) is not None for row in rows)]
    measures = {name: measure for name, measure in study.measures.items() if name not in COSTS}
    header = ["variant"]
    for name, measure in measures.items():
        scale = scale_of(name, measure)
        unit = ", points" if scale.factor != 1.0 else ""
        interval = f"[{100 * study.confidence:g} % interval]"
        header += [scale.label, "n", f"{scale.name}: difference to baseline{unit} {interval}"]
    header += [COSTS[name] for name in costs]
    lines = []
    for variant, summaries in analysis.summaries.items():
        cells = [Cell(variant)]
        for name, measure in measures.items():
            scale, summary = scale_of(name, measure), summaries[name]
            difference = Cell(NONE)
            if variant != BASELINE:
                found = to_baseline(study, analysis, variant, name)
                difference = Cell(estimate(found, scale), order=found.mean * scale.factor)
            shown = mean_and_deviation(summary.mean, summary.deviation, scale)
            cells += [Cell(shown, order=summary.mean * scale.factor), _count(summary), difference]
        counted = [row for row in rows if row.variant == variant and row.status in COUNTED]
        cells += [_cost(name, [row.values.get(name) for row in counted]) for name in costs]
        lines.append(tuple(cells))
    return Table("Measures of every variant", tuple(header), tuple(lines), frozenset(range(1, len(header))))


def to_baseline(study: Study, analysis: Analysis, variant: str, measure: str) -> Interval:
    """A variant's difference to the baseline on equal seeds, at the study's confidence, adjusted for nothing.

    Args:
      study: checked.
      analysis: of its rows.
      variant: not the baseline.
      measure: of `study.measures`.
    """
    own, baseline = (analysis.summaries[name][measure].values for name in (variant, BASELINE))
    pairs = [own[seed] - baseline[seed] for seed in sorted(own.keys() & baseline.keys())]
    found = bootstrap_interval if study.interval == "bootstrap" else t_interval
    return found(pairs, confidence=study.confidence)


def run_table(study: Study, rows: Sequence[RunRow], analysis: Analysis) -> Table:
    """One row for each run: its measures, its status and the key that it is stored under.

    Args:
      study: checked.
      rows: of its runs.
      analysis: of these.
    """
    scales = {name: scale_of(name, measure) for name, measure in study.measures.items()}
    header = ("variant", "seed", "status", *(scale.label for scale in scales.values()), "seconds", "key")
    lines = []
    for row in rows:
        summaries: Mapping[str, Summary] = analysis.summaries.get(row.variant, {})
        values = [
            (summaries[name].values.get(row.seed, math.nan) if name in summaries else math.nan) * scale.factor
            for name, scale in scales.items()
        ]
        seconds = row.values.get("seconds")
        lines.append(
            (
                Cell(row.variant),
                Cell(str(row.seed), order=float(row.seed)),
                Cell(row.status.replace("_", " ")),
                *(Cell(number(value), order=value) for value in values),
                Cell(NONE if seconds is None else f"{seconds:,.1f}", order=seconds),
                Cell((row.key or NONE)[:12]),
            )
        )
    return Table("Every run", header, tuple(lines), frozenset({1, *range(3, len(header) - 1)}))


def _count(summary: Summary) -> Cell:
    return Cell(str(summary.n), order=float(summary.n))


def _cost(name: str, values: Sequence[float | None]) -> Cell:
    """Sizes as they are, times as mean ± standard deviation."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    if not found:
        return Cell(NONE)
    mean = statistics.fmean(found)
    if name != "seconds":
        return Cell(span(found), order=mean)
    spread = f" ± {statistics.stdev(found):,.1f}" if len(found) > 1 else ""
    return Cell(f"{mean:,.1f}{spread}", order=mean)
