r"""What the rows of a study show: summaries, differences on equal seeds, and a verdict by a fixed rule.

The rule. A comparison has a contrast of variants; x is its value on each seed that all its variants have, d the mean of
x, s the smallest effect that matters, and α = 1 − confidence. Two questions are put to it:

- *Is there an effect?* p tests the mean of x against 0, with the study's paired t interval or bootstrap.
- *Is an effect that matters excluded?* Only where s > 0. q tests the mean of x against s (claims "greater" and "not
  greater"), against −s ("less" and "not less"), or against both, of which the larger q counts ("equal"). It is 1 where
  d itself is an effect that matters.

The p of all primary comparisons are adjusted by Holm's method, and so are their q; a comparison that is not primary
keeps its own. The answer is yes where the adjusted value is below α. Then

| claim       | supported                            | refuted                                                  |
|-------------|--------------------------------------|----------------------------------------------------------|
| greater     | there is an effect, d > 0 and d ≥ s  | there is an effect and d < 0, or none and s is excluded  |
| less        | there is an effect, d < 0 and −d ≥ s | there is an effect and d > 0, or none and −s is excluded |
| equal       | an effect that matters is excluded   | there is an effect and \|d\| ≥ s                         |
| not less    | an effect that matters is excluded   | there is an effect, d < 0 and −d ≥ s                     |
| not greater | an effect that matters is excluded   | there is an effect, d > 0 and d ≥ s                      |

A claim of "greater" or "less" whose effect is there, but one of s is excluded, depends: on which size matters.
Everything else is inconclusive, as is a comparison with fewer than two pairs. For a single comparison "excluded" means
that the whole interval at the study's confidence lies on the near side of s, or within ±s for "equal": a test of
equivalence at α/2 a side, stricter than the usual one at α.

So in a study without any effect the chance that a primary comparison is called different is at most α, however many
there are, and where all effects are as large as what matters the chance that one is called excluded is at most α.

The study's verdict is that of its primary comparisons (of all where none is primary) if they agree. It depends where
some are supported and some refuted, or one depends, and the sentence has the condition. Else it is refuted where one
is, and inconclusive where one is and the others are supported.
"""

import math
from collections.abc import Mapping, Sequence, Set

from cnn_jax.study.cautions import cautions
from cnn_jax.study.outcome import COUNTED, Analysis, Interval, Judged, RunRow, Summary, Verdict
from cnn_jax.study.sentence import verdict_sentence
from cnn_jax.study.spec import (
    BASELINE,
    NULL,
    SHUFFLED,
    Comparison,
    Measure,
    Study,
    contrast_of,
    name_of,
    variants_of,
)
from cnn_jax.study.statistics import bootstrap_interval, holm, holm_levels, t_interval

DIVERGED = "diverged"
"""A measure of this name without `of` is 1 for a run that diverged and 0 for one that did not."""
ROUNDING = 1e-12
"""Contrasts below this share of their terms are 0: 0.3 − 0.1 − 0.2 is −3e-17, which all seeds may share."""

Values = dict[str, dict[int, float]]


def measure_values(measure_name: str, measure: Measure, rows: Sequence[RunRow]) -> Values:
    """A measure of every run that has it: variant to seed to value.

    Runs that failed or are missing have none. Of a run that diverged it is `measure.diverged`, taken as it is (not
    its logarithm), or none. The measure named `diverged` without `of` is 1.0 for those and 0.0 for the others. A run
    whose number is missing or not finite, or not positive where its logarithm is asked for, is left out; `analyse`
    warns of it.

    Args:
      measure_name: the number's own, where `measure.of` has no other.
      measure: from the study.
      rows: one for each variant and seed.
    """
    found: Values = {row.variant: {} for row in rows}
    for row in rows:
        value = _value(measure_name, measure, row)
        if isinstance(value, float):
            found[row.variant][row.seed] = value
    return found


