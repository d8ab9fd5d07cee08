"""How numbers of a study are shown: units, decimals, signs and intervals."""

import dataclasses
import math
from collections.abc import Iterable

from cnn_jax.study.outcome import Interval
from cnn_jax.study.sentence import measure_words
from cnn_jax.study.spec import Measure

COSTS = {"parameters": "parameters", "multiply_accumulates": "MACs", "seconds": "seconds, wall time"}
"""Numbers of a run that say what a variant costs, and their titles."""
NONE = "–"
"""Stands where there is no number."""
SHARE_DECIMALS = 2
SIGNIFICANT = 4
"""Digits of a number that comes without a spread."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How one measure is shown.

    Attributes:
      name: of the measure.
      label: the same with its unit.
      difference: what its differences are, with their unit.
      factor: from the measure's own unit to the one shown.
      better: which way is better, in words.
    """

    name: str
    label: str
    difference: str
    factor: float
    better: str


def scale_of(name: str, measure: Measure) -> Scale:
    """A share is shown in percent, and its differences in percentage points.

    Args:
      name: of the measure.
      measure: its section of the study.
    """
    better, name = f"{measure.direction} is better", measure_words(name)
    if measure.log:
        return Scale(name=f"ln({name})", label=f"ln({name})", difference="difference", factor=1.0, better=better)
    if measure.share:
        points = "difference in percentage points"
        return Scale(name=name, label=f"{name} (%)", difference=points, factor=100.0, better=better)
    return Scale(name=name, label=name, difference="difference", factor=1.0, better=better)


def decimals_of(spread: float, scale: Scale) -> int | None:
    """Decimals that show two digits of a spread; those of percentages are fixed, so that tables align.

    Args:
      spread: a standard deviation or half an interval, in the measure's unit.
      scale: of the measure.

    Returns:
      None where the spread does not tell.
    """
    if scale.factor != 1.0:
        return SHARE_DECIMALS
    if not math.isfinite(spread) or spread <= 0:
        return None
    return max(0, 1 - math.floor(math.log10(spread)))


def number(value: float | None, *, decimals: int | None = None, signed: bool = False) -> str:
    """A number with a true minus sign.

    Args:
      value: NaN, infinity and None are a dash.
      decimals: behind the point; by default four digits are significant.
      signed: whether a positive one has a plus sign.

    Example:
      >>> number(-0.12345), number(1.5, decimals=2, signed=True), number(1234567.0), number(None)
      ('−0.1235', '+1.50', '1,234,567', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    sign = "+" if signed else "-"
    if decimals is not None and decimals <= 6 and abs(value) < 1e7:
        text = f"{value:{sign},.{decimals}f}"
        if not text.strip("+-0.,"):  # rounded to zero: −0.00 would say more than is known
            text = text.lstrip("+-")
    elif float(value).is_integer() and abs(value) < 1e15:
        text = f"{value:{sign},.0f}"
    else:
        text = f"{value:{sign}.{SIGNIFICANT}g}"
    return text.replace("-", "−")


def mean_and_deviation(mean: float, deviation: float, scale: Scale) -> str:
    """Mean ± sample standard deviation, in the unit shown.

    Example:
      >>> mean_and_deviation(0.91234, 0.0041, Scale("accuracy", "accuracy (%)", "difference", 100.0, ""))
      '91.23 ± 0.41'
    """
    decimals = decimals_of(deviation, scale)
    shown = number(mean * scale.factor, decimals=decimals)
    if not math.isfinite(deviation):
        return shown
    return f"{shown} ± {number(deviation * scale.factor, decimals=decimals)}"


def estimate(interval: Interval, scale: Scale) -> str:
    """A difference with its interval, in the unit shown.

    Example:
      >>> estimate(Interval(0.012, -0.003, 0.027, 0.1, 5), Scale("accuracy", "accuracy (%)", "difference", 100.0, ""))
      '+1.20 [−0.30, +2.70]'
    """
    decimals = decimals_of((interval.high - interval.low) / 2, scale)
    low, mean, high = (
        number(value * scale.factor, decimals=decimals, signed=True)
        for value in (interval.low, interval.mean, interval.high)
    )
    return mean if math.isnan(interval.low) else f"{mean} [{low}, {high}]"


def probability(value: float) -> str:
    """A probability; small ones by their bound.

    Example:
      >>> probability(0.0431), probability(0.00004), probability(float("nan"))
      ('0.043', '< 0.001', '–')
    """
    if not math.isfinite(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def span(values: Iterable[float | None]) -> str:
    """One number where all are equal, else the least and the greatest.

    Example:
      >>> span([61706.0, 61706.0]), span([100.0, 250.0, None]), span([])
      ('61,706', '100 to 250', '–')
    """
    found = sorted({value for value in values if value is not None and math.isfinite(value)})
    if not found:
        return NONE
    least, greatest = number(found[0]), number(found[-1])
    return least if least == greatest else f"{least} to {greatest}"
