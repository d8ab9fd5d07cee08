"""Checkpoints with Orbax: the whole training state and what the loop knows, one directory a step, saved atomically."""

import dataclasses
import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from cnn_jax.errors import UserError
from cnn_jax.types import PyTree

# "metrics" is a name that Orbax keeps for itself.
STATE, METRICS = "state", "step_metrics"


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
        self._keep = keep

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
        self._checkpointer.wait()
        # The previous save is complete only now: prune by what is safely on disk.
        self._prune(progress)
        saved = self._checkpointer.save_checkpointables_async(
            step, {STATE: state, METRICS: metrics}, force=True, custom_metadata={**dataclasses.asdict(progress)}
        )
        if not saved:
            raise RuntimeError(
                f"Orbax did not accept the checkpoint of step {step}; checkpoints exist for {self.steps()}"
            )

    def restore(self, step: int, state: PyTree, metrics: PyTree) -> tuple[PyTree, PyTree, Progress]:
        """Read one checkpoint into the shapes, types and shardings of `state` and `metrics` (arrays or abstract).

        Raises:
          UserError: there is no such checkpoint, or it is damaged or of another model.
        """
        if step not in self.steps():
            raise UserError(f"no checkpoint of step {step} in {self._checkpointer.directory}; there are {self.steps()}")
        abstract = jax.tree.map(_abstract, {STATE: state, METRICS: metrics})
        try:
            loaded = self._checkpointer.load_checkpointables(step, abstract)
        except (ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"checkpoint {step} in {self._checkpointer.directory} cannot be read: it is damaged, being removed, or"
                f" of another model ({first}); delete its folder to go on from an earlier one"
            ) from error
        metadata: Any = self._checkpointer.checkpointables_metadata(step).custom_metadata
        return loaded[STATE], loaded[METRICS], Progress(**metadata)

    def wait(self) -> None:
        """Until the last save is on disk."""
        self._checkpointer.wait()

    def close(self, progress: Progress | None = None) -> None:
        """Finish the last save, prune if `progress` says what is best, and release the directory."""
        self._checkpointer.wait()
        if progress is not None:
            self._prune(progress)
        self._checkpointer.close()

    def _prune(self, progress: Progress) -> None:
        for step in self.steps()[: -self._keep] if self._keep else []:
            if step != progress.best_step:
                self._checkpointer.delete(step)


def _abstract(x: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
