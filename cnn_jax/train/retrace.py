"""A run's log computed again: the same program, as many steps a dispatch, the same lines; nothing is written."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import jax

from cnn_jax.train.config_file import Node, plain
from cnn_jax.train.differences import assign
from cnn_jax.train.dispatch import Program
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.loop import divergence, training_row
from cnn_jax.train.many_runs import build_runs, many_runs
from cnn_jax.train.plan import Plan
from cnn_jax.train.run import build

DIVERGED = "diverged"
"""The key of a last line that says at which step a loss or gradient was not finite; no log has it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A run, and what computes it.

    Attributes:
      experiment: the run.
      runs: those that are computed together, in the program's order.
      place: of the run among them.
      open_program: makes the program.
    """

    experiment: Experiment
    runs: Sequence[Experiment]
    place: int
    open_program: Callable[[], Program]


def rebuild(config: Node, record: Mapping[str, Any] | None) -> Rebuilt:
    """Build a run as its first session did.

    Args:
      config: as read from a `config.json`.
      record: of the program, see `program_record`; None for a run that was computed alone.

    Raises:
      UserError: whatever is wrong with the config or the data.
    """
    if record is None:
        experiment = build(plain(config))
        return Rebuilt(experiment=experiment, runs=[experiment], place=0, open_program=experiment.program)
    assignments = record["among"]
    among = build_runs({str(index): _assigned(config, own) for index, own in enumerate(assignments)})
    runs, place = [among[assignments.index(own)] for own in record["runs"]], record["place"]
    own, mode, devices = runs[place], record["mode"], record["devices"]
    if mode == "sequential" and devices == 1:  # then no run's numbers depend on which others are computed
        runs, place = [own], 0
    program = functools.partial(many_runs, runs, mode=mode, devices=devices, among=among)
    return Rebuilt(experiment=own, runs=runs, place=place, open_program=program)


def _assigned(config: Node, assignments: Mapping[str, Any]) -> Node:
    changed = copy.deepcopy(config)
    for path, value in assignments.items():
        assign(changed, path, value)
    return plain(changed)


def last_line(plan: Plan, step: int, *, validation: bool) -> int:
    """The last step up to this one at which the log has a line; 0 if there is none.

    Args:
      plan: of the run.
      step: not after this one.
      validation: whether evaluations have a line.
    """
    if step >= plan.total:
        return plan.total
    return max(step // every * every for every in _intervals(plan, validation))


def next_check(plan: Plan, step: int) -> int:
    """The first step from this one on at which the loop sees whether training has diverged."""
    intervals = (*_intervals(plan, True), plan.save_every)
    return min(plan.total, *(-(-step // every) * every for every in intervals))


def _intervals(plan: Plan, validation: bool) -> tuple[int, ...]:
    return (plan.log_every, plan.evaluate_every) if validation else (plan.log_every,)


def trace(rebuilt: Rebuilt, *, until: int) -> Generator[dict[str, Any]]:
    """Train, and give the lines of the log without their times.

    Args:
      rebuilt: the run.
      until: the last step; one with a line, or with a save.

    Yields:
      `step` and the numbers, in the order in which the loop writes them. The last one of a training that diverges has
      the step and `DIVERGED`.
    """
    experiment, plan, place = rebuilt.experiment, rebuilt.experiment.plan, rebuilt.place
    metrics, evaluation = experiment.task.training_metrics(), experiment.compiled_evaluation()
    program = rebuilt.open_program()
    try:
        state = program.stack([run.initial_state() for run in rebuilt.runs])
        pending, done = _empty(program, rebuilt.runs), 0
        while done < until:
            steps = plan.steps_at_once(done)
            state, pending = program.advance(state, pending, done, steps)
            done += steps
            logged, evaluated = done % plan.log_every == 0 or done == plan.total, plan.evaluation_due(done)
            if not (logged or evaluated or plan.save_due(done)):
                continue
            values = jax.device_get(program.split(pending)[place])
            error = divergence(values)
            if error is not None:
                yield {"step": error.step, DIVERGED: True}
                return
            if logged:
                yield {"step": done, **training_row(values, done, plan, metrics)}
                pending = _empty(program, rebuilt.runs)
            row = experiment.evaluate_validation(evaluation, program.split(state)[place]) if evaluated else {}
            if row:
                yield {"step": done, **row}
    finally:
        program.close()


def _empty(program: Program, runs: Sequence[Experiment]) -> Any:
    return program.stack([run.empty_metrics() for run in runs])
