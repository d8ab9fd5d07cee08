"""The training loop: one order of events, written once, for one run or for many that a program computes together."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from cnn_jax.errors import DivergenceError
from cnn_jax.metrics import Metric
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.clock import Clock
from cnn_jax.train.dispatch import Advance
from cnn_jax.train.distributed import together
from cnn_jax.train.evaluate import scalars, summarize
from cnn_jax.train.plan import Plan
from cnn_jax.train.state import TrainState, is_finite
from cnn_jax.train.step import StepMetrics
from cnn_jax.train.stopping import Stop, StopInEvaluationError, Stopped
from cnn_jax.train.writers import Writer
from cnn_jax.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What belongs to one run, where a program may compute many.

    Attributes:
      progress: changed in place.
      evaluate: all evaluation numbers of a state, named `split/metric`; {} if there is nothing to evaluate on.
      checkpoints: where to save.
      writers: where numbers go.
      diverged: called with the state before the first step whose loss, gradient or update was not finite; the last
        checkpoint is from before. The other runs go on.
    """

    progress: Progress
    evaluate: Callable[[TrainState], dict[str, float]]
    checkpoints: Checkpoints
    writers: Sequence[Writer]
    diverged: Callable[[TrainState, DivergenceError], None]

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Give one row of numbers to every writer."""
        for writer in self.writers:
            writer.write(step, row)

    def save(self, step: int, state: TrainState, metrics: StepMetrics) -> None:
        """Save in the background; the log must be on disk before, because a resumed run goes on behind it.

        Raises:
          StorageError: the log, or the checkpoint before this one, cannot be written.
        """

        def flush() -> None:
            for writer in self.writers:
                writer.flush()

        together(flush)  # only the first process has any
        self.checkpoints.save(step, state, metrics, self.progress)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop calls; it knows nothing else of the runs.

    Attributes:
      advance: takes training steps and merges their metrics into the pending ones.
      split: the state, or the pending metrics, of each run.
      empty: new pending metrics.
      metrics: the training metrics, to read the pending ones.
      runs: what belongs to each run.
      stop: whether a signal has asked for the end.
    """

    advance: Advance
    split: Callable[[PyTree], Sequence[PyTree]]
    empty: Callable[[], PyTree]
    metrics: Mapping[str, Metric]
    runs: Sequence[Run]
    stop: Stop = dataclasses.field(default_factory=Stop)


def run_loop(
    state: PyTree, pending: PyTree, *, start: int, plan: Plan, parts: Parts, started: float
) -> tuple[PyTree, str]:
    """Train until the end, until early stopping says so, or until no run is left that has not diverged.

    The order is law: restore → (evaluate → save) → batch → step → log. A checkpoint of step s therefore holds the
    evaluation of step s and every log line up to s, and a resumed run goes on with the batch of step s.

    Args:
      state: new or restored, of all runs.
      pending: metrics since the last line of the log; restored with the state.
      start: steps done; if any, the state was restored, so its save is done, and mostly its evaluation.
      plan: when things happen; the same for all runs.
      parts: what happens.
      started: `time.perf_counter()` at the start of this session.

    Returns:
      The last state, and "completed", "early_stopped" or "diverged".

    Raises:
      Stopped: a signal asked for it; all is saved.
      StorageError: a checkpoint or the log cannot be written; what was saved before is still there.
    """
    done, saved, running = start, start, dict(enumerate(parts.runs))
    clock = Clock([run.progress for run in parts.runs], started)
    ended = any(_patience_is_over(run.progress, plan) for run in parts.runs)
    if any(run.progress.unevaluated for run in parts.runs):
        ended |= _evaluate_and_save(state, pending, done, plan, parts, running, clock)
    while not ended and done < plan.total and running:
        if parts.stop.asked():
            if saved < done:
                _save_all(state, pending, done, plan, parts, running, clock)
            if not running:
                break
            raise Stopped(parts.stop.signal, done or None)
        steps = plan.steps_at_once(done)
        state, pending = parts.advance(state, pending, done, steps)
        done += steps
        if done % plan.log_every == 0 or done == plan.total:
            _log(state, pending, done, plan, parts, running, clock)
            pending = parts.empty()
        if plan.evaluation_due(done) or plan.save_due(done):
            ended = _evaluate_and_save(state, pending, done, plan, parts, running, clock)
            interrupted = any(run.progress.unevaluated for run in running.values())  # then all of these are saved
            saved = done if plan.save_due(done) or (interrupted and len(running) == 1) else saved
    if not running:
        return state, "diverged"
    return state, "early_stopped" if ended else "completed"


