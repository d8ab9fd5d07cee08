"""Is a run what it says? Train its first steps anew from config and passport, and compare number by number."""

import contextlib
import copy
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from cnn_jax.errors import UserError
from cnn_jax.train.compare_passports import compare_passports, section
from cnn_jax.train.compare_traces import RowDifference, compare_rows
from cnn_jax.train.config import Config, config_digest, resolve, to_plain
from cnn_jax.train.config_file import plain
from cnn_jax.train.differences import Difference, differences
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.passport import files_changed_since, make_passport
from cnn_jax.train.program_record import is_record
from cnn_jax.train.retrace import DIVERGED, Rebuilt, last_line, next_check, rebuild, trace
from cnn_jax.train.run_directory import CONFIG, METRICS, PASSPORT, RESULT, read_json, read_sessions
from cnn_jax.train.writers import read_rows

Note = Callable[[str], None]
NO_CAUSE = (
    "the log was changed, or this device does not compute the same twice"
    " (a GPU does with XLA_FLAGS=--xla_gpu_deterministic_ops=true)"
)
SEEDS_ALONE = {"mode": "sequential", "devices": 1, "place": 0, "runs": [{}], "among": [{}]}
"""The record of a run that shares its program with runs of other seeds, one after the other."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of it.

    Attributes:
      lines: how many lines of the log were equal, to the bit.
      step: the last step that has a line to compare.
      equal_until: the last step whose lines were all equal; 0 if none was.
      difference: the first lines that differ, or None.
      changes: what differs between then and now: environment, data, code, config.
      unknown: what the passport does not say.
      notes: what else a reader has to know.
    """

    lines: int
    step: int
    equal_until: int
    difference: RowDifference | None
    changes: Sequence[Difference]
    unknown: Sequence[str]
    notes: Sequence[str]

    def report(self) -> list[str]:
        """The lines for people: the verdict first, then what differs, then what cannot be known."""
        changes = [f"  {change}" for change in self.changes]
        if self.difference is None:
            lines = [f"equal: {self.lines} lines up to step {self.step}, bit for bit"]
            lines += ["although this differs (then -> now):", *changes] if changes else []
        else:
            before = f"equal until step {self.equal_until}" if self.equal_until else "no step before it has a line"
            lines = [f"differs at step {self.difference.step}; {before} (run -> now):"]
            lines += [f"  {line}" for line in self.difference.report()]
            if changes:
                lines += ["what differs (then -> now):", *changes]
            else:
                lines += [f"nothing that the passport records differs: {NO_CAUSE}"]
        lines += ["not known, because the run does not record it:"] if self.unknown else []
        return [*lines, *(f"  {line}" for line in self.unknown)]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        found = self.difference
        return {
            "equal": found is None,
            "lines": self.lines,
            "step": self.step,
            "equal_until": self.equal_until,
            "difference": None if found is None else {"step": found.step, "run": found.then, "now": found.now},
            "changes": [change.as_json() for change in self.changes],
            "unknown": list(self.unknown),
            "notes": list(self.notes),
        }


def silent(line: str) -> None:
    """Tell nobody."""
    del line


def use_cores_of(run: pathlib.Path, note: Note) -> None:
    """Compute with as many cores as the run had, where this machine has more: their number changes bits.

    Call it before JAX has a device, which counts the cores.

    Args:
      run: the run directory.
      note: told if it was done.

    Raises:
      UserError: the directory has no passport.
    """
    cores = section(read_sessions(run)[0], "hardware").get("cores")
    if not isinstance(cores, int) or cores < 1 or not hasattr(os, "sched_setaffinity"):
        return
    here = sorted(os.sched_getaffinity(0))
    if cores < len(here):
        os.sched_setaffinity(0, here[:cores])
        note(f"on {cores} of {len(here)} cores, as the run was")


