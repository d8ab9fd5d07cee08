"""Two logs of a run, number by number: equal, or where they part."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TIME = "time"
"""The key of what differs between equal runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowDifference:
    """Two lines of a log that should be equal.

    Attributes:
      step: of the first of the two.
      then: the first log's line without its times, or None where it has none.
      now: the second's.
    """

    step: int
    then: Mapping[str, Any] | None
    now: Mapping[str, Any] | None

    def report(self) -> list[str]:
        """The numbers that differ, and by how much, for people."""
        if self.then is None or self.now is None:
            side, there = ("first", self.now) if self.then is None else ("second", self.then)
            return [f"the {side} has no line with {', '.join(name for name in there or {} if name != 'step')}"]
        names = [*self.then, *(name for name in self.now if name not in self.then)]
        return [
            f"{name}: {_side(self.then, name)} -> {_side(self.now, name)}{_by(self.then.get(name), self.now.get(name))}"
            for name in names
            if not _same(self.then, self.now, name)
        ]


def without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line's numbers as `metrics.jsonl` keeps them: a number that is not finite is None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
        if name != TIME
    }


def compare_rows(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> RowDifference | None:
    """None where two lines are equal to the bit, but for their times."""
    a, b = (None if row is None else without_times(row) for row in (then, now))
    if a == b:
        return None
    return RowDifference(step=min(row["step"] for row in (a, b) if row is not None), then=a, now=b)


def first_difference(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> RowDifference | None:
    """Where two logs part, or None. Lines of one step with other keys are in the order in which they were written."""
    for index in range(max(len(then), len(now))):
        sides = (log[index] if index < len(log) else None for log in (then, now))
        found = compare_rows(*sides)
        if found is not None:
            return found
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Largest:
    """How far two logs are apart in one metric.

    Attributes:
      metric: its name.
      step: where the difference is largest.
      then: the first log's number there.
      now: the second's.
      differing: how many of the steps that both have differ.
      compared: how many steps both have.
    """

    metric: str
    step: int
    then: float | None
    now: float | None
    differing: int
    compared: int

    def __str__(self) -> str:
        apart = f"{self.differing} of {self.compared} differ, most at step {self.step}"
        return f"{self.metric}: {apart}: {self.then} -> {self.now}{_by(self.then, self.now)}"


def largest_differences(then: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[Largest]:
    """Of every metric that differs at a step that both logs have, the largest difference."""
    logs = [{}, {}]
    for log, rows in zip(logs, (then, now), strict=True):
        for row in rows:
            for name, value in without_times(row).items():
                log.setdefault(name, {})[row["step"]] = value
    found = []
    for metric in (name for name in logs[0] if name in logs[1] and name != "step"):
        a, b = logs[0][metric], logs[1][metric]
        both = [step for step in a if step in b]
        differing = [step for step in both if a[step] != b[step]]
        if differing:
            # A number against none is the largest of all.
            step = max(differing, key=lambda at: _distance(a[at], b[at]))
            found.append(
                Largest(
                    metric=metric,
                    step=step,
                    then=a[step],
                    now=b[step],
                    differing=len(differing),
                    compared=len(both),
                )
            )
    return found


def _distance(then: Any, now: Any) -> float:
    numbers = isinstance(then, int | float) and isinstance(now, int | float)
    return abs(now - then) if numbers else math.inf


def _side(row: Mapping[str, Any], name: str) -> str:
    return repr(row[name]) if name in row else "absent"


def _same(then: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    return name in then and name in now and then[name] == now[name]


def _by(then: Any, now: Any) -> str:
    if not math.isfinite(_distance(then, now)):
        return ""
    relative = f", relative {abs((now - then) / then):.1e}" if then else ""
    return f" ({now - then:+.3g}{relative})"
