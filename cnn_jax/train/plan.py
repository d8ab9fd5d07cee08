"""When things happen in a run."""

import dataclasses

from cnn_jax.errors import UserError
from cnn_jax.train.config import Config, EarlyStopping
from cnn_jax.train.duration import Duration
from cnn_jax.train.schedule import ToSteps

PARTS_OF_A_RUN = 10
LARGEST_STEP = 2**31 - 1


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

    def evaluation_due(self, done: int) -> bool:
        """Whether to evaluate after so many steps."""
        return done % self.evaluate_every == 0 or done == self.total

    def save_due(self, done: int) -> bool:
        """Whether to save after so many steps."""
        return done % self.save_every == 0 or done == self.total


def make_plan(config: Config, examples_per_epoch: int, to_steps: ToSteps) -> Plan:
    """The plan of a resolved config.

    Args:
      config: of the run.
      examples_per_epoch: size of the training split.
      to_steps: a duration to steps.

    Raises:
      UserError: more steps than the counter holds.
    """
    train = config.train
    total = to_steps(train.duration)
    if total > LARGEST_STEP:
        raise UserError(f"config.train.duration is {total:.3g} steps; the step counter ends at {LARGEST_STEP:,}")
    part = Duration(steps=-(-total // PARTS_OF_A_RUN))
    return Plan(
        total=total,
        log_every=to_steps(train.log_every),
        evaluate_every=to_steps(train.evaluate_every or part),
        save_every=to_steps(train.save_every or part),
        examples_per_epoch=examples_per_epoch,
        batch_size=config.data.batch_size,
        early_stopping=train.early_stopping,
        steps_per_dispatch=train.steps_per_dispatch,
    )
