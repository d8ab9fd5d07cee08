"""Run the cells of a study: whatever is not done and not in other hands, a group at a time, until nothing is left.

Several processes, also on several machines, may work on one directory. The lock of a cell is that of its run directory,
which the kernel releases when the process that holds it ends, however it ends; another one takes the cell over then.
"""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from cnn_jax.errors import UserError
from cnn_jax.study.build import Built, Experiments, Note, study_cells, totals_of, trial_cells
from cnn_jax.study.cell import PLAN, read_plan, write_plan
from cnn_jax.study.groups import groups_of, is_alone, most_together
from cnn_jax.study.probes import check_probes, run_probes
from cnn_jax.study.spec import Study
from cnn_jax.study.stored import is_done, read_study, write_failure
from cnn_jax.study.tuning import choose
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.lock import InUseError
from cnn_jax.train.many_runs import Mode, many_runs
from cnn_jax.train.run_directory import RunDirectory
from cnn_jax.train.session import train_locked
from cnn_jax.train.state import TrainState, evaluation_variables

POLL_SECONDS = 1.0
"""Between two looks at cells that are in other hands."""
OWN_FAULT = (UserError, ValueError, jax.errors.JaxRuntimeError)
"""What a run may end with by its own fault. A full disk or too little memory is the machine's, and ends the study."""
NO_MEMORY = "RESOURCE_EXHAUSTED"


def work(
    study: Study,
    directory: pathlib.Path,
    *,
    mode: Mode | Callable[[], Mode | None] | None,
    worker: int = 0,
    workers: int = 1,
    note: Note = print,
) -> list[Built]:
    """Do what is left of a study, trials of its tuning first; returns when all of it is done, by whomever.

    Args:
      study: checked.
      directory: of the study.
      mode: how the runs of a group are trained, see `many_runs.Runs`; or what says so, and may wait, once cells are
        built and before one is trained.
      worker: the number of this process, from 0: workers begin with different groups.
      workers: how many there are; a group is cut into as many parts, but for runs at once where groups are enough.
      note: told what goes on.

    Returns:
      All cells, those of trials first.

    Raises:
      UserError: a config of the study is wrong, or a run does not fit into memory.
    """
    experiments = Experiments(study)
    known: list[Mode | None] = [] if callable(mode) else [mode]

    def mode_for(groups: Sequence[list[Built]]) -> Mode | None:
        if not known:
            assert callable(mode)
            if worker == workers - 1:  # beside a core that compiles what trains
                _compile_evaluation(groups, directory)
            known.append(mode())
        return known[0]

    finish = functools.partial(_finish, study, directory, mode_for=mode_for, worker=worker, workers=workers, note=note)
    tried = trial_cells(study, experiments, note)
    finish(tried)
    chosen = choose(study, [built.cell for built in tried], directory)
    counted = study_cells(study, experiments, chosen, note)
    if tried:
        mode_for(groups_of(counted))  # the plan is there
        _keep_choice(study, directory, [*tried, *counted])
    finish(counted)
    return [*tried, *counted]


def _keep_choice(study: Study, directory: pathlib.Path, cells: Sequence[Built]) -> None:
    """Write the plan with what tuning has chosen, which was not known when it was made.

    Raises:
      UserError: another study was started in the directory meanwhile.
    """
    if not (directory / PLAN).exists():
        return
    if read_study(directory) != study:
        raise UserError(f"{str(directory)!r} holds another study than it did; give each form of a study a directory")
    plan = read_plan(directory)
    write_plan(directory, plan.model_copy(update={"cells": tuple(built.cell for built in cells)}))


def _finish(
    study: Study,
    directory: pathlib.Path,
    cells: Sequence[Built],
    *,
    mode_for: Callable[[Sequence[list[Built]]], Mode | None],
    worker: int,
    workers: int,
    note: Note,
) -> None:
    """Train the cells, or wait until others have."""
    if all(_done(built, directory) for built in cells):
        return
    groups = groups_of(cells)
    mode = mode_for(groups)
    # (cells that are trained at once, all that share their program); the same whatever is already done.
    parts, waiting = _parts(groups, workers=workers, mode=mode), False
    while left := [part for part in parts if not all(_done(built, directory) for built in part[0])]:
        first = (
            worker * len(left) // workers % len(left)
        )  # far from the others: a program is seldom compiled twice at once
        for part in [*left[first:], *left[:first]]:
            with contextlib.ExitStack() as opened:
                taken = _take(part[0], directory, opened)
                if not taken:
                    continue
                started = time.perf_counter()
                if not _train(study, directory, taken, part[1], mode=mode, note=note):
                    parts = [each for each in parts if each is not part] + [([built], part[1]) for built in part[0]]
                note(_told(cells, [built for built, _ in taken], directory, time.perf_counter() - started))
            break
        else:
            if not waiting:
                count = sum(not _done(built, directory) for part, _ in left for built in part)
                note(f"waiting for {count} runs that other processes train")
            waiting = True
            time.sleep(POLL_SECONDS)


