"""SIGTERM and Ctrl-C save and stop; the run goes on from there as if it had not been stopped."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cnn_jax.train.checkpoint_arrays import read_arrays
from cnn_jax.train.writers import read_rows

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 400
CONFIG = f"""
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.task = {{"name": "classification"}}
    config.model = {{"name": "mlp", "hidden": (32,), "in_channels": 1}}
    config.data = {{
        "source": "sklearn",
        "name": "digits",
        "splits": {{"train": "train[:80%]", "validation": "train[80%:]", "test": "test"}},
        "batch_size": 32,
    }}
    config.optimizer = {{"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}}
    config.train = {{
        "duration": {{"steps": {STEPS}}},
        "log_every": {{"steps": 7}},
        "evaluate_every": {{"steps": 50}},
        "save_every": {{"steps": 100}},
        "early_stopping": {{"patience": 1000}},
        "ema": {{"decay": 0.99}},
        "figures": False,
    }}
    return config.lock()
"""
# Slow enough to be met by a signal in the middle of a step, or of an evaluation.
SLOWLY = """
import sys, time
sys.argv = sys.argv[1:]
what, seconds = sys.argv.pop(), 0.02
from cnn_jax.train import evaluate, loop
if what == "training":
    once = loop.Plan.steps_at_once
    def slow(self, done):
        time.sleep(seconds)
        return once(self, done)
    loop.Plan.steps_at_once = slow
else:
    from cnn_jax.train.experiment import Experiment
    batches = Experiment.evaluation_batches
    def slow(self, split):
        for batch in batches(self, split):
            print("evaluating", flush=True)
            time.sleep(1)
            yield batch
    Experiment.evaluation_batches = slow
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(directory, config, *, slow=None, resume=False):
    arguments = [str(ROOT / "experiments" / "train.py"), f"--config={config}", f"--workdir={directory}"]
    arguments += ["--resume"] if resume else []
    begin = [sys.executable, "-c", SLOWLY, *arguments, slow] if slow else [sys.executable, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        begin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment, cwd=ROOT
    )


def finish(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def wait_for_rows(directory, process, count):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        path = directory / "metrics.jsonl"
        if path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "slow run.py"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The run that nobody stops."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    process = start(directory, config)
    finish(process)
    return directory


def ends_alike(directory, whole):
    """State, metrics, log and result of two runs, but for times."""
    for folder in (directory, whole):
        assert (folder / "result.json").exists()
    a, b = (read_arrays(folder / "checkpoints" / str(STEPS)) for folder in (directory, whole))
    assert a.keys() == b.keys()
    assert all(a[path].tobytes() == b[path].tobytes() for path in a)
    rows = [
        [{key: value for key, value in row.items() if key != "time"} for row in read_rows(folder / "metrics.jsonl")]
        for folder in (directory, whole)
    ]
    assert rows[0] == rows[1]
    results = [json.loads((folder / "result.json").read_text(encoding="utf-8")) for folder in (directory, whole)]
    for key in ("status", "steps", "evaluated_step", "metrics", "per_class", "config_sha256"):
        assert results[0][key] == results[1][key], key


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(config, whole, tmp_path, number, status):
    directory = tmp_path / "run"
    process = start(directory, config, slow="training")
    wait_for_rows(directory, process, 12)
    asked = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert time.monotonic() - asked < 20
    name = signal.Signals(number).name
    saved = max(int(path.name) for path in (directory / "checkpoints").iterdir())
    assert saved % 100 != 0, "it was stopped where it would have saved anyway; stop it elsewhere"
    assert f"{name}: step {saved} is saved; to go on:\n" in errors
    # The line that is printed is the command that goes on, also where the path has a space.
    command = errors.splitlines()[-1]
    assert command.rstrip().endswith("--resume")
    assert f"'--config={config}'" in command
    assert "Traceback" not in errors
    assert not (directory / "result.json").exists()
    process = start(directory, config, resume=True)
    finish(process)
    ends_alike(directory, whole)


@pytest.mark.slow
def test_a_signal_during_an_evaluation_leaves_it_and_makes_it_on_resuming(config, whole, tmp_path):
    directory = tmp_path / "run"
    process = start(directory, config, slow="evaluation")
    for line in process.stdout:
        if line.strip() == "evaluating":
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert [int(path.name) for path in (directory / "checkpoints").iterdir()] == [50]
    assert not any("validation/loss" in row for row in read_rows(directory / "metrics.jsonl"))
    # Killed in the middle of the evaluation that it makes now, it makes it again.
    process = start(directory, config, slow="evaluation", resume=True)
    for line in process.stdout:
        if line.strip() == "evaluating":
            break
    process.kill()
    process.communicate()
    process = start(directory, config, resume=True)
    finish(process)
    ends_alike(directory, whole)


@pytest.mark.slow
def test_a_second_signal_stops_at_once(config, tmp_path):
    process = start(tmp_path / "run", config, slow="evaluation")
    for line in process.stdout:
        if line.strip() == "evaluating":
            break
    process.send_signal(signal.SIGSTOP)  # so that both are there before either is handled
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (143, 130)


@pytest.mark.slow
def test_handlers_are_given_back(session_tiny_config, tmp_path):
    from cnn_jax.train.session import train

    before = [signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)]
    mine = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        train(session_tiny_config, tmp_path / "run")
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == mine
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)


@pytest.mark.slow
def test_a_run_that_was_stopped_and_moved_goes_on(config, whole, tmp_path):
    process = start(tmp_path / "run", config, slow="training")
    wait_for_rows(tmp_path / "run", process, 5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    shutil.move(tmp_path / "run", tmp_path / "übung 1")
    process = start(tmp_path / "übung 1", config, resume=True)
    finish(process)
    ends_alike(tmp_path / "übung 1", whole)
