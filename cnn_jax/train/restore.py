"""Where a run, or many that share a program, go on: the newest step of which all have a checkpoint that is good."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax

from cnn_jax.errors import UserError
from cnn_jax.train.checkpoint import DAMAGED, CheckpointGoneError, Checkpoints, Progress
from cnn_jax.train.config import sha256
from cnn_jax.train.distributed import agreed, is_first, together, warn
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.manifest import DamagedError
from cnn_jax.train.run_directory import RunDirectory
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import StepMetrics

Restored: TypeAlias = tuple[TrainState, StepMetrics, Progress]


def restore_runs(
    experiments: Sequence[Experiment], directories: Sequence[RunDirectory], checkpoints: Sequence[Checkpoints]
) -> tuple[int, list[Restored]]:
    """The step to go on from, 0 if there is none, and what each run has of it.

    Checkpoints that are not what was written are set aside, which is told with what is lost by it.

    Args:
      experiments: of the runs.
      directories: theirs.
      checkpoints: theirs; the lock of each directory is held.

    Raises:
      UserError: a run is new among others that were begun, or a checkpoint is of another model or a newer cnn_jax.
    """
    lost = together(lambda: [each.set_aside_damaged() if is_first() else {} for each in checkpoints])
    start, restored = 0, list[Restored]()
    while len(restored) < len(experiments):
        there = [each.steps() for each in checkpoints]
        start = agreed(max(set.intersection(*map(set, there)), default=0))
        together(lambda there=there: _refuse_new_ones(directories, there) if is_first() else None)
        if not start:
            restored = _new(experiments)
            break
        restored = []
        for index, (experiment, each) in enumerate(zip(experiments, checkpoints, strict=True)):
            try:
                restored.append(_one(experiment, each, start))
            except DamagedError as error:  # its files are what was written, but not what is in them
                aside = (each, start, str(error))
                lost[index][start] = together(lambda aside=aside: _set_aside(*aside) if is_first() else "")
                break
    for directory, each, damaged in zip(directories, checkpoints, lost, strict=True):
        for step, what in damaged.items():
            again = f": steps {start + 1} to {step} are trained again" if step > start else ""
            warn(f"checkpoint {step} is damaged: {what}; training goes on from step {start}{again}")
        later = [step for step in each.steps() if step > start]
        if any(lost) and later:  # they are good, and cost more than a kill does
            where = together(lambda each=each, later=later: _keep_later(each, later) if is_first() else "")
            warn(f"{directory.path} has to go back with another run, to step {start}; its later steps are in {where}")
        each.drop_after(start)
    return start, restored


def best_state(experiment: Experiment, checkpoints: Checkpoints, step: int, last: TrainState) -> TrainState:
    """The state of the best step; the last one where the disk has lost it meanwhile, which is told.

    Args:
      experiment: the run.
      checkpoints: its.
      step: the best one.
      last: the state at the end.
    """
    try:
        return checkpoints.restore(step, experiment.abstract_state(), experiment.empty_metrics())[0]
    except (DamagedError, CheckpointGoneError) as error:
        warn(f"{error}; the last state is evaluated instead of the best")
        return last


def _one(experiment: Experiment, checkpoints: Checkpoints, start: int) -> Restored:
    state, metrics, progress = checkpoints.restore(start, experiment.abstract_state(), experiment.empty_metrics())
    if progress.best_step is not None and progress.best_step not in checkpoints.steps():
        warn(f"the best checkpoint, of step {progress.best_step}, is lost; from here the best is looked for anew")
        progress = dataclasses.replace(progress, best=None, best_step=None, evaluations_without_improvement=0)
    return state, metrics, progress


def _new(experiments: Sequence[Experiment]) -> list[Restored]:
    creations: dict[str, Callable[[jax.Array], TrainState]] = {}  # runs that differ in their seed share a program
    made = []
    for experiment in experiments:
        content = sha256(experiment.config.model_copy(update={"seed": 0}))
        if content not in creations:
            creations[content] = experiment.compiled_creation()
        made.append((creations[content](experiment.key), experiment.empty_metrics(), Progress()))
    return made


def _refuse_new_ones(directories: Sequence[RunDirectory], there: Sequence[Sequence[int]]) -> None:
    """A run that was added to others would take them back to step 0."""
    new = [
        directory.path for directory, steps in zip(directories, there, strict=True) if directory.is_new and not steps
    ]
    begun = [(directory.path, steps[-1]) for directory, steps in zip(directories, there, strict=True) if steps]
    if new and begun:
        raise UserError(
            f"{str(new[0])!r} is new, but {str(begun[0][0])!r} is at step {begun[0][1]}: they cannot go on together;"
            " train the new run alone, or finish the others first"
        )


def _set_aside(checkpoints: Checkpoints, step: int, why: str) -> str:
    return checkpoints.set_aside(step, why, folder=DAMAGED)


def _keep_later(checkpoints: Checkpoints, steps: Sequence[int]) -> str:
    for step in steps:
        checkpoints.set_aside(step, "", folder="dropped")
    return "its folder checkpoints/dropped"
