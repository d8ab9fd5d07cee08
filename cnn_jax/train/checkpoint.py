"""Checkpoints: the whole training state and what the loop knows, one folder a step, there whole or not at all.

Orbax writes the arrays into a hidden folder; when it is done a manifest with the digests of every array and every file
is written beside them, and the folder gets its name. What is read is checked against that manifest first.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import pathlib
import shutil
import time
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from cnn_jax.errors import UserError
from cnn_jax.train.checkpoint_arrays import (
    abstract,
    by_path,
    check_shapes,
    in_place_of,
    load,
    naming_write_errors,
    whole,
)
from cnn_jax.train.distributed import is_first, together
from cnn_jax.train.manifest import (
    DamagedError,
    Manifest,
    array_digest,
    check_array,
    check_files,
    file_digests,
    read_manifest,
    write_manifest,
)
from cnn_jax.types import PyTree

# "metrics" is a name that Orbax keeps for itself.
STATE, METRICS = "state", "step_metrics"
SAVING, REMOVING, DAMAGED = ".saving", ".removing", "damaged"
"""How the names of unfinished and of unwanted checkpoints begin, and where those go that are not as they were."""


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
      reduced_at: steps at which training diverged and went on from an earlier checkpoint, with reduced rates.
      unevaluated: the checkpoint was made in a hurry, and the evaluation that is due at its step has not been done.
    """

    best: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    timed_examples: int = 0
    reduced_at: list[int] = dataclasses.field(default_factory=list)
    unevaluated: bool = False


