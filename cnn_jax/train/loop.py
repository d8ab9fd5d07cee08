"""The training loop: one order of events, written once."""

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
class Parts:
    """What the loop calls; it knows nothing else of the run.

    Attributes:
      advance: takes training steps and merges their metrics into the pending ones.
      empty: new pending metrics.
      metrics: the training metrics, to read the pending ones.
      evaluate: all evaluation numbers of a state, named `split/metric`; {} if there is nothing to evaluate on.
      checkpoints: where to save.
      writers: where numbers go.
    """

    advance: Advance
    empty: Callable[[], StepMetrics]
    metrics: Mapping[str, Metric]
    evaluate: Callable[[TrainState], dict[str, float]]
    checkpoints: Checkpoints
    writers: Sequence[Writer]

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Give one row of numbers to every writer."""
        for writer in self.writers:
            writer.write(step, row)


def run_loop(
    state: TrainState,
    pending: StepMetrics,
    progress: Progress,
    *,
    plan: Plan,
    parts: Parts,
    resumed: bool,
    started: float,
) -> tuple[TrainState, str]:
    """Train until the end, or until early stopping says so.

    The order is law: restore → (evaluate → save) → batch → step → log. A checkpoint of step s therefore holds the
    evaluation of step s and every log line up to s, and a resumed run goes on with the batch of step s.

    Args:
      state: new or restored.
      pending: metrics since the last line of the log; restored with the state.
      progress: changed in place.
      plan: when things happen.
      parts: what happens.
      resumed: the state was restored, so its evaluation and its save are done.
      started: `time.perf_counter()` at the start of this session.

    Returns:
      The last state, and "completed" or "early_stopped".

    Raises:
      DivergenceError: a loss or gradient was not finite; the last checkpoint is from before.
    """
    start = done = int(state.step)
    clock = _Clock(progress, started)
    while True:
        if resumed and done == start:
            stop = _patience_is_over(progress, plan)
        else:
            stop = _evaluate_and_save(state, pending, progress, done, plan, parts, clock)
        if stop:
            return state, "early_stopped"
        if done == plan.total:
            return state, "completed"
        steps = plan.steps_at_once(done)
        state, pending = parts.advance(state, pending, done, steps)
        done += steps
        if done % plan.log_every == 0 or done == plan.total:
            _log(pending, done, plan, parts, clock)
            pending = parts.empty()


def _evaluate_and_save(
    state: TrainState,
    pending: StepMetrics,
    progress: Progress,
    done: int,
    plan: Plan,
    parts: Parts,
    clock: "_Clock",
) -> bool:
    """Whatever is due at this step; True if early stopping ends the run."""
    last = done == plan.total
    evaluation_due = done > 0 and (done % plan.evaluate_every == 0 or last)
    save_due = done > 0 and (done % plan.save_every == 0 or last)
    if not (evaluation_due or save_due):
        return False
    check_finite(jax.device_get(pending))
    clock.pause(done, plan.batch_size, wait_for=state.step)
    improved = stop = False
    if evaluation_due:
        row = parts.evaluate(state)
        if row:
            parts.write(done, {**row, "time": {"seconds": progress.seconds}})
        improved, stop = _judge(row, done, progress, plan)
    if save_due or improved or stop:
        parts.checkpoints.save(done, state, pending, progress)
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


def _log(pending: StepMetrics, done: int, plan: Plan, parts: Parts, clock: "_Clock") -> None:
    """Read the pending metrics, check them, and write one row."""
    values = jax.device_get(pending)
    check_finite(values)
    clock.pause(done, plan.batch_size)
    row: dict[str, Any] = {"epoch": done * plan.batch_size / plan.examples_per_epoch}
    row |= scalars(summarize(parts.metrics, [values.states]), "train")
    row |= {"train/learning_rate": float(values.learning_rate), "train/gradient_norm": float(values.gradient_norm)}
    row["time"] = {"seconds": clock.progress.seconds, "examples_per_second": clock.examples_per_second}
    parts.write(done, row)
    clock.resume(done)


def check_finite(values: StepMetrics) -> None:
    """Raise the error of the first step whose loss or gradient norm was not finite.

    Raises:
      DivergenceError: names the step, the loss, the learning rate and the gradient norm.
    """
    step = int(values.bad_step)
    if step >= 0:
        raise DivergenceError(
            f"training diverged at step {step}: loss {float(values.bad_loss):g}, learning rate"
            f" {float(values.bad_learning_rate):g}, gradient norm {float(values.bad_gradient_norm):g};"
            " lower optimizer.learning_rate, add schedule.warmup or set train.clip_norm",
            step=step,
        )


class _Clock:
    """Wall time, and speed over training steps alone: no compilation, evaluation or saving in it."""

    def __init__(self, progress: Progress, started: float):
        self.progress = progress
        self._started = started - progress.seconds
        # Unknown until the first pause: the first stretch holds the compilation.
        self._since: tuple[float, int] | None = None
        self.examples_per_second: float | None = None

    def pause(self, done: int, batch_size: int, wait_for: jax.Array | None = None) -> None:
        """Stop timing steps, once the device has caught up."""
        if wait_for is not None:
            jax.block_until_ready(wait_for)
        now = time.perf_counter()
        self.progress.seconds = now - self._started
        if self._since is not None and done > self._since[1]:
            seconds, examples = now - self._since[0], (done - self._since[1]) * batch_size
            self.progress.training_seconds += seconds
            self.progress.timed_examples += examples
            self.examples_per_second = examples / seconds

    def resume(self, done: int) -> None:
        """Time steps from here on."""
        self._since = (time.perf_counter(), done)