def analyse(study: Study, rows: Sequence[RunRow]) -> Analysis:
    """Everything that a report says of a study, from its rows alone; their order does not matter.

    Args:
      study: checked.
      rows: at most one for each variant and seed. Those of the null variant carry the study's seeds, as all others do.

    Raises:
      UserError: a confidence that the bootstrap cannot reach.
      ValueError: two rows of one variant and seed.
    """
    placed, strangers = _placed(study, rows)
    values = {name: measure_values(name, measure, placed) for name, measure in study.measures.items()}
    summaries = {
        variant: {name: _summary(found[variant]) for name, found in values.items()} for variant in variants_of(study)
    }
    tested = _test_all(study, values)
    decisive = [tested[index] for index in _decisive(study)]
    verdict = _of_all({each.verdict for each in decisive})
    controls = {name: _against_baseline(study, name, values) for name in (NULL, SHUFFLED) if name in summaries}
    warnings = cautions(
        study,
        placed,
        strangers=strangers,
        without=_without(study, placed),
        tested=tested,
        decisive=list(dict.fromkeys(each.comparison.measure for each in decisive)),
        controls=controls,
    )
    return Analysis(summaries, tested, verdict, verdict_sentence(study, decisive, verdict), warnings)


def _placed(study: Study, rows: Sequence[RunRow]) -> tuple[tuple[RunRow, ...], int]:
    """A row for every variant and seed of the study, in its order, and the number of rows that belong to none."""
    found: dict[tuple[str, int], RunRow] = {}
    for row in rows:
        if (row.variant, row.seed) in found:
            raise ValueError(f"two rows of variant {row.variant!r} and seed {row.seed}")
        found[row.variant, row.seed] = row
    cells = [(variant, seed) for variant in variants_of(study) for seed in study.seeds]
    placed = tuple(found.pop(cell, RunRow(*cell, "missing")) for cell in cells)
    return placed, len(found)


def _value(name: str, measure: Measure, row: RunRow) -> float | str | None:
    """The measure of a run, or why it has none although it ended well, or None because it did not."""
    own = name == DIVERGED and not measure.of
    if row.status == "diverged":
        return 1.0 if own else measure.diverged
    if row.status not in COUNTED:
        return None
    terms = [0.0]
    for key, weight in {} if own else (measure.of or {name: 1.0}).items():
        stored = row.values.get(key)
        if stored is None:
            return f"there is no {key!r}"
        terms.append(weight * float(stored))
    number = sum(terms)  # fsum raises where infinities meet
    if not math.isfinite(number):
        return "it is not finite"
    if not measure.log:
        return number
    return math.log(number) if number > 0 else "it is not positive, so it has no logarithm"


def _without(study: Study, rows: Sequence[RunRow]) -> dict[tuple[str, str, str], int]:
    """(measure, variant, reason) to how many runs that ended well lack the measure."""
    found: dict[tuple[str, str, str], int] = {}
    for name, measure in study.measures.items():
        for row in rows:
            reason = _value(name, measure, row)
            if isinstance(reason, str):
                found[name, row.variant, reason] = found.get((name, row.variant, reason), 0) + 1
    return found


def _summary(values: Mapping[int, float]) -> Summary:
    n = len(values)
    mean = math.fsum(values.values()) / n if n else math.nan
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values.values()) / (n - 1)) if n > 1 else math.nan
    return Summary(mean, deviation, n, dict(values))


def _decisive(study: Study) -> list[int]:
    """The comparisons that the verdict rests on: the primary ones, or all."""
    return [index for index, each in enumerate(study.comparisons) if each.primary] or [*range(len(study.comparisons))]


def _contrast(weights: Mapping[str, float], values: Values, study: Study) -> dict[int, float]:
    """Seed to contrast, for the seeds that all its variants have."""
    found = {}
    for seed in study.seeds:
        if all(seed in values[variant] for variant in weights):
            terms = [weight * values[variant][seed] for variant, weight in weights.items()]
            total = math.fsum(terms)
            found[seed] = 0.0 if abs(total) <= ROUNDING * max(map(abs, terms)) else total
    return found


def _interval(study: Study, values: Sequence[float], confidence: float) -> Interval:
    if study.interval == "bootstrap":
        return bootstrap_interval(values, confidence=confidence)
    return t_interval(values, confidence=confidence)


