"""Train a run, or many in one program, into run directories; evaluate a run that is there."""

import contextlib
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax.data.sources import check_disjoint
from cnn_jax.errors import DivergenceError, UserError
from cnn_jax.train.checkpoint import CheckpointGoneError, Checkpoints
from cnn_jax.train.config import resolve, to_plain
from cnn_jax.train.config_file import Node, plain
from cnn_jax.train.dispatch import Program
from cnn_jax.train.distributed import is_first, naming_lost_processes, together, warn
from cnn_jax.train.divergence import RatesChangedError
from cnn_jax.train.evaluate import scalars
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.manifest import DamagedError
from cnn_jax.train.many_runs import build_runs, many_runs, split_runs
from cnn_jax.train.passport import make_passport
from cnn_jax.train.run import build
from cnn_jax.train.run_directory import CHECKPOINTS, CONFIG, RESULT, RunDirectory, naming_storage_errors, read_json
from cnn_jax.train.sitting import sit
from cnn_jax.train.state import TrainState
from cnn_jax.train.stopping import stop_on_signals

READ_ATTEMPTS = 5


def train(config: Node, workdir: str | os.PathLike[str], *, resume: bool = False) -> dict[str, Any]:
    """Train, evaluate and report; everything is written into one directory.

    With `train.on_divergence = "restore_and_reduce"` a run whose loss, gradient or update is not finite goes back to
    its last checkpoint and on with half the learning rates, ten times at most; so does one that ended so before.

    Args:
      config: plain values, from `config_file.load` and `config_file.override`.
      workdir: the run directory; created if it is not there.
      resume: go on from the newest checkpoint of the same config. A finished run is left as it is.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: whatever is wrong with the config, the data or the directory, before any training step.
      DivergenceError: a loss or gradient was not finite; `result.json` then says so, and the last checkpoint stays.
      ProcessLostError: another process of this run has ended.
      StorageError: the disk is full, or fails; with `resume` the run goes on when it does not.
      Stopped: SIGTERM or SIGINT; the run was saved before.
    """
    started = time.perf_counter()
    experiment = together(lambda: _build_and_check(config))
    path, first = pathlib.Path(workdir), is_first()
    with naming_lost_processes(), naming_storage_errors(path), contextlib.ExitStack() as opened:
        directory = together(
            lambda: opened.enter_context(RunDirectory(path, experiment.config, resume=resume, owner=first))
        )
        finished = directory.result()
        reduce = experiment.config.train.on_divergence == "restore_and_reduce"
        if finished is not None and not (reduce and finished["status"] == "diverged"):
            return finished
        together(lambda: directory.reopen() if first else None)
        together(lambda: _begin([directory], [experiment]) if first else None)
        stop, result = opened.enter_context(stop_on_signals()), None
        while result is None:
            try:
                (result,) = sit([experiment], [directory], experiment.program(), started, stop=stop, explained=True)
            except RatesChangedError as change:
                warn(str(change))
                started = time.perf_counter()  # what came before is in the checkpoint's time
                experiment = build(config, splits=experiment.splits, reduced_at=change.reduced_at)
    if result["status"] == "diverged":
        raise DivergenceError(result["message"], step=result["steps"])
    return result


def train_many(config: Node, workdir: str | os.PathLike[str], *, resume: bool = False) -> dict[str, dict[str, Any]]:
    """Train the runs of a config with the section `runs` in one program, each in a directory below `workdir`.

    Args:
      config: as for `train`, with `runs`.
      workdir: created if it is not there.
      resume: go on with the runs that are not finished, from the newest step of which all have a checkpoint.

    Returns:
      The name of each run to the content of its `result.json`; one that diverged says so, and stops no other.

    Raises:
      UserError: whatever is wrong with the config, the data or a directory, before any training step.
      StorageError: as `train`.
      Stopped: as `train`.
    """
    started = time.perf_counter()
    if jax.process_count() > 1:
        raise UserError(f"config.runs: {jax.process_count()} processes cannot train many runs; use one, or one run")
    runs, configs = split_runs(config)
    experiments = dict(zip(configs, build_runs(configs), strict=True))
    first = next(iter(experiments.values()))
    check_disjoint(first.splits)
    if first.config.train.on_divergence != "stop":
        raise UserError("config.train.on_divergence takes one run back; set it to 'stop', or drop config.runs")
    above = pathlib.Path(workdir).expanduser()
    if (above / CONFIG).exists():
        raise UserError(f"work directory {str(above)!r} holds one run; choose another --workdir for many")
    with naming_storage_errors(above), contextlib.ExitStack() as opened:
        directories = {
            name: opened.enter_context(RunDirectory(above / name, experiment.config, resume=resume))
            for name, experiment in experiments.items()
        }
        results = {name: directory.result() for name, directory in directories.items()}
        left = [name for name, result in results.items() if result is None]
        if left:
            mine = [experiments[name] for name in left]
            program = many_runs(mine, mode=runs.mode, devices=plain(config).get("parallel", {}).get("devices"))
            places = [directories[name] for name in left]
            results |= dict(zip(left, train_locked(mine, places, program, started, explained=True), strict=True))
    return {name: result for name, result in results.items() if result is not None}


