"""A real training is killed fifty times and started again by the same command; it ends as if it had not been."""

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

from cnn_jax.train.checkpoint import read_progress
from cnn_jax.train.checkpoint_arrays import read_arrays
from cnn_jax.train.writers import read_rows

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS, SAVE_EVERY, KILLS = 4000, 40, 25
CONFIG = f"""
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.task = {{"name": "classification"}}
    config.model = {{
        "name": "classic_stack", "in_channels": 1, "channels": (4,), "dense": (16,), "padding": "same", "norm": "batch",
        "dropout_rate": 0.2,
    }}
    config.data = {{
        "source": "sklearn",
        "name": "digits",
        "splits": {{"train": "train[:500]", "validation": "train[500:700]", "test": "test"}},
        "batch_size": 16,
        "augment": ({{"name": "random_crop", "padding": 1}},),
    }}
    config.optimizer = {{"name": "sgd", "learning_rate": 0.02, "momentum": 0.9}}
    config.schedule = {{"name": "cosine"}}
    config.train = {{
        "duration": {{"steps": {STEPS}}},
        "log_every": {{"steps": 30}},
        "evaluate_every": {{"steps": 200}},
        "save_every": {{"steps": {SAVE_EVERY}}},
        "early_stopping": {{"patience": 1000}},
        "ema": {{"decay": 0.99}},
        "figures": False,
    }}
    config.parallel = {{"devices": 1}}
    return config.lock()
"""
RESIDENT = ("--config.data.resident=true", "--config.train.steps_per_dispatch=7")


def start(config, directory, options):
    command = [sys.executable, str(ROOT / "experiments" / "train.py"), f"--config={config}", f"--workdir={directory}"]
    with (directory.parent / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [*command, "--resume", *options],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )


def sessions(directory):
    """How often the run was begun or gone on with: its passport grows when training is about to begin."""
    path = directory / "passport.json"
    return path.read_text(encoding="utf-8").count('"started"') if path.exists() else 0


def newest(directory):
    steps = [int(path.name) for path in (directory / "checkpoints").glob("[0-9]*")]
    return max(steps, default=0)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), RESIDENT], ids=["step by step", "many steps a dispatch"])
def test_killed_at_any_moment_a_run_ends_as_if_it_had_not_been(tmp_path, options):
    config = tmp_path / "config.py"
    config.write_text(CONFIG, encoding="utf-8")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(config, whole, options).wait(timeout=300) == 0, (tmp_path / "output.txt").read_text(encoding="utf-8")
    chance, kills, before = random.Random(0), 0, 0
    while kills < KILLS:
        earlier, was = sessions(killed), newest(killed)
        process = start(config, killed, options)
        # Nothing is at stake while Python starts. Some kills come while it restores and compiles, most in training.
        while process.poll() is None and sessions(killed) == earlier:
            time.sleep(0.005)
        if chance.random() < 0.7:
            while process.poll() is None and newest(killed) <= was:
                time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.3))
        assert process.poll() is None, (
            process.returncode,
            (tmp_path / "output.txt").read_text(encoding="utf-8")[-2000:],
        )
        process.kill()
        process.wait()
        kills += 1
        # What was saved stays: no kill takes back what an earlier session had.
        assert newest(killed) >= before
        before = newest(killed)
    assert start(config, killed, options).wait(timeout=300) == 0, (tmp_path / "output.txt").read_text(encoding="utf-8")
    print(f"{kills} kills, {sessions(killed)} sessions")
    assert "damaged" not in (tmp_path / "output.txt").read_text(encoding="utf-8")

    steps = [sorted(int(path.name) for path in (run / "checkpoints").glob("[0-9]*")) for run in (whole, killed)]
    assert steps[0] == steps[1]
    for step in steps[0]:
        at = [run / "checkpoints" / str(step) for run in (whole, killed)]
        for name in ("state", "step_metrics"):
            a, b = (read_arrays(folder, name=name) for folder in at)
            assert a.keys() == b.keys()
            assert all(a[path].tobytes() == b[path].tobytes() for path in a), step
        ours, theirs = (read_progress(folder) for folder in at)
        for key in ("best", "best_step", "evaluations_without_improvement"):
            assert getattr(ours, key) == getattr(theirs, key), key
    rows = [
        [{key: value for key, value in row.items() if key != "time"} for row in read_rows(run / "metrics.jsonl")]
        for run in (whole, killed)
    ]
    assert rows[0] == rows[1]
    left = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert left == sorted(map(str, steps[0])), "nothing is left of interrupted saves"
