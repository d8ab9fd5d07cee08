"""One sitting of a run, or of many that share a program: restore or start, train, evaluate the end, write what came."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from cnn_jax.errors import DivergenceError
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.dispatch import Program
from cnn_jax.train.distributed import is_first, together, warn
from cnn_jax.train.divergence import check_rates, explain, reduction
from cnn_jax.train.evaluate import EvaluationStep
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.figures import draw_figures
from cnn_jax.train.loop import Parts, Run, run_loop
from cnn_jax.train.prediction import predict
from cnn_jax.train.report import describe_evaluation, make_result, write_report
from cnn_jax.train.restore import best_state, restore_runs
from cnn_jax.train.run_directory import RunDirectory
from cnn_jax.train.sharding import fetch
from cnn_jax.train.state import TrainState, evaluation_variables
from cnn_jax.train.stopping import Stop, StopInEvaluationError, Stopped
from cnn_jax.train.writers import JsonLines, TensorBoard, Terminal, Writer, read_rows
from cnn_jax.types import Batch

Probe: TypeAlias = Callable[[Experiment, TrainState], Mapping[str, float]]
"""Further numbers of a finished run: experiment and evaluated state to name and value."""


def no_probe(experiment: Experiment, state: TrainState) -> Mapping[str, float]:
    """No further numbers."""
    del experiment, state
    return {}


def sit(
    experiments: Sequence[Experiment],
    directories: Sequence[RunDirectory],
    program: Program,
    started: float,
    *,
    stop: Stop,
    probe: Probe = no_probe,
    terminal: bool = True,
    explained: bool = False,
) -> list[dict[str, Any]]:
    """Restore, loop, evaluate the end, and write result, figures and report, of all runs of a program.

    Args:
      experiments: of the runs; they differ in what the program allows.
      directories: of the runs, locked and begun.
      program: computes them.
      started: `time.perf_counter()` at the start.
      stop: whether a signal has asked for the end.
      probe: gives what `result.json` has under `probes`.
      terminal: show the progress of the first run.
      explained: where a run diverges, look for what was not finite first; that compiles the network once more.

    Returns:
      The content of `result.json` of each run.

    Raises:
      RatesChangedError: the run diverged, or had done so, and goes on with reduced rates; begin again with those.
      Stopped: a signal asked for it.
      StorageError: the disk is full, or fails.
    """
    first = experiments[0]
    evaluations = _compiled_evaluations(experiments)
    with contextlib.ExitStack() as opened:
        opened.callback(program.close)
        checkpoints = [
            Checkpoints(directory.checkpoints, keep=experiment.config.train.keep_checkpoints)
            for directory, experiment in zip(directories, experiments, strict=True)
        ]
        for each in checkpoints:
            opened.callback(each.close)
        start, restored = restore_runs(experiments, directories, checkpoints)
        for experiment, (_, _, progress) in zip(experiments, restored, strict=True):
            check_rates(experiment, progress.reduced_at)
            progress.reduced_at = list(experiment.reduced_at)
        earlier = [progress.seconds for _, _, progress in restored]
        results: dict[int, dict[str, Any]] = {}

        def end(index: int, status: str, steps: int) -> dict[str, Any]:
            """What the result of a run says however it ended."""
            progress = restored[index][2]
            result = make_result(experiments[index], directories[index], status=status, steps=steps, progress=progress)
            seconds = earlier[index] + time.perf_counter() - started
            return {**result, "wall_seconds": seconds, "runs_together": len(experiments)}

        def diverged(index: int, before: TrainState, error: DivergenceError) -> None:
            checkpoints[index].wait()  # the last good one is on disk before the result says that the run has ended
            error = explain(experiments[index], before, error) if explained else error
            if (change := reduction(experiments[index], error)) is not None:
                raise change
            results[index] = {"status": "diverged", "steps": error.step, "message": str(error)}
            if is_first():
                results[index] = {**end(index, "diverged", error.step), "message": str(error)}
                directories[index].finish(results[index])

        def open_writers() -> list[list[Writer]]:
            return [
                _writers(experiment, directory, start, progress, opened, terminal and experiment is first)
                for experiment, directory, (_, _, progress) in zip(experiments, directories, restored, strict=True)
            ]

        writers = together(lambda: open_writers() if is_first() else [[] for _ in experiments])
        parts = Parts(
            advance=program.advance,
            split=program.split,
            empty=lambda: program.stack([experiment.empty_metrics() for experiment in experiments]),
            metrics=first.task.training_metrics(),
            runs=[
                Run(
                    progress=restored[index][2],
                    evaluate=functools.partial(experiment.evaluate_validation, evaluations[index], watch=stop.watch),
                    checkpoints=checkpoints[index],
                    writers=writers[index],
                    diverged=functools.partial(diverged, index),
                )
                for index, experiment in enumerate(experiments)
            ],
            stop=stop,
        )
        state, pending = (program.stack(trees) for trees in zip(*((s, p) for s, p, _ in restored), strict=True))
        state, status = run_loop(state, pending, start=start, plan=first.plan, parts=parts, started=started)
        for each in checkpoints:
            each.wait()
        for each in checkpoints:  # only now: all runs have the last step
            each.prune()
        for index, final in enumerate(program.split(state)):
            if index in results:
                continue
            trained, best = int(final.step), restored[index][2].best_step
            if best is not None and best != trained:
                final = best_state(experiments[index], checkpoints[index], best, final)
            ended = functools.partial(end, index, status, trained)
            parts_of_end = (experiments[index], directories[index], final, evaluations[index], ended, probe)
            try:
                results[index] = _conclude(*parts_of_end, watch=stop.watch)
            except StopInEvaluationError:  # the end is on disk, and can be evaluated again
                raise Stopped(stop.signal, trained) from None
    return [results[index] for index in range(len(experiments))]


def _writers(
    experiment: Experiment,
    directory: RunDirectory,
    start: int,
    progress: Progress,
    opened: contextlib.ExitStack,
    terminal: bool,
) -> list[Writer]:
    """The log, event files on request, and, of many runs for the first alone, the terminal."""
    if start and not read_rows(directory.metrics):
        warn(f"{directory.metrics} is lost; the curves begin at step {start}")
    writers: list[Writer] = [JsonLines(directory.metrics, resume_step=start, unevaluated=progress.unevaluated)]
    if experiment.config.train.tensorboard:
        writers.append(TensorBoard(directory.path / "tensorboard", resume_step=start))
    if terminal:
        writers.append(Terminal(total_steps=experiment.plan.total, resume_step=start))
    for writer in writers:
        opened.callback(writer.close)
    return writers


def _compiled_evaluations(experiments: Sequence[Experiment]) -> list[EvaluationStep]:
    """One for each run; those of the same model and task share a program: the rest of a config is about training."""
    compiled: dict[str, EvaluationStep] = {}
    found = []
    for experiment in experiments:
        key = repr((experiment.config.model, experiment.config.task))
        if key not in compiled:
            compiled[key] = experiment.compiled_evaluation()
        found.append(compiled[key])
    return found


def _conclude(
    experiment: Experiment,
    directory: RunDirectory,
    state: TrainState,
    evaluation: EvaluationStep,
    end: Callable[[], dict[str, Any]],
    probe: Probe,
    *,
    watch: Callable[[Iterator[Batch]], Iterator[Batch]],
) -> dict[str, Any]:
    """Evaluate a trained run, and write its figures, report and result."""
    splits = experiment.evaluation_splits
    values = {split: experiment.evaluate(evaluation, state, split, watch=watch) for split in splits}
    numbers = probe(experiment, state)
    draw: Callable[[], list[pathlib.Path]] = list
    if experiment.config.train.figures:
        shown = splits[-1:]
        predictions = predict(experiment, state, shown[0]) if shown else {}
        params = fetch(evaluation_variables(state)[0], experiment.mesh)
        draw = functools.partial(draw_figures, experiment, directory, values, params=params, predictions=predictions)

    def write() -> dict[str, Any]:
        figures = draw()
        result = end() | describe_evaluation(state, values) | ({"probes": dict(numbers)} if numbers else {})
        write_report(experiment, directory, result, figures)
        directory.finish(result)
        return result

    # The others read what the first one wrote.
    return together(lambda: write() if is_first() else None) or directory.result() or {}
