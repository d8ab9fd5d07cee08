"""The training loop: one order of events, written once, for one run or for many that a program computes together."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from cnn_jax.errors import DivergenceError
from cnn_jax.metrics import Metric
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.config import EarlyStopping
from cnn_jax.train.dispatch import Advance
from cnn_jax.train.evaluate import scalars, summarize
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import StepMetrics
from cnn_jax.train.writers import Writer
from cnn_jax.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """When things happen, in optimizer steps.

    Attributes:
      total: length of the run.
      log_every: steps between lines of the log.
      evaluate_every: steps between evaluations.
      save_every: steps between checkpoints.
      examples_per_epoch: size of the training split.
      batch_size: examples per step.
      early_stopping: when to stop before the end, or None.
      steps_per_dispatch: steps taken at once, at most.
    """

    total: int
    log_every: int
    evaluate_every: int
    save_every: int
    examples_per_epoch: int
    batch_size: int
    early_stopping: EarlyStopping | None = None
    steps_per_dispatch: int = 1

    def steps_at_once(self, done: int) -> int:
        """How many steps the next dispatch takes: none passes a log line, an evaluation, a save or the end."""
        intervals = (self.log_every, self.evaluate_every, self.save_every)
        room = min(self.total - done, *(every - done % every for every in intervals))
        return min(room, self.steps_per_dispatch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What belongs to one run, where a program may compute many.

    Attributes:
      progress: changed in place.
      evaluate: all evaluation numbers of a state, named `split/metric`; {} if there is nothing to evaluate on.
      checkpoints: where to save.
      writers: where numbers go.
      diverged: called when a loss or gradient was not finite; the last checkpoint is from before. The other runs go on.
    """

    progress: Progress
    evaluate: Callable[[TrainState], dict[str, float]]
    checkpoints: Checkpoints
    writers: Sequence[Writer]
    diverged: Callable[[DivergenceError], None]

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Give one row of numbers to every writer."""
        for writer in self.writers:
            writer.write(step, row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop calls; it knows nothing else of the runs.

    Attributes:
      advance: takes training steps and merges their metrics into the pending ones.
      split: the state, or the pending metrics, of each run.
      empty: new pending metrics.
      metrics: the training metrics, to read the pending ones.
      runs: what belongs to each run.
    """

    advance: Advance
    split: Callable[[PyTree], Sequence[PyTree]]
    empty: Callable[[], PyTree]
    metrics: Mapping[str, Metric]
    runs: Sequence[Run]


def run_loop(
    state: PyTree, pending: PyTree, *, start: int, plan: Plan, parts: Parts, started: float
) -> tuple[PyTree, str]:
    """Train until the end, until early stopping says so, or until no run is left that has not diverged.

    The order is law: restore → (evaluate → save) → batch → step → log. A checkpoint of step s therefore holds the
    evaluation of step s and every log line up to s, and a resumed run goes on with the batch of step s.

    Args:
      state: new or restored, of all runs.
      pending: metrics since the last line of the log; restored with the state.
      start: steps done; if any, the state was restored, so its evaluation and its save are done.
      plan: when things happen; the same for all runs.
      parts: what happens.
      started: `time.perf_counter()` at the start of this session.

    Returns:
      The last state, and "completed", "early_stopped" or "diverged".
    """
    done, running = start, dict(enumerate(parts.runs))
    clock = _Clock([run.progress for run in parts.runs], started)
    stop = any(_patience_is_over(run.progress, plan) for run in parts.runs)
    while not stop and done < plan.total:
        steps = plan.steps_at_once(done)
        state, pending = parts.advance(state, pending, done, steps)
        done += steps
        if done % plan.log_every == 0 or done == plan.total:
            _log(pending, done, plan, parts, running, clock)
            pending = parts.empty()
        stop = _evaluate_and_save(state, pending, done, plan, parts, running, clock)
        if not running:
            return state, "diverged"
    return state, "early_stopped" if stop else "completed"


def _evaluate_and_save(
    state: PyTree,
    pending: PyTree,
    done: int,
    plan: Plan,
    parts: Parts,
    running: dict[int, Run],
    clock: "_Clock",
) -> bool:
    """Whatever is due at this step; True if early stopping ends training."""
    last = done == plan.total
    evaluation_due = done % plan.evaluate_every == 0 or last
    save_due = done % plan.save_every == 0 or last
    if not (evaluation_due or save_due):
        return False
    clock.pause(done, plan.batch_size, wait_for=state)
    metrics = parts.split(pending)
    _read_finite(metrics, running)
    states = parts.split(state) if running else ()
    for run in running.values():
        # The last save of all before the next of any: there is always a step that all have.
        run.checkpoints.wait()
    stop = False
    for index, run in running.items():
        improved = over = False
        if evaluation_due:
            row = run.evaluate(states[index])
            if row:
                run.write(done, {**row, "time": {"seconds": run.progress.seconds}})
            improved, over = _judge(row, done, run.progress, plan)
        if save_due or improved or over:
            run.checkpoints.save(done, states[index], metrics[index], run.progress)
        stop |= over
    clock.resume(done)
    return stop


