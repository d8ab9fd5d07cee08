"""What differs between two run directories: config, code, data, environment, log, checkpoints and result."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.train.compare_passports import compare_passports
from cnn_jax.train.compare_traces import Largest, RowDifference, first_difference, largest_differences
from cnn_jax.train.differences import ABSENT, Difference, differences
from cnn_jax.train.run_directory import CHECKPOINTS, CONFIG, METRICS, RESULT, read_json, read_sessions
from cnn_jax.train.writers import read_rows

TIMES = ("wall_seconds", "examples_per_second")
TOLD_ELSEWHERE = ("config_sha256", "commit", "commits", "dirty", "hardware", "data", "seed", "model", "per_class")
"""Keys of a result that repeat config or passport, or, as `per_class`, are more than a line can tell."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDifferences:
    """Two run directories, side by side.

    Attributes:
      config: keys of `config.json`.
      environment: code, data, versions, hardware and flags of the first sessions, and later sessions' own changes.
      trace: the first lines of the log that differ, or None.
      lines: how many lines each log has.
      largest: per metric, where both logs have a number.
      checkpoints: steps that one side alone has saved.
      result: keys of `result.json`.
      aside: times, commands and hosts, which make no run another one.
      unknown: what cannot be compared, because a run does not record it.
    """

    config: Sequence[Difference]
    environment: Sequence[Difference]
    trace: RowDifference | None
    lines: tuple[int, int]
    largest: Sequence[Largest]
    checkpoints: Sequence[Difference]
    result: Sequence[Difference]
    aside: Sequence[Difference]
    unknown: Sequence[str]

    @property
    def equal(self) -> bool:
        """Whether nothing differs but times, commands, hosts, and what is not recorded."""
        return not (self.config or self.environment or self.trace or self.checkpoints or self.result)

    def report(self, *, aside: bool = False) -> list[str]:
        """The lines for people.

        Args:
          aside: with times, commands and hosts.
        """
        lines = []
        for title, changes in (("config", self.config), ("environment, code and data", self.environment)):
            lines += _titled(title, changes)
        if self.trace is not None:
            lines += [f"log ({self.lines[0]} and {self.lines[1]} lines), first at step {self.trace.step}:"]
            lines += [f"  {line}" for line in self.trace.report()]
            lines += _titled("log, largest difference of each metric", self.largest)
        lines += _titled("checkpoints", self.checkpoints) + _titled("result", self.result)
        lines = lines or ["no difference"]
        lines += _titled("not known, because a run does not record it", self.unknown)
        return lines + (_titled("times, commands and hosts", self.aside) if aside else [])

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        plain = {
            name: [each.as_json() for each in getattr(self, name)]
            for name in ("config", "environment", "checkpoints", "result", "aside")
        }
        trace = (
            None if self.trace is None else {"step": self.trace.step, "then": self.trace.then, "now": self.trace.now}
        )
        largest = [dataclasses.asdict(each) for each in self.largest]
        log = {"lines": list(self.lines), "first_difference": trace, "largest": largest}
        return {"equal": self.equal, **plain, "log": log, "unknown": list(self.unknown)}


def run_differences(first: pathlib.Path, second: pathlib.Path) -> RunDifferences:
    """Compare two run directories; nothing is built or computed, so that runs of any version can be compared.

    Args:
      first: a run directory, finished or not.
      second: another one.

    Raises:
      UserError: one is no run directory, or damaged.
    """
    runs = [path.expanduser() for path in (first, second)]
    config = differences(*(read_json(run / CONFIG) for run in runs), path="config")
    sessions = [read_sessions(run) for run in runs]
    passports = compare_passports(sessions[0][0], sessions[1][0])
    environment = list(passports.changes)
    # A seed is of the config, and so is all that the first session was given, unless somebody edited the file.
    for run, own in zip(runs, sessions, strict=True):
        begun = own[0].get("config")
        edited = [] if begun is None else differences(begun, read_json(run / CONFIG), path="config.json")
        later = [
            dataclasses.replace(change, what=f"session {number}: {change.what}")
            for number, session in enumerate(own[1:], start=2)
            for change in compare_passports(own[0], session).changes
        ]
        environment += [
            dataclasses.replace(change, what=f"inside {run}: {change.what}") for change in [*edited, *later]
        ]
    environment += differences(*(len(own) for own in sessions), path="sessions")
    logs = [_rows(run) for run in runs]
    results = [_result(run) for run in runs]
    times = [{key: result[key] for key in TIMES if key in result} for result in results]
    return RunDifferences(
        config=config,
        environment=environment,
        trace=first_difference(*logs),
        lines=(len(logs[0]), len(logs[1])),
        largest=largest_differences(*logs),
        checkpoints=_checkpoints(*runs),
        result=_results(*results),
        aside=[*passports.aside, *differences(*times, path="result")],
        unknown=passports.unknown,
    )


def _rows(run: pathlib.Path) -> list[dict[str, Any]]:
    return read_rows(run / METRICS)


def _result(run: pathlib.Path) -> dict[str, Any]:
    """The content of `result.json`; {} while there is none."""
    return read_json(run / RESULT) if (run / RESULT).exists() else {}


def _results(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    if not then or not now:
        return differences(*("there" if result else "not there" for result in (then, now)), path="result.json")
    told = [{k: v for k, v in result.items() if k not in (*TIMES, *TOLD_ELSEWHERE)} for result in (then, now)]
    numbers = differences(*told, path="result")
    arrays = [result.get("per_class", {}) for result in (then, now)]
    names = sorted({*arrays[0], *arrays[1]})
    differing = [name for name in names if arrays[0].get(name) != arrays[1].get(name)]
    return numbers + [Difference(f"result.per_class.{name}", "one array", "another") for name in differing]


def _checkpoints(first: pathlib.Path, second: pathlib.Path) -> list[Difference]:
    """By the names of what is saved, which are steps; what is being written has another form of name."""
    saved = []
    for run in (first, second):
        folder = run / CHECKPOINTS
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        saved.append({name for name in names if name.isdecimal()})
    alone = sorted(saved[0] ^ saved[1], key=int)
    return [
        Difference(f"checkpoint {step}", *("there" if step in steps else ABSENT for steps in saved)) for step in alone
    ]


def _titled(title: str, lines: Sequence[Any]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else []