class Checkpoints:
    """The checkpoints of one run directory.

    A reader (`keep` is None) changes nothing, so it may look at a run that another process is training; a writer must
    hold the lock of the run directory.

    Args:
      directory: made absolute here, because Orbax fails on a relative path only later, in the background.
      keep: how many of the newest a writer keeps, besides the best; None for a reader.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int | None):
        self._directory = directory.resolve()
        self._keep = keep
        # The best step as the newest finished save knows it: an improvement counts once it is on disk.
        self._best: int | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._saving: concurrent.futures.Future[None] | None = None
        # Only the writer may remove what an interrupted save left: for anybody else it may be a save in progress.
        if keep is not None and is_first():
            self._finish_renaming()
            self._clear(SAVING)
            self._clear(REMOVING)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        if not self._directory.is_dir():
            return []
        names = [path.name for path in self._directory.iterdir() if path.name.isdecimal() and path.is_dir()]
        return sorted(int(name) for name in names if name == str(int(name)))

    def save(self, step: int, state: PyTree, metrics: PyTree, progress: Progress) -> None:
        """Save in the background; an earlier save that failed raises here.

        Args:
          step: optimizer steps done.
          state: the training state.
          metrics: those merged since the last line of the log.
          progress: what the loop knows.

        Raises:
          StorageError: the disk is full or fails.
        """
        self.wait()
        # The previous save is complete only now: prune by what is safely on disk.
        self.prune()
        trees = {STATE: by_path(state), METRICS: by_path(metrics)}
        # Of what is in memory now, not of what Orbax makes of it; the next step may reuse that memory.
        arrays = {name: {path: array_digest(whole(x)) for path, x in tree.items()} for name, tree in trees.items()}
        manifest = Manifest(step=step, progress=dataclasses.asdict(progress), arrays=arrays, files={})
        folder = self._directory / f"{SAVING}-{step}"
        with naming_write_errors(self._directory):
            together(functools.partial(self._make_room, folder.name))
            stored = {name: {path: x for path, x in tree.items() if x.size} for name, tree in trees.items()}
            context = ocp.Context()
            # Where a folder cannot be made, Orbax's threads would wait for it for minutes.
            context.async_options.create_directories_asynchronously = False
            with context:
                response = ocp.save_checkpointables_async(str(folder), stored)
        self._saving = self._thread.submit(self._finish, response, folder, manifest)
        self._best = progress.best_step

    def _finish(self, response: Any, folder: pathlib.Path, manifest: Manifest) -> None:
        """Wait for Orbax, describe what it wrote, and give the folder its name."""
        with naming_write_errors(self._directory):
            try:
                response.result()
                if is_first():
                    write_manifest(folder, dataclasses.replace(manifest, files=file_digests(folder)))
                    self._give_name(folder, manifest.step)
            except BaseException:
                if is_first():
                    self._clear(folder.name)  # the space is needed
                raise

    def restore(self, step: int, state: PyTree, metrics: PyTree) -> tuple[PyTree, PyTree, Progress]:
        """Read one checkpoint into the shapes, types and shardings of `state` and `metrics` (arrays or abstract).

        Raises:
          CheckpointGoneError: it is not there, or not any more.
          DamagedError: a file of it is not what was written.
          UserError: it is of another model or of a newer cnn_jax.
        """
        if step not in self.steps():
            raise CheckpointGoneError(f"no checkpoint of step {step} in {self._directory}; there are {self.steps()}")
        folder, trees = self._directory / str(step), {STATE: state, METRICS: metrics}
        wanted = {name: by_path(jax.tree.map(abstract, tree)) for name, tree in trees.items()}
        where = f"checkpoint {step} in {self._directory}"
        try:
            manifest = check_files(folder)
            if manifest.step != step:  # the folder of another step, under this one's name
                raise DamagedError(f"it is the checkpoint of step {manifest.step}")
            for name, tree in wanted.items():
                check_shapes(where, tree, manifest.arrays[name])
            loaded = load(folder, wanted)
            for name, arrays in manifest.arrays.items():
                for path, expected in arrays.items():
                    if loaded[name][path].is_fully_addressable:
                        check_array(path, np.asarray(loaded[name][path]), expected)
        except DamagedError as error:
            if not folder.exists():
                raise CheckpointGoneError(f"{where} was removed by its training") from None
            raise DamagedError(f"{where} is damaged: {error}") from None
        progress = _progress(manifest)
        self._best = progress.best_step
        return (*(in_place_of(trees[name], loaded[name]) for name in (STATE, METRICS)), progress)

    def set_aside_damaged(self) -> dict[int, str]:
        """Move checkpoints that are not what was written into the folder `damaged`; they are kept, and not used.

        Returns:
          The step of each to what is wrong with it and where it is now.

        Raises:
          UserError: one cannot be read now, or is of a newer cnn_jax.
        """
        found = {}
        for step in self.steps():
            try:
                check_files(self._directory / str(step))
            except DamagedError as error:
                found[step] = self.set_aside(step, str(error))
        return found

    def set_aside(self, step: int, why: str, *, folder: str = DAMAGED) -> str:
        """Move one checkpoint into a folder beside the others; the reason, and where it is now."""
        aside = self._directory / folder
        aside.mkdir(exist_ok=True)
        names = itertools.chain([str(step)], (f"{step}-{number}" for number in itertools.count(2)))
        kept = next(aside / name for name in names if not (aside / name).exists())
        (self._directory / str(step)).rename(kept)
        return f"{why}; it is kept in {kept}"

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps: those that other runs of the same program do not have."""
        for later in self.steps():
            if later > step and is_first():
                self._remove(later)

    def wait(self) -> None:
        """Until the last save is on disk.

        Raises:
          StorageError: it could not be written, for example because the disk is full.
        """
        if self._keep is not None:
            together(self._join)

    def prune(self) -> None:
        """Remove all but the newest, of which there are as many as are to be kept, and the best."""
        for step in self.steps()[: -self._keep] if self._keep and is_first() else []:
            if step != self._best:
                self._remove(step)

    def close(self) -> None:
        """Finish the last save, and release the thread."""
        try:
            self._join()
        finally:
            self._thread.shutdown()

    def _join(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _make_room(self, name: str) -> None:
        if is_first():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._clear(name)

    def _give_name(self, folder: pathlib.Path, step: int) -> None:
        """From now on a finished folder is the checkpoint of a step, in place of one that is there already."""
        place = self._directory / str(step)
        # Between these two a kill leaves a folder that `_finish_renaming` knows as whole.
        old = self._out_of_the_way(step) if place.exists() else None
        folder.rename(place)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)

    def _finish_renaming(self) -> None:
        """Give those folders their names that were whole when a kill came between taking and giving the name."""
        for folder in self._directory.glob(f"{SAVING}-*"):
            step = folder.name.removeprefix(f"{SAVING}-")
            if step.isdecimal() and not (self._directory / step).exists():
                with contextlib.suppress(UserError):  # not whole: it was being written
                    check_files(folder)
                    folder.rename(self._directory / step)

    def _clear(self, beginning: str) -> None:
        """Remove the hidden folders of this name, and Orbax's own beside them, whose names begin with it."""
        for folder in self._directory.glob(f"{beginning}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _out_of_the_way(self, step: int) -> pathlib.Path:
        """Take a checkpoint's name away at once; an earlier folder that could not be emptied is not in the way."""
        removing = self._directory / f"{REMOVING}-{step}-{time.time_ns()}"
        (self._directory / str(step)).rename(removing)
        return removing

    def _remove(self, step: int) -> None:
        if (self._directory / str(step)).exists():
            shutil.rmtree(self._out_of_the_way(step), ignore_errors=True)


def read_progress(folder: pathlib.Path) -> Progress:
    """What the loop knew at a checkpoint; its manifest alone is read.

    Raises:
      UserError: the manifest is damaged, or of a newer cnn_jax.
    """
    return _progress(read_manifest(folder))


def _progress(manifest: Manifest) -> Progress:
    try:
        return Progress(**manifest.progress)
    except TypeError as error:
        raise UserError(f"the checkpoint of step {manifest.step} is of another cnn_jax: {error}") from None