def _judge(row: Mapping[str, float], done: int, progress: Progress, plan: Plan) -> tuple[bool, bool]:
    """(is the best so far, patience is over), by the metric of early stopping."""
    rule = plan.early_stopping
    if rule is None:
        return False, False
    value = row[rule.metric]
    sign = 1.0 if rule.mode == "max" else -1.0
    improved = math.isfinite(value) and (progress.best is None or sign * (value - progress.best) > rule.min_delta)
    if improved:
        progress.best, progress.best_step, progress.evaluations_without_improvement = value, done, 0
    else:
        progress.evaluations_without_improvement += 1
    return improved, _patience_is_over(progress, plan)


def _patience_is_over(progress: Progress, plan: Plan) -> bool:
    rule = plan.early_stopping
    return rule is not None and progress.evaluations_without_improvement >= rule.patience


def _log(pending: PyTree, done: int, plan: Plan, parts: Parts, running: dict[int, Run], clock: "_Clock") -> None:
    """Read the pending metrics, check them, and write one row for each run."""
    values = _read_finite(parts.split(pending), running)
    clock.pause(done, plan.batch_size)
    for index, run in running.items():
        row = log_row(values[index], done, plan, parts.metrics)
        row["time"] = {"seconds": run.progress.seconds, "examples_per_second": clock.examples_per_second}
        run.write(done, row)
    clock.resume(done)


def log_row(values: StepMetrics, done: int, plan: Plan, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """One line of the log, but for its times.

    Args:
      values: pending metrics of one run, on the host.
      done: steps.
      plan: of the run.
      metrics: the training metrics, to read the values.
    """
    row: dict[str, Any] = {"epoch": done * plan.batch_size / plan.examples_per_epoch}
    row |= scalars(summarize(metrics, [values.states]), "train")
    return row | {
        "train/learning_rate": float(values.learning_rate),
        "train/gradient_norm": float(values.gradient_norm),
    }


def _read_finite(metrics: Sequence[StepMetrics], running: dict[int, Run]) -> Sequence[StepMetrics]:
    """The metrics of each run on the host; those whose loss or gradient was not finite run no longer."""
    values = jax.device_get(metrics)
    for index, run in list(running.items()):
        error = divergence(values[index])
        if error is not None:
            del running[index]
            run.diverged(error)
    return values


def divergence(values: StepMetrics) -> DivergenceError | None:
    """The error of the first step whose loss or gradient was not finite, with what led to it, or None."""
    step = int(values.bad_step)
    if step < 0:
        return None
    return DivergenceError(
        f"training diverged at step {step}: loss {float(values.bad_loss):g}, learning rate"
        f" {float(values.bad_learning_rate):g}, gradient norm {float(values.bad_gradient_norm):g};"
        " lower optimizer.learning_rate, add schedule.warmup or set train.clip_norm",
        step=step,
    )


class _Clock:
    """Wall time, and speed over training steps alone: no compilation, evaluation or saving in it.

    The speed is that of each run, not their sum.
    """

    def __init__(self, progresses: Sequence[Progress], started: float):
        self._progresses = [(progress, progress.seconds) for progress in progresses]
        self._started = started
        # Unknown until the first pause: the first stretch holds the compilation.
        self._since: tuple[float, int] | None = None
        self.examples_per_second: float | None = None

    def pause(self, done: int, batch_size: int, wait_for: PyTree = None) -> None:
        """Stop timing steps, once the device has caught up."""
        if wait_for is not None:
            jax.block_until_ready(wait_for)
        now = time.perf_counter()
        for progress, earlier in self._progresses:
            progress.seconds = earlier + now - self._started
        if self._since is not None and done > self._since[1]:
            seconds, examples = now - self._since[0], (done - self._since[1]) * batch_size
            for progress, _ in self._progresses:
                progress.training_seconds += seconds
                progress.timed_examples += examples
            self.examples_per_second = examples / seconds

    def resume(self, done: int) -> None:
        """Time steps from here on."""
        self._since = (time.perf_counter(), done)
