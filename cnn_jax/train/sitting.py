"""One sitting of a run, or of many that share a program: restore or start, train, evaluate the end, write what came."""

import contextlib
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from cnn_jax.errors import DivergenceError
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.config import sha256
from cnn_jax.train.dispatch import Program
from cnn_jax.train.distributed import is_first, together
from cnn_jax.train.evaluate import EvaluationStep
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.figures import draw_figures
from cnn_jax.train.loop import Parts, Run, run_loop
from cnn_jax.train.report import describe_evaluation, make_result, write_report
from cnn_jax.train.run_directory import RunDirectory
from cnn_jax.train.sharding import fetch
from cnn_jax.train.state import TrainState, evaluation_variables
from cnn_jax.train.step import StepMetrics
from cnn_jax.train.writers import JsonLines, TensorBoard, Terminal, Writer, read_rows

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
    probe: Probe = no_probe,
    terminal: bool = True,
) -> list[dict[str, Any]]:
    """Restore, loop, evaluate the end, and write result, figures and report, of all runs of a program.

    Args:
      experiments: of the runs; they differ in what the program allows.
      directories: of the runs, locked and begun.
      program: computes them.
      started: `time.perf_counter()` at the start.
      probe: gives what `result.json` has under `probes`.
      terminal: show the progress of the first run.

    Returns:
      The content of `result.json` of each run.
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
        start, restored = _restore(experiments, checkpoints)
        earlier = [progress.seconds for _, _, progress in restored]
        results: dict[int, dict[str, Any]] = {}

        def end(index: int, status: str, steps: int) -> dict[str, Any]:
            """What the result of a run says however it ended."""
            progress = restored[index][2]
            result = make_result(experiments[index], directories[index], status=status, steps=steps, progress=progress)
            seconds = earlier[index] + time.perf_counter() - started
            return {**result, "wall_seconds": seconds, "runs_together": len(experiments)}

        def diverged(index: int, error: DivergenceError) -> None:
            checkpoints[index].wait()  # the last good one is on disk before the result says that the run has ended
            results[index] = {"status": "diverged", "steps": error.step, "message": str(error)}
            if is_first():
                results[index] = {**end(index, "diverged", error.step), "message": str(error)}
                directories[index].finish(results[index])

        def open_writers() -> list[list[Writer]]:
            return [
                _writers(experiment, directory, start, opened, terminal=terminal and index == 0) if is_first() else []
                for index, (experiment, directory) in enumerate(zip(experiments, directories, strict=True))
            ]

        writers = together(open_writers)
        parts = Parts(
            advance=program.advance,
            split=program.split,
            empty=lambda: program.stack([experiment.empty_metrics() for experiment in experiments]),
            metrics=first.task.training_metrics(),
            runs=[
                Run(
                    progress=restored[index][2],
                    evaluate=functools.partial(experiment.evaluate_validation, evaluations[index]),
                    checkpoints=checkpoints[index],
                    writers=writers[index],
                    diverged=functools.partial(diverged, index),
                )
                for index, experiment in enumerate(experiments)
            ],
        )
        state, pending = (program.stack(trees) for trees in zip(*((s, p) for s, p, _ in restored), strict=True))
        state, status = run_loop(state, pending, start=start, plan=first.plan, parts=parts, started=started)
        for index, final in enumerate(program.split(state)):
            if index in results:
                continue
            checkpoints[index].wait()
            trained, best = int(final.step), restored[index][2].best_step
            if best is not None and best != trained:
                experiment = experiments[index]
                final, _, _ = checkpoints[index].restore(best, experiment.abstract_state(), experiment.empty_metrics())
            ended = functools.partial(end, index, status, trained)
            results[index] = _conclude(experiments[index], directories[index], final, evaluations[index], ended, probe)
    return [results[index] for index in range(len(experiments))]


def _restore(
    experiments: Sequence[Experiment], checkpoints: Sequence[Checkpoints]
) -> tuple[int, list[tuple[TrainState, StepMetrics, Progress]]]:
    """The newest step of which all runs have a checkpoint, 0 if there is none, and what each run has of it."""
    start = max(set.intersection(*(set(each.steps()) for each in checkpoints)), default=0)
    restored = []
    creations: dict[str, Callable[[jax.Array], TrainState]] = {}  # runs that differ in their seed share a program
    for experiment, each in zip(experiments, checkpoints, strict=True):
        each.drop_after(start)
        if start:
            restored.append(each.restore(start, experiment.abstract_state(), experiment.empty_metrics()))
            continue
        content = sha256(experiment.config.model_copy(update={"seed": 0}))
        if content not in creations:
            creations[content] = experiment.compiled_creation()
        restored.append((creations[content](experiment.key), experiment.empty_metrics(), Progress()))
    return start, restored


def _writers(
    experiment: Experiment, directory: RunDirectory, start: int, opened: contextlib.ExitStack, *, terminal: bool
) -> list[Writer]:
    """The log, event files on request, and, of many runs for the first alone, the terminal."""
    if start and not read_rows(directory.metrics):
        print(f"warning: {directory.metrics} is lost; the curves begin at step {start}", file=sys.stderr)
    writers: list[Writer] = [JsonLines(directory.metrics, resume_step=start)]
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
) -> dict[str, Any]:
    """Evaluate a trained run, and write its figures, report and result."""
    values = {split: experiment.evaluate(evaluation, state, split) for split in experiment.evaluation_splits}
    numbers = probe(experiment, state)
    draw: Callable[[], list[pathlib.Path]] = list
    if experiment.config.train.figures:
        shown = experiment.evaluation_splits[-1:]
        predictions = experiment.predict(state, shown[0]) if shown else {}
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
