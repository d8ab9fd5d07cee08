"""One sitting of a run: restore or start, train, evaluate the end, and write result, figures and report."""

import os
import pathlib
import re
import time
from typing import Any

import numpy as np

from cnn_jax.data.sources import LabelledImages
from cnn_jax.errors import DivergenceError, UserError
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.config_file import Node, plain
from cnn_jax.train.evaluate import scalars
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.figures import draw_figures
from cnn_jax.train.loop import Parts, run_loop
from cnn_jax.train.passport import make_passport
from cnn_jax.train.report import describe_evaluation, make_result, write_report
from cnn_jax.train.run import build
from cnn_jax.train.run_directory import CHECKPOINTS, CONFIG, RESULT, RunDirectory, read_json, write_json
from cnn_jax.train.writers import JsonLines, TensorBoard, Terminal, Writer


def train(config: Node, workdir: str | os.PathLike[str], *, resume: bool = False) -> dict[str, Any]:
    """Train, evaluate and report; everything is written into one directory.

    Args:
      config: plain values, from `config_file.load` and `config_file.override`.
      workdir: the run directory; created if it is not there.
      resume: go on from the newest checkpoint of the same config. A finished run is left as it is.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: whatever is wrong with the config, the data or the directory, before any training step.
      DivergenceError: a loss or gradient was not finite; `result.json` then says so, and the last checkpoint stays.
    """
    started = time.perf_counter()
    experiment = build(config)
    with RunDirectory(pathlib.Path(workdir), experiment.config, resume=resume) as directory:
        finished = directory.result()
        if finished is not None:
            return finished
        data = {name: _describe(split) for name, split in experiment.splits.items()}
        directory.begin(make_passport(seed=experiment.config.seed, data=data, devices=experiment.mesh.devices.size))
        return _train_in(experiment, directory, started)


def _describe(split: LabelledImages) -> dict[str, Any]:
    return {"origin": split.origin, "examples": len(split), "sha256": split.sha256()}


def _train_in(experiment: Experiment, directory: RunDirectory, started: float) -> dict[str, Any]:
    """Restore, loop, evaluate the end, and write result, figures and report."""
    settings, plan = experiment.config.train, experiment.plan
    checkpoints = Checkpoints(directory.checkpoints, keep=settings.keep_checkpoints)
    steps = checkpoints.steps()
    progress, pending = Progress(), experiment.empty_metrics()
    if steps:
        state, pending, progress = checkpoints.restore(steps[-1], experiment.abstract_state(), pending)
    else:
        state = experiment.initial_state()
    start, earlier = int(state.step), progress.seconds
    writers: list[Writer] = [JsonLines(directory.metrics, resume_step=start)]
    if settings.tensorboard:
        writers.append(TensorBoard(directory.path / "tensorboard", resume_step=start))
    writers.append(Terminal(total_steps=plan.total, resume_step=start))
    evaluation = experiment.compiled_evaluation()
    parts = Parts(
        step=experiment.compiled_step(),
        batch=experiment.batch,
        empty=experiment.empty_metrics,
        metrics=experiment.task.training_metrics(),
        evaluate=lambda state: experiment.evaluate_validation(evaluation, state),
        checkpoints=checkpoints,
        writers=writers,
    )

    def seconds() -> float:
        return earlier + time.perf_counter() - started

    try:
        state, status = run_loop(state, pending, progress, plan=plan, parts=parts, resumed=bool(steps), started=started)
        checkpoints.wait()
        trained = int(state.step)
        if progress.best_step is not None and progress.best_step != trained:
            state, _, _ = checkpoints.restore(
                progress.best_step, experiment.abstract_state(), experiment.empty_metrics()
            )
    except DivergenceError as error:
        result = make_result(experiment, directory, status="diverged", steps=error.step, progress=progress)
        directory.finish({**result, "wall_seconds": seconds(), "message": str(error)})
        raise
    finally:
        for writer in writers:
            writer.close()
        checkpoints.close(progress)
    values = {split: experiment.evaluate(evaluation, state, split) for split in experiment.evaluation_splits}
    figures = draw_figures(experiment, directory, state, values)
    result = make_result(experiment, directory, status=status, steps=trained, progress=progress)
    result |= describe_evaluation(state, values) | {"wall_seconds": seconds()}
    write_report(experiment, directory, result, figures)
    directory.finish(result)
    return result


def evaluate_run(
    path: pathlib.Path,
    *,
    split: str | None = None,
    step: int | None = None,
    batch_size: int | None = None,
    data_directory: str | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint of a run directory, and store the numbers there as `evaluation_<split>.json`.

    Args:
      path: the run directory.
      split: "train", "validation", "test", or a slice of the data set such as `train[:1000]`; default is the last of
        validation and test that the run has.
      step: of the checkpoint; default is the one the run's result was made from, or the newest.
      batch_size: default is the config's; the numbers do not depend on it.
      data_directory: where the data is on this machine; default is the config's.

    Returns:
      `origin`, `step`, `examples`, `metrics` and the `file` they are in.

    Raises:
      UserError: no run, no such checkpoint or split.
    """
    path = path.expanduser().resolve()
    config = plain(read_json(path / CONFIG))
    known = {name: spec for name, spec in config["data"]["splits"].items() if spec is not None}
    split = split or list(known)[-1]
    config["data"]["splits"] = {"train": known["train"], "test": known.get(split, split)}
    # Early stopping asks for a validation split that is not loaded here.
    config["train"]["early_stopping"] = None
    if batch_size is not None:
        config["data"]["evaluation_batch_size"] = batch_size
    if data_directory is not None:
        config["data"]["directory"] = data_directory
    experiment = build(config)
    checkpoints = Checkpoints(path / CHECKPOINTS, keep=None)
    if step is None:
        if not checkpoints.steps():
            raise UserError(f"{path} has no checkpoint yet")
        result = path / RESULT
        step = read_json(result)["evaluated_step"] if result.exists() else checkpoints.steps()[-1]
    state, _, progress = checkpoints.restore(step, experiment.abstract_state(), experiment.empty_metrics())
    checkpoints.close(progress)
    values = experiment.evaluate(experiment.compiled_evaluation(), state, "test")
    data = experiment.splits["test"]
    file = path / f"evaluation_{re.sub(r'[^A-Za-z0-9]+', '_', split).strip('_')}.json"
    numbers = {
        "origin": data.origin,
        "step": step,
        "examples": len(data),
        "metrics": {name: v if np.isfinite(v) else None for name, v in scalars(values, split).items()},
    }
    write_json(file, numbers)
    return {**numbers, "file": str(file)}