def train_locked(
    experiments: Sequence[Experiment],
    directories: Sequence[RunDirectory],
    program: Program,
    started: float,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train runs on the same data, in directories that are locked and hold no result; arguments as `sitting.sit`."""
    _begin(directories, experiments, program)
    with stop_on_signals() as stop:
        try:
            return sit(experiments, directories, program, started, stop=stop, **options)
        except RatesChangedError as change:
            raise UserError(f"{change}; only a run that train.py trains alone can go back") from None


def _begin(
    directories: Sequence[RunDirectory], experiments: Sequence[Experiment], program: Program | None = None
) -> None:
    """Write config and passport of runs on the same data, unless one was begun on other data."""
    data = {name: split.description() for name, split in experiments[0].splits.items()}
    for directory in directories:
        _check_data(directory, data)
    record = program.record if program is not None else None
    for index, (directory, experiment) in enumerate(zip(directories, experiments, strict=True)):
        directory.begin(
            make_passport(
                seed=experiment.config.seed,
                data=data,
                devices=experiment.mesh.devices.size,
                config=to_plain(experiment.config),
                program=record(index) if record is not None else None,
            )
        )


def _build_and_check(config: Node) -> Experiment:
    experiment = build(config)
    check_disjoint(experiment.splits)
    return experiment


def _check_data(directory: RunDirectory, data: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to resume on other data than the run began with: the path may change, the content may not."""
    before = directory.sessions()[-1].get("data", {}) if not directory.is_new else {}
    for split, description in data.items():
        # A stream digests files, memory pixels: a run may go on from the other, and then only the number is known.
        comparable = "examples" if _digest_of(before, split) != description["digest_of"] else "sha256"
        if split in before and before[split].get(comparable) != description[comparable]:
            raise UserError(
                f"the run in {str(directory.path)!r} was trained on {before[split].get('origin')} with other content"
                f" than {description['origin']} has now (split {split!r}); give the same data or another --workdir"
            )


def _digest_of(data: Mapping[str, Mapping[str, Any]], split: str) -> str:
    return data.get(split, {}).get("digest_of", "pixels")


def evaluate_run(
    path: pathlib.Path,
    *,
    split: str | None = None,
    step: int | None = None,
    batch_size: int | None = None,
    data_directory: str | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint of a run directory, which may be in training; nothing is written.

    Args:
      path: the run directory.
      split: "train", "validation", "test", or a slice of the data set such as `train[:1000]`; default is the last of
        these three that the run has.
      step: of the checkpoint; default is the one the run's result was made from, or the newest.
      batch_size: default is the config's; the numbers do not depend on it.
      data_directory: where the data is on this machine; default is the config's.

    Returns:
      `split`, `origin`, `step`, `examples` and `metrics`.

    Raises:
      UserError: no run, no such checkpoint or split.
    """
    path = path.expanduser().resolve()
    config = plain(read_json(path / CONFIG))
    try:
        resolve(config)
    except UserError as error:
        raise UserError(f"{path / CONFIG} is no config of this version: {error}") from None
    known = {name: spec for name, spec in config["data"]["splits"].items() if spec is not None}
    split = split or list(known)[-1]
    config["data"]["splits"] = {"train": known["train"], "test": known.get(split, split)}
    wrappers = config["data"].get("wrappers", {})
    config["data"]["wrappers"] = {"train": wrappers.get("train", ()), "test": wrappers.get(split, ())}
    # Early stopping asks for a validation split that is not loaded here.
    config["train"]["early_stopping"] = None
    config["parallel"]["devices"] = _devices_for(config["data"]["batch_size"] // config["train"]["accumulate"])
    if batch_size is not None:
        config["data"]["evaluation_batch_size"] = batch_size
    if data_directory is not None:
        config["data"]["directory"] = data_directory
    experiment = build(config)
    if not (path / CHECKPOINTS).is_dir():
        raise UserError(f"{path} has no checkpoint yet")
    step, state = _restore_for_reading(path, step, experiment)
    values = experiment.evaluate(experiment.compiled_evaluation(), state, "test")
    data = experiment.splits["test"]
    return {
        "split": split,
        "origin": data.origin,
        "step": step,
        "examples": len(data),
        "metrics": {name: v if np.isfinite(v) else None for name, v in scalars(values, split).items()},
    }


def _devices_for(batch_size: int) -> int:
    """How many devices of this machine divide a training batch, which need not be the machine that trained."""
    return max(count for count in range(1, len(jax.local_devices()) + 1) if batch_size % count == 0)


def _restore_for_reading(path: pathlib.Path, step: int | None, experiment: Experiment) -> tuple[int, TrainState]:
    """A checkpoint's step and state; a training that goes on may remove the newest while it is read.

    Without a step it is the one that the result was made from, or else the newest that is not damaged.
    """
    result = path / RESULT
    named = step or (read_json(result).get("evaluated_step") if result.exists() else None)
    gone, damaged = "", set[int]()
    for _ in range(READ_ATTEMPTS):
        checkpoints = Checkpoints(path / CHECKPOINTS, keep=None)
        with contextlib.closing(checkpoints):
            there = [each for each in checkpoints.steps() if each not in damaged]
            if not there:
                raise UserError(f"{path} has no checkpoint yet")
            if step is not None and step not in there:
                raise UserError(f"no checkpoint of step {step} in {path / CHECKPOINTS}; there are {there}")
            if named and named not in there:
                raise UserError(
                    f"the result of {path} is of step {named}, which is gone; --step chooses one of {there}"
                )
            chosen = named or there[-1]
            try:
                state, _, _ = checkpoints.restore(chosen, experiment.abstract_state(), experiment.empty_metrics())
            except CheckpointGoneError as error:
                gone = str(error)
                if step is not None:
                    break
            except DamagedError as error:
                others = [each for each in there if each != chosen]
                if named or not others:
                    choices = f"; --step chooses one of {others}" if others else ""
                    raise UserError(f"{error}{choices}") from None
                warn(f"{error}; evaluating step {others[-1]} instead")
                damaged.add(chosen)
            else:
                return chosen, state
    raise UserError(f"the training of {path} removes its checkpoints while they are read ({gone}); try again")
