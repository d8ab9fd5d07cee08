"""Makes the run directory of `test_golden_run.py` for a new format of checkpoints; the older ones stay as they are.

Usage: python tests/train/make_golden_run.py tests/train/golden/format_N
"""

import pathlib
import sys

import jax
import numpy as np

from cnn_jax.train.run import build
from cnn_jax.train.session import train

CONFIG = {
    "seed": 7,
    "task": {"name": "classification"},
    "model": {
        "name": "classic_stack",
        "in_channels": 1,
        "channels": (4,),
        "dense": (),
        "padding": "same",
        "norm": "batch",
    },
    "data": {
        "source": "sklearn",
        "name": "digits",
        "splits": {"train": "train[:160]", "validation": "train[160:200]", "test": "test[:45]"},
        "batch_size": 32,
    },
    "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
    "train": {
        "duration": {"steps": 12},
        "log_every": {"steps": 3},
        "evaluate_every": {"steps": 4},
        "save_every": {"steps": 4},
        "ema": {"decay": 0.9},
        "early_stopping": {"patience": 9},
        "figures": False,
    },
    "parallel": {"devices": 1},
}
STEP = 12


def main(folder: pathlib.Path) -> None:
    """Train the run, and keep the arrays of its end beside it, as they were in memory."""
    train(CONFIG, folder / "run")
    experiment = build(CONFIG)
    state, pending = experiment.initial_state(), experiment.empty_metrics()
    advance = experiment.compiled_advance()
    for done in range(STEP):
        state, pending = advance(state, pending, done, 1)
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(state))[0]
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    np.savez_compressed(folder / "values.npz", **named)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