def _test_all(study: Study, values: Mapping[str, Values]) -> tuple[Judged, ...]:
    """Every comparison, tested and judged by the rule above."""
    level = 1 - study.confidence
    contrasts = [_contrast(contrast_of(each), values[each.measure], study) for each in study.comparisons]
    plain = [_interval(study, [*found.values()], study.confidence) for found in contrasts]
    # A comparison that cannot be tested was planned none the less: it counts in Holm's number as one without effect.
    p_values = [1.0 if found.n < 2 else found.p for found in plain]
    excluded = [
        _p_excluded(study, index, [*found.values()]) if len(found) > 1 else 1.0 for index, found in enumerate(contrasts)
    ]
    decisive = _decisive(study)
    levels = [level] * len(p_values)
    for index, found in zip(decisive, holm_levels([p_values[i] for i in decisive], level=level), strict=True):
        levels[index] = found
    adjusted_p, adjusted_excluded = _adjusted(p_values, decisive), _adjusted(excluded, decisive)
    return tuple(
        Judged(
            comparison=comparison,
            name=name_of(comparison),
            differences=found,
            interval=plain[index],
            adjusted_p=adjusted_p[index] if len(found) > 1 else math.nan,
            adjusted=_interval(study, [*found.values()], 1 - levels[index]),
            left_out=len(study.seeds) - len(found),
            verdict=_judge(
                comparison,
                plain[index].mean,
                different=adjusted_p[index] < level,
                excluded=adjusted_excluded[index] < level,
            ),
        )
        for index, (comparison, found) in enumerate(zip(study.comparisons, contrasts, strict=True))
    )


def _adjusted(p_values: Sequence[float], decisive: Sequence[int]) -> list[float]:
    """Holm's p of the decisive ones, their own of the others."""
    found = list(p_values)
    for index, p in zip(decisive, holm([p_values[i] for i in decisive]), strict=True):
        found[index] = p
    return found


def _p_excluded(study: Study, index: int, values: Sequence[float]) -> float:
    """The q of the rule."""
    comparison = study.comparisons[index]
    smallest, mean = comparison.smallest, math.fsum(values) / len(values)
    bounds, effect = {
        "greater": ((smallest,), mean),
        "less": ((-smallest,), -mean),
        "equal": ((-smallest, smallest), abs(mean)),
        "not_less": ((-smallest,), -mean),
        "not_greater": ((smallest,), mean),
    }[comparison.claim]
    if smallest == 0 or _matters(effect, smallest):
        return 1.0
    return max(_interval(study, [value - bound for value in values], study.confidence).p for bound in bounds)


def _matters(effect: float, smallest: float) -> bool:
    # 0.93 − 0.92 is 0.010000000000000009, 0.94 − 0.93 is 0.009999999999999898.
    return effect >= smallest * (1 - 1e-9)


def _judge(comparison: Comparison, mean: float, *, different: bool, excluded: bool) -> Verdict:
    """The table of the rule."""
    matters = _matters(abs(mean), comparison.smallest)
    contrary = {"equal": True, "not_less": mean < 0, "not_greater": mean > 0}.get(comparison.claim)
    if contrary is not None:
        return "supported" if excluded else "refuted" if different and matters and contrary else "inconclusive"
    as_claimed = mean > 0 if comparison.claim == "greater" else mean < 0
    if different and as_claimed:
        return "supported" if matters else "depends" if excluded else "inconclusive"
    return "refuted" if excluded or different else "inconclusive"


def _of_all(verdicts: Set[Verdict]) -> Verdict:
    if "depends" in verdicts or {"supported", "refuted"} <= verdicts:
        return "depends"
    order: tuple[Verdict, ...] = ("refuted", "inconclusive", "supported")
    return next(verdict for verdict in order if verdict in verdicts)


def _against_baseline(study: Study, control: str, values: Mapping[str, Values]) -> dict[str, Interval]:
    """Measure to the interval of control − baseline."""
    weights = {control: 1.0, BASELINE: -1.0}
    return {
        name: _interval(study, [*_contrast(weights, found, study).values()], study.confidence)
        for name, found in values.items()
    }
