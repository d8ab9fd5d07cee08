"""Verdicts and differences in words: one sentence for a study, in the units that readers think in."""

import math
from collections.abc import Sequence

from cnn_jax.study.outcome import Interval, Judged, Verdict
from cnn_jax.study.spec import BASELINE, NEEDS_SMALLEST, Measure, Study

IN_FULL = 4
"""Comparisons that a sentence gives with their numbers; of more it gives the names."""
GROUPS: tuple[tuple[Verdict, str], ...] = (
    ("supported", "supported for"),
    ("depends", "smaller than what matters for"),
    ("refuted", "refuted for"),
    ("inconclusive", "undecided for"),
)


def verdict_sentence(study: Study, tested: Sequence[Judged], verdict: Verdict) -> str:
    """The verdict of a study and what it rests on, in one sentence.

    Args:
      study: checked.
      tested: the comparisons that the verdict rests on; one or more.
      verdict: of the study.
    """
    if len(tested) == 1:
        return f"{verdict.capitalize()}: {_alone(study, tested[0])}."
    same = len({each.comparison.measure for each in tested}) == 1
    of_what = measure_words(tested[0].comparison.measure) if same and len(tested) > IN_FULL else ""
    if {each.verdict for each in tested} == {verdict} and verdict != "depends":
        count = "both" if len(tested) == 2 else f"all {len(tested)}"
        of_what = f" of {of_what}" if of_what else ""
        return f"{verdict.capitalize()} in {count} comparisons{of_what}: {_listed(study, tested, tested)}."
    parts = [
        f"{words} {_listed(study, group, tested)}"
        for kind, words in GROUPS
        if (group := [each for each in tested if each.verdict == kind])
    ]
    return f"{verdict.capitalize()}{f' ({of_what})' if of_what else ''}: {'; '.join(parts)}."


def measure_words(name: str) -> str:
    """A measure's name as running text has it.

    Example:
      >>> measure_words("test/accuracy")
      'test accuracy'
    """
    return name.replace("/", " ").replace("_", " ")


def difference_words(measure: Measure, interval: Interval) -> str:
    """A difference between two variants: percentage points of a share, a factor where logarithms are compared.

    Args:
      measure: what was measured.
      interval: of the difference; at least one value.

    Example:
      >>> difference_words(Measure(share=True), Interval(-0.0231, -0.0292, -0.017, 0.001, 5))
      '2.3 points lower'
      >>> difference_words(Measure(log=True), Interval(0.693, 0.6, 0.8, 0.001, 5))
      '2.0 times as high'
    """
    if measure.log:
        return f"{_numbers(measure, interval)[0]} times as high"
    if interval.mean == 0:
        return "the same"
    size = _numbers(measure, _turned(interval))[0]
    return f"{size}{_unit(measure)} {'lower' if interval.mean < 0 else 'higher'}"


def interval_words(study: Study, measure: Measure, interval: Interval) -> str:
    """The interval that belongs to `difference_words`, which counts in the direction of its "higher" or "lower".

    Args:
      study: for its confidence and kind of interval.
      measure: what was measured.
      interval: of the difference.
    """
    return _bracket(study, measure, interval if measure.log else _turned(interval))


def _bracket(study: Study, measure: Measure, interval: Interval) -> str:
    if interval.n < 2:
        return f"n = {interval.n}"
    kind = "bootstrap interval" if study.interval == "bootstrap" else "interval"
    _, low, high = _numbers(measure, interval)
    return f"{100 * study.confidence:g} % {kind} {low} to {high}, n = {interval.n}"


def _alone(study: Study, tested: Judged) -> str:
    comparison, interval = tested.comparison, tested.interval
    measure, words = study.measures[comparison.measure], measure_words(comparison.measure)
    if interval.n < 2:
        pairs = "no seed has" if interval.n == 0 else "only one seed has"
        return f"{pairs} {words} for every variant of {tested.name}, and a test needs two"
    bracket = interval_words(study, measure, interval)
    if comparison.variant is None:
        # Not a difference of two: nothing is higher than anything.
        return f"the contrast {tested.name} of {words} is {_contrast_words(study, tested)}"
    than = ""
    if comparison.against != BASELINE:
        than = f" {'as' if measure.log or interval.mean == 0 else 'than'} with {comparison.against}"
    matters = _matters_words(measure, tested)
    return f"with {comparison.variant} {words} is {difference_words(measure, interval)}{than} ({bracket}){matters}"


def _contrast_words(study: Study, tested: Judged) -> str:
    measure, interval = study.measures[tested.comparison.measure], tested.interval
    factor = "a factor of " if measure.log else ""
    size = f"{_numbers(measure, interval)[0]}{_unit(measure)}"
    return f"{factor}{size} ({_bracket(study, measure, interval)}){_matters_words(measure, tested)}"


def _matters_words(measure: Measure, tested: Judged) -> str:
    """What would have mattered, where the verdict cannot be understood without."""
    smallest, claim = tested.comparison.smallest, tested.comparison.claim
    if smallest == 0 or (claim not in NEEDS_SMALLEST and tested.verdict == "supported"):
        return ""
    if measure.log:
        factor = _exp(-smallest if claim in ("less", "not_less") else smallest)
        return f", where a factor of {factor:.3g} would matter"
    return f", where {100 * smallest:g} points would matter" if measure.share else f", where {smallest:g} would matter"


def _listed(study: Study, group: Sequence[Judged], tested: Sequence[Judged]) -> str:
    """Names of comparisons, with numbers where there are few and with measures where these differ."""
    several = len({each.comparison.measure for each in tested}) > 1
    items = []
    for each in group:
        comparison, measure = each.comparison, study.measures[each.comparison.measure]
        words = measure_words(comparison.measure)
        short = comparison.variant if comparison.against == BASELINE and not comparison.name else None
        if len(tested) > IN_FULL:
            detail = f" ({words})" if several else ""
        elif each.interval.n < 2:
            detail = f" ({words}: too few pairs)"
        elif comparison.variant is None:
            detail = f" ({words}: {_numbers(measure, each.interval)[0]}{_unit(measure)})"
        else:
            detail = f" ({words} {difference_words(measure, each.interval)})"
        items.append(f"{short or each.name}{detail}")
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def _unit(measure: Measure) -> str:
    return " points" if measure.share and not measure.log else ""


def _turned(interval: Interval) -> Interval:
    """The interval of the opposite difference, where the mean is negative."""
    if not interval.mean < 0:
        return interval
    return Interval(-interval.mean, -interval.high, -interval.low, interval.p, interval.n)


def _numbers(measure: Measure, interval: Interval) -> tuple[str, str, str]:
    """Mean, low and high as text, with as many decimals as the interval's width gives sense to."""
    values = [interval.mean, interval.low, interval.high]
    if measure.log:
        values = [_exp(value) for value in values]
    elif measure.share:
        values = [100 * value for value in values]
    half = (values[2] - values[1]) / 2
    scale = max(half if math.isfinite(half) else 0.0, abs(values[0]) / 1000)
    decimals = max(0, -math.floor(math.log10(scale))) if scale else 0
    if measure.share:
        decimals = max(1, decimals)
    # An end that is not 0 does not read 0, if a few more digits can prevent it.
    most = decimals + 3
    while decimals < most and any(0 < abs(value) < 0.5 * 10**-decimals for value in values[1:]):
        decimals += 1
    mean, low, high = (_signed(f"{value:,.{decimals}f}") for value in values)
    return mean, low, high


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