def _compile_evaluation(groups: Sequence[list[Built]], directory: pathlib.Path) -> None:
    """Put the programs that evaluate the first runs, one for each shape of a batch, into the compilation cache."""
    left = (group[0] for group in groups if not all(_done(built, directory) for built in group))
    built, cache = next(left, None), jax.config.values.get("jax_compilation_cache_dir")
    if built is None or is_alone(built) or not cache:  # a stream would read images
        return
    experiment = built.experiment
    with contextlib.suppress(*OWN_FAULT):  # which training will tell
        step, variables = experiment.compiled_evaluation(), evaluation_variables(experiment.abstract_state())
        for split in experiment.evaluation_splits:
            step.lower(*variables, next(iter(experiment.evaluation_batches(split)))).compile()


Part: TypeAlias = tuple[list[Built], list[Built]]


def _parts(groups: Sequence[list[Built]], *, workers: int, mode: Mode | None) -> list[Part]:
    """Each group in parts that fit in memory, and that give every worker some.

    Runs in turn lose nothing by being apart, so that no worker has to wait for another's last group; runs at once do.
    """
    found: list[Part] = []
    for group in groups:
        apart = mode != "vmap" or len(groups) < workers
        most = -(-len(group) // workers) if apart else len(group)
        if is_alone(group[0]):
            most = 1
        elif mode == "vmap":
            most = min(most, most_together(group[0]))
        found += [(group[start : start + most], group) for start in range(0, len(group), most)]
    return found


def _done(built: Built, directory: pathlib.Path) -> bool:
    return is_done(built.cell.folder(directory))


def _take(
    part: Sequence[Built], directory: pathlib.Path, opened: contextlib.ExitStack
) -> list[tuple[Built, RunDirectory]]:
    """Lock what is not done of a part; nothing if another process has some of it."""
    locked = []
    for built in part:
        folder = built.cell.folder(directory)
        if is_done(folder):
            continue
        try:
            place = opened.enter_context(RunDirectory(folder, built.experiment.config, resume=True))
        except InUseError:
            return []
        if not is_done(folder):  # another one may just have finished it
            locked.append((built, place))
    return locked


def _train(
    study: Study,
    directory: pathlib.Path,
    taken: Sequence[tuple[Built, RunDirectory]],
    among: Sequence[Built],
    *,
    mode: Mode | None,
    note: Note,
) -> bool:
    """Train locked cells together; False if that failed, and each has to be tried alone."""
    experiments = [built.experiment for built, _ in taken]
    started = time.perf_counter()
    try:
        if is_alone(taken[0][0]):
            program = experiments[0].program()
        else:
            program = many_runs(experiments, mode=mode, devices=1, among=[built.experiment for built in among])
        probe = functools.partial(_numbers, study)
        train_locked(experiments, [place for _, place in taken], program, started, probe=probe, terminal=False)
    except OWN_FAULT as error:
        message = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:500]}"
        if len(taken) > 1:
            note(f"{len(taken)} runs together failed, now one by one ({message})")
            return False
        if NO_MEMORY in message:
            raise UserError(
                f"variant {taken[0][0].cell.variant!r} does not fit into the memory of this device ({message}); free"
                " some, or go on with the study on a larger one"
            ) from None
        write_failure(taken[0][0].cell.folder(directory), message)
    return True


def _numbers(study: Study, experiment: Experiment, state: TrainState) -> Mapping[str, float]:
    """What a study keeps of a run beside its metrics: the probes' numbers and the network's work for one example."""
    return {
        "multiply_accumulates": float(totals_of(experiment).macs),
        **run_probes(check_probes(study.probes), experiment, state),
    }


def _told(cells: Sequence[Built], trained: Sequence[Built], directory: pathlib.Path, seconds: float) -> str:
    done = sum(_done(built, directory) for built in cells)
    by_variant: dict[str, list[Any]] = {}
    for cell, _ in trained:
        by_variant.setdefault(cell.variant, []).append(cell.seed if cell.trial is None else f"{cell.trial}.{cell.seed}")
    named = "; ".join(f"{variant}: {', '.join(map(str, seeds))}" for variant, seeds in by_variant.items())
    what = "trials" if trained[0].cell.trial is not None else "runs"
    return f"{done}/{len(cells)} {what} done ({named}) in {seconds:.0f} s"
