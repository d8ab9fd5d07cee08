"""The plan of a study: its matrix, how many programs it compiles, and how long it takes, from a measured step."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cnn_jax.study.build import Built, totals_of
from cnn_jax.study.groups import groups_of, is_alone, most_together
from cnn_jax.study.spec import Study, variants_of
from cnn_jax.study.stored import is_done
from cnn_jax.train.many_runs import Mode, many_runs

MEASURED_RUNS = 4
"""Of a group that are trained at once to compare; more of them take longer to compile, not to tell."""
MEASURED_SECONDS = 0.5
WORTH = 50
"""Runs at once are measured where training takes this many times as long as compiling the first program did: that of
several runs takes two to three times as long, about 5 % of the study then."""
CLEARLY = 0.95
"""Runs are trained at once where that takes at most this share of the time."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A variant in the plan.

    Attributes:
      variant: its name.
      runs: that count, and of its trials.
      left: of these, how many are not done.
      program: its number, from 1; variants of one number share it.
      parameters: of the network.
      macs: multiply-accumulates for one example.
      steps: of each run.
      changes: what differs from the baseline, as text.
    """

    variant: str
    runs: int
    left: int
    program: int
    parameters: int
    macs: int
    steps: int
    changes: str


@dataclasses.dataclass(frozen=True)
class Measured:
    """A step of one run, measured on this machine.

    Attributes:
      variant: whose.
      compile_seconds: until the first steps are done.
      in_turn: seconds of a step of one run, one run after the other.
      together: the same where several are trained at once; None where that was not measured.
      mode: the faster one.
      device: what it was measured on.
    """

    variant: str
    compile_seconds: float
    in_turn: float
    together: float | None
    mode: Mode
    device: str


def matrix(study: Study, cells: Sequence[Built], directory: pathlib.Path) -> list[Row]:
    """One row a variant; of tuned ones the trials, until their choice is known.

    Args:
      study: checked.
      cells: built.
      directory: of the study.
    """
    program: dict[str, int] = {}
    for number, group in enumerate(groups_of(cells), start=1):
        for built in group:
            program.setdefault(built.cell.variant, number)
    rows = []
    for variant, changes in variants_of(study).items():
        mine = [built for built in cells if built.cell.variant == variant]
        if not mine:
            continue
        totals = totals_of(mine[0].experiment)
        rows.append(
            Row(
                variant=variant,
                runs=len(mine),
                left=sum(not is_done(built.cell.folder(directory)) for built in mine),
                program=program[variant],
                parameters=totals.parameters,
                macs=totals.macs,
                steps=mine[0].experiment.plan.total,
                changes=", ".join(f"{path}={_shown(value)}" for path, value in changes.items()) or "–",
            )
        )
    return rows


def _shown(value: Any) -> str:
    """A value of a config, a node as the call that it stands for."""
    if isinstance(value, Mapping) and "name" in value:
        return f"{value['name']}({', '.join(f'{k}={_shown(v)}' for k, v in value.items() if k != 'name')})"
    return f"({', '.join(map(_shown, value))})" if isinstance(value, tuple) else str(value)


def measure(cells: Sequence[Built], *, mode: Mode | None = None, workers: int = 1) -> Measured:
    """Time a step of the largest group, its runs one after the other, and at once where the choice is worth its cost.

    The first program stays in the compilation cache: running the study does not compile it again. Another is compiled,
    to compare, only where training takes `WORTH` times as long as compiling does.

    Args:
      cells: built, at least one.
      mode: what the user asks for; None leaves the choice to the measurement.
      workers: that share the training.
    """
    group = max(groups_of(cells), key=len)
    first = group[0]
    if is_alone(first):
        compiled, step = _seconds_of_a_step(group[:1], "sequential")
        return Measured(first.cell.variant, compiled, step, None, mode or "sequential", jax.devices()[0].device_kind)
    compiled, in_turn = _seconds_of_a_step(group[:1], "sequential", among=group)
    together = None
    training = sum(built.experiment.plan.total for built in cells) * in_turn / min(workers, len(cells))
    is_worth_it = mode is None and training > WORTH * compiled
    count = min(len(group), MEASURED_RUNS, most_together(first)) if is_worth_it else 1
    if count > 1:
        _, together = _seconds_of_a_step(group[:count], "vmap", among=group)
    faster: Mode = "vmap" if jax.devices()[0].platform != "cpu" else "sequential"
    if together is not None:
        faster = "vmap" if together < CLEARLY * in_turn else "sequential"
    return Measured(first.cell.variant, compiled, in_turn, together, mode or faster, jax.devices()[0].device_kind)


def _seconds_of_a_step(
    some: Sequence[Built], mode: Mode, *, among: Sequence[Built] | None = None
) -> tuple[float, float]:
    """Seconds until the first dispatch is done, and of a step of one run after it."""
    experiments = [built.experiment for built in some]
    if is_alone(some[0]):
        program = experiments[0].program()
    else:
        program = many_runs(experiments, mode=mode, devices=1, among=[b.experiment for b in among or some])
    states = program.stack([experiment.initial_state() for experiment in experiments])
    pending = program.stack([experiment.empty_metrics() for experiment in experiments])
    plan = experiments[0].plan
    steps = min(plan.steps_per_dispatch, plan.total)
    started = time.perf_counter()
    try:
        states, pending = jax.block_until_ready(program.advance(states, pending, 0, steps))
        compiled, done, started = time.perf_counter() - started, 0, time.perf_counter()
        while not done or time.perf_counter() - started < MEASURED_SECONDS:
            states, pending = jax.block_until_ready(program.advance(states, pending, 0, steps))
            done += steps
    finally:
        program.close()
    return compiled, (time.perf_counter() - started) / done / len(some)


def estimated_seconds(cells: Sequence[Built], measured: Measured, directory: pathlib.Path, *, workers: int) -> float:
    """How long what is left takes, roughly: other networks' steps are taken as their multiply-accumulates.

    Args:
      cells: built.
      measured: a step.
      directory: of the study.
      workers: processes that share the work.
    """
    reference = next(built for built in cells if built.cell.variant == measured.variant)
    step = measured.in_turn if measured.together is None else min(measured.in_turn, measured.together)
    per_work = step / max(1, _work(reference))
    left = [built for built in cells if not is_done(built.cell.folder(directory))]
    training = sum(built.experiment.plan.total * per_work * _work(built) for built in left)
    return (training + measured.compile_seconds * len(groups_of(left))) / min(workers, max(1, len(left)))


def _work(built: Built) -> int:
    """Multiply-accumulates of a step's forward pass."""
    return totals_of(built.experiment).macs * built.experiment.plan.batch_size


def show_seconds(seconds: float) -> str:
    """A duration for people.

    Example:
      >>> show_seconds(42.0), show_seconds(600.0), show_seconds(9000.0)
      ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
