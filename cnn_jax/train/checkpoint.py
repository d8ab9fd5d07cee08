"""Checkpoints with Orbax: the whole training state and what the loop knows, one directory a step, saved atomically."""

import dataclasses
import pathlib
import time
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from cnn_jax.errors import UserError
from cnn_jax.types import PyTree

# "metrics" is a name that Orbax keeps for itself.
STATE, METRICS = "state", "step_metrics"
# How long a reader waits for a folder that is being removed to be gone.
REMOVAL_POLLS, REMOVAL_POLL_SECONDS = 40, 0.05
OS_ERROR = "os_error_code"
"""Stands in the text of an error of tensorstore that the system caused."""


class CheckpointGoneError(UserError):
    """A checkpoint was pruned between being listed and being read."""


@dataclasses.dataclass
class Progress:
    """What the loop knows beside arrays; saved with every checkpoint.

    Attributes:
      best: best value of the early-stopping metric so far, or None.
      best_step: step of that value.
      evaluations_without_improvement: since then.
      seconds: wall time spent so far, over all sessions.
      training_seconds: of these, in timed training steps.
      timed_examples: examples in those steps.
    """

    best: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    timed_examples: int = 0


class Checkpoints:
    """The checkpoints of one run directory.

    A reader (`keep` is None) changes nothing, so it may look at a run that another process is training; a writer must
    hold the lock of the run directory.

    Args:
      directory: made absolute here, because Orbax fails on a relative path only later, in the background.
      keep: how many of the newest a writer keeps, besides the best; None for a reader.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int | None):
        # Only the writer may remove what an interrupted save left: for anybody else it may be a save in progress.
        writer = keep is not None
        self._checkpointer = ocp.training.Checkpointer(str(directory.resolve()), cleanup_tmp_directories=writer)
        self._directory = directory.resolve()
        self._keep = keep
        # The best step as the newest finished save knows it: an improvement counts once it is on disk.
        self._best: int | None = None

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def save(self, step: int, state: PyTree, metrics: PyTree, progress: Progress) -> None:
        """Save in the background; an earlier save that failed raises here.

        Args:
          step: optimizer steps done.
          state: the training state.
          metrics: those merged since the last line of the log.
          progress: what the loop knows.
        """
        self.wait()
        # The previous save is complete only now: prune by what is safely on disk.
        self._prune()
        saved = self._checkpointer.save_checkpointables_async(
            step, {STATE: state, METRICS: metrics}, force=True, custom_metadata={**dataclasses.asdict(progress)}
        )
        if not saved:
            raise RuntimeError(f"Orbax did not accept the checkpoint of step {step}; there are those of {self.steps()}")
        self._best = progress.best_step

    def restore(self, step: int, state: PyTree, metrics: PyTree) -> tuple[PyTree, PyTree, Progress]:
        """Read one checkpoint into the shapes, types and shardings of `state` and `metrics` (arrays or abstract).

        Raises:
          CheckpointGoneError: the training that owns it removed it meanwhile.
          UserError: there is no such checkpoint, or it is damaged or of another model.
        """
        if step not in self.steps():
            raise UserError(f"no checkpoint of step {step} in {self._directory}; there are {self.steps()}")
        abstract = jax.tree.map(_abstract, {STATE: state, METRICS: metrics})
        try:
            loaded = self._checkpointer.load_checkpointables(step, abstract)
            metadata: Any = self._checkpointer.checkpointables_metadata(step).custom_metadata
            progress = Progress(**metadata)
        except Exception as error:  # Orbax raises errors of a dozen kinds for files that are not as they should be
            if self._disappears(step):
                raise CheckpointGoneError(
                    f"checkpoint {step} in {self._directory} was removed by its training"
                ) from None
            reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:200]
            advice = "" if self._keep is None else "; to go on from an earlier one, move its folder away"
            raise UserError(
                f"checkpoint {step} in {self._directory} cannot be read, it is damaged or of another model"
                f" ({reason}){advice}"
            ) from error
        self._best = progress.best_step
        return loaded[STATE], loaded[METRICS], progress

    def _disappears(self, step: int) -> bool:
        """Whether a checkpoint that cannot be read is being removed: its files go one by one, its folder last."""
        for _ in range(REMOVAL_POLLS if self._keep is None else 1):
            if not (self._directory / str(step)).exists():
                return True
            time.sleep(REMOVAL_POLL_SECONDS)
        return False

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps: those that other runs of the same program do not have."""
        for later in self.steps():
            if later > step:
                self._checkpointer.delete(later)

    def wait(self) -> None:
        """Until the last save is on disk.

        Raises:
          OSError: it could not be written, for example because the disk is full.
        """
        try:
            self._checkpointer.wait()
        except ValueError as error:  # so tensorstore, which Orbax writes with, tells of the system's errors
            if OS_ERROR not in str(error):
                raise
            raise OSError(
                f"a checkpoint in {self._directory} cannot be written: {str(error).splitlines()[0]}"
            ) from None

    def close(self) -> None:
        """Finish the last save, prune, and release the directory."""
        self.wait()
        self._prune()
        self._checkpointer.close()

    def _prune(self) -> None:
        for step in self.steps()[: -self._keep] if self._keep else []:
            if step != self._best:
                self._checkpointer.delete(step)


def _abstract(x: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