def reproduce(
    run: pathlib.Path, *, steps: int = 50, data_directory: str | None = None, note: Note = silent
) -> Reproduction:
    """Train the first steps of a run anew and compare the lines of its log; the run directory stays as it is.

    The plan and the schedule are those of the whole run. Training stops at the first line that differs.

    Args:
      run: the run directory; the run may have ended in any way, or still be in training.
      steps: how many; at least one line is compared, and at most the whole run.
      data_directory: where the data is on this machine; default is the config's.
      note: told what goes on.

    Raises:
      UserError: no run, nothing to compare, or a config or data that cannot be used here.
    """
    if steps < 1:
        raise UserError(f"--steps is {steps}; give at least 1")
    run = run.expanduser().resolve()
    stored, sessions, rows = read_json(run / CONFIG), read_sessions(run), read_rows(run / METRICS)
    result = read_json(run / RESULT) if (run / RESULT).exists() else {}
    try:
        checked = resolve(plain(stored))
    except UserError as error:
        raise UserError(f"{run / CONFIG} is no config of this version: {error}") from None
    if result.get("status") == DIVERGED and isinstance(result.get("steps"), int):
        rows.append({"step": result["steps"], DIVERGED: True})
    if not rows:
        raise UserError(f"{run / METRICS} has no line yet; there is nothing to compare")
    notes = []
    record = sessions[0].get("program")
    if record is None and result.get("runs_together", 1) > 1:
        record = SEEDS_ALONE
        notes.append("the passport does not say which program computed the run; taken is that of runs of other seeds")
    elif record is not None and not is_record(record):
        raise UserError(f"{run / PASSPORT} is damaged: its 'program' does not say which runs were computed together")
    rebuilt = rebuild(_for_this_machine(stored, checked, sessions[0], data_directory), record)
    experiment = rebuilt.experiment
    reduced = result.get("reduced_at")
    if reduced:
        # The first steps again would be those of the full rates; the log goes on with reduced ones behind this save.
        end = (reduced[0] - 1) // experiment.plan.save_every * experiment.plan.save_every
        rows = [row for row in rows if row["step"] <= end]
        notes.append(f"the run diverged at step {reduced[0]} and went back: compared are the lines up to step {end}")
        if not rows:
            raise UserError(
                f"{run} diverged at step {reduced[0]}, and has no line from before; nothing can be compared"
            )
    first = min(row["step"] for row in rows)
    if steps < first:
        notes.append(f"--steps={steps} is raised to {first}, the step of the first line")
    expected = [row for row in rows if row["step"] <= max(steps, first)]
    step = max(row["step"] for row in expected)
    changes, unknown = _changes(stored, sessions[0], result, experiment, record)
    for number, session in enumerate(sessions[1:], start=2):
        notes += [
            f"session {number} of the run: {change}" for change in compare_passports(sessions[0], session).changes
        ]
    for line in notes:
        note(line)
    note(f"training {step} of {experiment.plan.total} steps anew")
    equal, difference = _compare(rebuilt, expected, step, note)
    return Reproduction(
        lines=len(equal),
        step=step,
        # A step may have two lines, of which the second one differs.
        equal_until=max((at for at in equal if difference is None or at < difference.step), default=0),
        difference=difference,
        changes=changes,
        unknown=unknown,
        notes=notes,
    )


def _compare(
    rebuilt: Rebuilt, expected: Sequence[Mapping[str, Any]], step: int, note: Note
) -> tuple[list[int], RowDifference | None]:
    """The steps of the equal lines, and the first lines that differ."""
    plan = rebuilt.experiment.plan
    if DIVERGED in expected[-1]:
        until = next_check(plan, step)
    else:
        until = last_line(plan, step, validation="validation" in rebuilt.experiment.splits)
    equal: list[int] = []
    with contextlib.closing(trace(rebuilt, until=until)) as lines:
        for then, now in itertools.zip_longest(expected, lines):
            difference = compare_rows(then, now)
            if difference is not None:
                return equal, difference
            equal.append(then["step"])
            note(f"step {then['step']} of {step}: equal")
    return equal, None


def _for_this_machine(
    stored: Mapping[str, Any], checked: Config, passport: Mapping[str, Any], directory: str | None
) -> dict[str, Any]:
    """The config with the data's place here, and as many devices as the run had, or else as many as divide a batch."""
    values = copy.deepcopy(dict(stored))
    if directory is not None:
        values["data"]["directory"] = directory
    recorded = section(passport, "hardware").get("devices")
    if checked.parallel.mode == "pmap" or checked.parallel.model > 1 or not isinstance(recorded, int):
        return values  # then the number of devices is part of the config
    microbatch = checked.data.batch_size // checked.train.accumulate
    possible = [count for count in range(1, min(recorded, jax.device_count()) + 1) if microbatch % count == 0]
    values["parallel"] = {**values.get("parallel", {}), "devices": max(possible, default=1)}
    return values


def _changes(
    stored: Mapping[str, Any],
    then: Mapping[str, Any],
    result: Mapping[str, Any],
    experiment: Experiment,
    record: Mapping[str, Any] | None,
) -> tuple[list[Difference], list[str]]:
    """What differs between a run's first session and now, and what cannot be known."""
    data = {name: split.description() for name, split in experiment.splits.items()}
    seed, devices = experiment.config.seed, experiment.mesh.devices.size
    now = make_passport(seed=seed, data=data, devices=devices, program=record)
    compared = compare_passports({**then, "program": record}, now)
    changes, unknown = list(compared.changes), list(compared.unknown)
    if "source" not in then and any(change.what.startswith("code.") for change in changes):
        commit = section(then, "git").get("commit")
        changes += [
            Difference(f"code.{name}", f"as in commit {commit}", "changed since")
            for name in files_changed_since(commit) or ()
        ]
    if "config" in then:
        changes += differences(then["config"], dict(stored), path="config")
    elif "config_sha256" in result:
        changes += differences(result["config_sha256"], config_digest(stored), path="config, by its digest")
    else:
        unknown.append("the config that the run began with")
    # What this machine decides is not the config's.
    resolved = to_plain(experiment.config)
    resolved["data"]["directory"] = stored["data"].get("directory")
    resolved["parallel"]["devices"] = stored.get("parallel", {}).get("devices")
    changes += differences(dict(stored), resolved, path="config, as this code reads it")
    return changes, unknown
