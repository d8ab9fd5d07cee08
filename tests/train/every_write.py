"""Run by `test_full_disk.py` with `failing_writes.c` preloaded: every call that writes fails once, and all behind it.

Usage: every_write.py checkpoint|training LIBRARY FOLDER EVERY. Prints how many failures were injected, and what came.
"""

import collections
import ctypes
import errno
import pathlib
import shutil
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import StorageError, UserError
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.checkpoint_arrays import read_arrays
from cnn_jax.train.manifest import check_files
from cnn_jax.train.session import train
from cnn_jax.train.writers import read_rows

# pytest imports it as it looks for examples in docstrings.
if __name__ == "__main__":
    what, library, folder, every = sys.argv[1], ctypes.CDLL(sys.argv[2]), pathlib.Path(sys.argv[3]), int(sys.argv[4])
    library.fail_writes.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_long, ctypes.c_int]
    library.writes_so_far.restype = ctypes.c_long
STATE = {"params": {"kernel": jnp.arange(2000.0).reshape(20, 100)}, "step": jnp.int32(0)}
METRICS = {"loss": jnp.float32(0)}
CONFIG = {
    "task": {"name": "classification"},
    "model": {"name": "mlp", "hidden": (), "in_channels": 1},
    "data": {
        "source": "sklearn",
        "name": "digits",
        "splits": {"train": "train[:160]", "validation": "train[160:200]"},
        "batch_size": 32,
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    "train": {
        "duration": {"steps": 12},
        "log_every": {"steps": 3},
        "evaluate_every": {"steps": 6},
        "save_every": {"steps": 4},
        "early_stopping": {"patience": 100},
        "figures": False,
    },
    "parallel": {"devices": 1},
}
ended = collections.Counter()


def failing(first, count, error):
    """From now on the call `first` below the folder fails; `count` of them, or with 0 all."""
    library.fail_writes(str(folder).encode(), first, count, error)


def save(directory, step):
    checkpoints = Checkpoints(directory, keep=5)
    try:
        checkpoints.save(step, {**STATE, "step": jnp.int32(step)}, METRICS, Progress())
    finally:
        checkpoints.close()


def one_checkpoint(first, count, error):
    """Whether the call `first` was reached."""
    directory = folder / "checkpoints"
    shutil.rmtree(directory, ignore_errors=True)
    save(directory, 1)
    failing(first, count, error)
    try:
        save(directory, 2)
        saved = True
    except StorageError:
        saved = False
    reached = library.writes_so_far() >= first
    failing(0, 0, 0)
    ended["saved" if saved else "refused"] += reached
    reader = Checkpoints(directory, keep=None)
    there = reader.steps()
    assert there in ([1, 2], [1]), there
    assert 2 in there or not saved, "a save that failed was not told"
    for step in there:
        check_files(directory / str(step))
        restored = reader.restore(step, STATE, METRICS)[0]
        assert int(restored["step"]) == step
        np.testing.assert_array_equal(restored["params"]["kernel"], STATE["params"]["kernel"])
    save(directory, 2)
    assert reader.steps() == [1, 2]
    return reached


def without_times(directory):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(directory / "metrics.jsonl")]


def one_training(first, count, error):
    directory = folder / "run"
    shutil.rmtree(directory, ignore_errors=True)
    failing(first, count, error)
    try:
        train(CONFIG, directory)
        how = "finished"
    except StorageError:
        how = "stopped"
    except UserError as refusal:  # before the first step
        how = "refused" if "not writable" in str(refusal) else str(refusal)
    reached = library.writes_so_far() >= first
    failing(0, 0, 0)
    assert how in ("finished", "stopped", "refused"), how
    ended[how] += reached
    for checkpoint in (directory / "checkpoints").glob("[0-9]*"):
        check_files(checkpoint)
    train(CONFIG, directory, resume=True)
    assert without_times(directory) == without_times(folder / "whole")
    ours, whole = (read_arrays(folder / name / "checkpoints" / "12") for name in ("run", "whole"))
    assert all(ours[path].tobytes() == whole[path].tobytes() for path in whole)
    assert (directory / "result.json").exists()
    return reached


def main():
    """Fail at one call after the other until none is left."""
    warnings.simplefilter("ignore")
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    one = {"checkpoint": one_checkpoint, "training": one_training}[what]
    if what == "training":
        train(CONFIG, folder / "whole")
    first, injected = 1, 0
    while True:
        # The disk stays full, or one write fails and the next does not.
        count, error = ((0, errno.ENOSPC), (1, errno.EIO))[injected % 2] if what == "training" else (0, errno.ENOSPC)
        try:
            reached = one(first, count, error)
            if what == "checkpoint":
                reached &= one(first, 1, errno.EIO)
        except BaseException:
            failing(0, 0, 0)
            print(f"at call {first}, {count or 'all'} with {errno.errorcode[error]}", file=sys.stderr)
            raise
        if not reached:
            break
        first, injected = first + every, injected + 1
    print(f"{injected} places, {dict(ended)}")


if __name__ == "__main__":
    main()