def _evaluate_and_save(
    state: PyTree,
    pending: PyTree,
    done: int,
    plan: Plan,
    parts: Parts,
    running: dict[int, Run],
    clock: Clock,
) -> bool:
    """Whatever is due at this step; True if early stopping ends training.

    An evaluation that a signal interrupts is left, and the checkpoint says that it is still to be made.
    """
    clock.pause(done, plan.batch_size, wait_for=state)
    states, metrics = _finite(state, pending, parts, running)
    for run in running.values():
        # The last save of all before the next of any: there is always a step that all have.
        run.checkpoints.wait()
    again, ended = any(run.progress.unevaluated for run in running.values()), False
    for index, run in running.items():
        improved = over = left = False
        if plan.evaluation_due(done) and run.progress.unevaluated == again:
            try:
                row = run.evaluate(states[index])
            except StopInEvaluationError:
                left = True
            else:
                if row:
                    run.write(done, {**row, "time": {"seconds": run.progress.seconds}})
                improved, over = _judge(row, done, run.progress, plan)
        changed = left != run.progress.unevaluated
        run.progress.unevaluated = left
        if (plan.save_due(done) and not again) or improved or over or changed:
            run.save(done, states[index], metrics[index])
        ended |= over
    clock.resume(done)
    return ended


def _save_all(
    state: PyTree, pending: PyTree, done: int, plan: Plan, parts: Parts, running: dict[int, Run], clock: Clock
) -> None:
    """Save now, whatever is due, and wait until it is on disk."""
    clock.pause(done, plan.batch_size, wait_for=state)
    states, metrics = _finite(state, pending, parts, running)
    for run in running.values():
        run.checkpoints.wait()
    for index, run in running.items():
        run.save(done, states[index], metrics[index])
    for run in running.values():
        run.checkpoints.wait()


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


def _log(
    state: PyTree, pending: PyTree, done: int, plan: Plan, parts: Parts, running: dict[int, Run], clock: Clock
) -> None:
    """Read the pending metrics, check them, and write one row for each run."""
    values = _read_finite(state, pending, parts, running)
    clock.pause(done, plan.batch_size)
    for index, run in running.items():
        row = training_row(values[index], done, plan, parts.metrics)
        row["time"] = {"seconds": run.progress.seconds, "examples_per_second": clock.examples_per_second}
        run.write(done, row)
    clock.resume(done)


def training_row(values: StepMetrics, done: int, plan: Plan, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What a line of the log says of the steps since the last one, but for the time.

    Args:
      values: merged over these steps, on the host.
      done: steps done.
      plan: of the run.
      metrics: the training metrics.
    """
    row: dict[str, Any] = {"epoch": done * plan.batch_size / plan.examples_per_epoch}
    row |= scalars(summarize(metrics, [values.states]), "train")
    return row | {
        "train/learning_rate": float(values.learning_rate),
        "train/gradient_norm": float(values.gradient_norm),
    }


def _finite(
    state: PyTree, pending: PyTree, parts: Parts, running: dict[int, Run]
) -> tuple[Sequence[TrainState], Sequence[StepMetrics]]:
    """State and pending metrics of each run, after those that have diverged were taken out."""
    _read_finite(state, pending, parts, running)
    states = parts.split(state) if running else ()
    for index, run in list(running.items()):
        if not is_finite(states[index]):  # such as a running variance, which no loss of training shows
            del running[index]
            run.diverged(states[index], _of_state(int(states[index].step)))
    return states, parts.split(pending)


def _of_state(step: int) -> DivergenceError:
    return DivergenceError(
        f"training diverged at step {step}: a parameter, statistic or average is not finite; lower"
        " optimizer.learning_rate, add schedule.warmup or set train.clip_norm",
        step=step,
    )


def _read_finite(state: PyTree, pending: PyTree, parts: Parts, running: dict[int, Run]) -> Sequence[StepMetrics]:
    """The metrics of each run on the host; those whose loss or gradient was not finite run no longer."""
    values = jax.device_get(parts.split(pending))
    for index, run in list(running.items()):
        error = divergence(values[index])
        if error is not None:
            del running[index]
            run.diverged(parts.split(state)[index], error)
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
