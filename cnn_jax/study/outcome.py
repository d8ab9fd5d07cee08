"""What a study found: a row for each run, and what is computed from the rows. Reports are made of these alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from cnn_jax.study.spec import Comparison

Verdict = Literal["supported", "refuted", "inconclusive", "depends"]
COUNTED = ("completed", "early_stopped")
"""The states of a run that has measures."""


@dataclasses.dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
      variant: its name.
      seed: the study's; runs of equal seeds are paired.
      status: "completed", "early_stopped", "diverged", "failed" (an error ended it) or "missing" (not run yet).
      values: its numbers: evaluation metrics such as `test/accuracy`, probes, `parameters`, `multiply_accumulates`,
        `steps`, `seconds` of wall time (evaluation included; where runs share a program, a share of its time),
        `examples_per_second`, and measures that are read from its log, by their own name. None where it has no such
        number.
      chosen: what tuning chose: dotted path to value.
      key: the hash of resolved config, data checksum and code version.
      commit: of the code, with "+" behind it where there were uncommitted changes.
      hardware: device, processor and cores.
      data: split to the first 16 digits of its checksum.
      message: why it failed or diverged.
    """

    variant: str
    seed: int
    status: str
    values: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    key: str = ""
    commit: str = ""
    hardware: str = ""
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate of a mean with an interval; all in the unit of what was measured.

    Attributes:
      mean: of the values.
      low: lower end; NaN with fewer than two values.
      high: upper end.
      p: two-sided probability of a mean as far from 0 if it were 0; NaN with fewer than two values.
      n: values.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """One measure of one variant over its seeds.

    Attributes:
      mean: NaN without values.
      deviation: sample standard deviation (n − 1); NaN with fewer than two values.
      n: runs with a value.
      values: seed to value.
    """

    mean: float
    deviation: float
    n: int
    values: Mapping[int, float]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A comparison with its numbers.

    Attributes:
      comparison: what was asked.
      name: for tables.
      differences: seed to the value of the contrast, for the seeds that all its variants have.
      interval: at the study's confidence.
      adjusted_p: by Holm's method, over the primary comparisons; of the others their own p.
      adjusted: interval at the level that Holm's method gives this comparison.
      left_out: pairs without a value, because a run diverged, failed or is missing.
      verdict: of this comparison.
    """

    comparison: Comparison
    name: str
    differences: Mapping[int, float]
    interval: Interval
    adjusted_p: float
    adjusted: Interval
    left_out: int
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Analysis:
    """All that is computed from the rows of a study.

    Attributes:
      summaries: variant to measure to its summary, in the study's order.
      tested: in the study's order.
      verdict: of the study.
      sentence: the verdict in one sentence, with the condition where it depends.
      warnings: what a reader must know: variants tuned more than others, runs missing, pairs left out, leakage.
    """

    summaries: Mapping[str, Mapping[str, Summary]]
    tested: tuple[Judged, ...]
    verdict: Verdict
    sentence: str
    warnings: tuple[str, ...]
