"""Several processes: two with four devices each do what one with eight does, and fail together."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cnn_jax.data.batches import training_batch
from cnn_jax.data.sources import open_source
from cnn_jax.errors import UserError
from cnn_jax.train import distributed
from cnn_jax.train.checkpoint import Checkpoints
from cnn_jax.train.checkpoint_arrays import by_path, read_arrays
from cnn_jax.train.run import build
from cnn_jax.train.session import train
from cnn_jax.train.sharding import local_rows, make_mesh
from cnn_jax.train.writers import read_rows

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GLOO = re.compile(r"\[Gloo\] Rank | is connected to | peer ranks\.| Expected number of connected peer ranks is : ")
ALL = ({"pattern": ".*", "minimum": 1},)
MODES = {
    "data": {},
    "sharded": {"model": 8, "sharding": ALL},
    "per device": {"mode": "pmap"},
}
CONFIG = """
from ml_collections import ConfigDict


def get_config():
    return ConfigDict({!r}).lock()
"""


def config(parallel):
    model = {"name": "classic_stack", "in_channels": 1, "channels": (4, 8), "dense": (), "padding": "same"}
    return {
        "task": {"name": "classification"},
        "model": {**model, "norm": "batch", "dropout_rate": 0.2},
        "data": {
            "source": "sklearn",
            "name": "digits",
            "splits": {"train": "train[:100]", "validation": "train[100:130]", "test": "test[:45]"},
            "batch_size": 16,
            "evaluation_batch_size": 16,
            "augment": ({"name": "random_crop", "padding": 1},),
        },
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
        "train": {
            "duration": {"steps": 4},
            "log_every": {"steps": 2},
            "evaluate_every": {"steps": 2},
            "save_every": {"steps": 2},
            "ema": {"decay": 0.9},
        },
        "parallel": parallel,
    }


def start_processes(folder, arguments, *, processes=2, devices=4, without_data=()):
    """Start the training command in several processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices}"
    started = []
    for process in range(processes):
        environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(ROOT / "experiments" / "train.py"), *arguments, f"--processes={processes}"]
        command += [f"--coordinator=127.0.0.1:{port}", f"--process={process}"]
        if process in without_data:
            command += ["--config.data.source=tfds", f"--config.data.directory={folder / 'nowhere'}"]
        started.append(
            subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    return started


def run_processes(folder, arguments, **options):
    """Run the training command in several processes; their (status, standard output, lines of standard error)."""
    started = start_processes(folder, arguments, **options)
    try:
        outputs = [process.communicate(timeout=500) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, lines(out), lines(err)) for process, (out, err) in zip(started, outputs, strict=True)]


def lines(text):
    """The lines of an output without what Gloo says, which connects simulated devices.

    Its threads write a message in pieces, between which those of another may fall: what is left of both are numbers.
    """
    theirs = GLOO.search(text) is not None
    return [
        line for line in GLOO.sub("", text).splitlines() if line.strip() and not (theirs and line.strip().isdecimal())
    ]


def rows(directory):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(directory / "metrics.jsonl")]


def started_rows(directory):
    return rows(directory) if (directory / "metrics.jsonl").exists() else []


def leaves(values, directory, step):
    """Every array of a checkpoint."""
    experiment = build(values)
    checkpoints = Checkpoints(directory / "checkpoints", keep=None)
    restored = checkpoints.restore(step, experiment.abstract_state(), experiment.empty_metrics())[:2]
    checkpoints.close()
    return jax.tree.leaves(jax.device_get(restored))


def assert_close(values, found, expected):
    """Equal but for the order in which Gloo, between processes, adds: float32 rounding, and no more in four steps."""
    for row, other in zip(rows(found), rows(expected), strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            assert value == pytest.approx(other[name], rel=1e-5, abs=1e-6), name
            assert value == other[name] or "accuracy" not in name, name  # counts are exact
    for a, b in zip(leaves(values, found, 4), leaves(values, expected, 4), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=2e-6)


@pytest.fixture(scope="module", params=MODES)
def finished(request, tmp_path_factory):
    """(config, directory, what the processes said) of a run in two processes."""
    values, folder = config(MODES[request.param]), tmp_path_factory.mktemp("processes")
    (folder / "config.py").write_text(CONFIG.format(values), encoding="utf-8")
    arguments = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
    return values, folder / "run", run_processes(folder, arguments), arguments


@pytest.mark.slow
def test_two_processes_with_four_devices_do_what_one_with_eight_does(finished, tmp_path):
    values, directory, ((status, out, _), (other_status, other_out, other_err)), _ = finished
    assert (status, other_status) == (0, 0), (out, other_err)
    assert any("test/accuracy" in line for line in out)
    assert (other_out, other_err) == ([], [])  # one writer
    result = train(values, tmp_path / "one")
    assert_close(values, directory, tmp_path / "one")
    stored = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    assert stored["metrics"] == pytest.approx(result["metrics"], rel=1e-5)
    assert np.sum(stored["per_class"]["test/confusion_matrix"]) == 45  # each example once
    assert stored["hardware"]["processes"] == 2
    assert stored["hardware"]["devices"] == 8
    assert len(json.loads((directory / "passport.json").read_text(encoding="utf-8"))["sessions"]) == 1
    assert {path.name for path in (directory / "figures").iterdir()} == {
        path.name for path in (tmp_path / "one" / "figures").iterdir()
    }


@pytest.mark.slow
def test_one_process_goes_on_with_the_run_of_two(finished, tmp_path):
    values, directory, _, _ = finished
    cut = tmp_path / "cut"
    shutil.copytree(directory, cut)
    shutil.rmtree(cut / "checkpoints" / "4")
    (cut / "result.json").unlink()
    train(values, cut, resume=True)
    assert_close(values, cut, directory)


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_restores_on_one_device_on_eight_and_in_numpy(finished):
    values, directory, _, _ = finished
    alone = read_arrays(directory / "checkpoints" / "4")
    assert int(alone["step"]) == 4
    for devices in (1, 8):
        parallel = {**values["parallel"], "devices": devices, "model": min(devices, values["parallel"].get("model", 1))}
        experiment = build({**values, "parallel": parallel})
        reader = Checkpoints(directory / "checkpoints", keep=None)
        state = reader.restore(4, experiment.abstract_state(), experiment.empty_metrics())[0]
        reader.close()
        restored = by_path(jax.device_get(state))
        assert restored.keys() == alone.keys()
        for path, x in alone.items():
            assert restored[path].tobytes() == x.tobytes(), path


@pytest.mark.slow
def test_a_refusal_of_the_first_process_ends_all_with_one_line(finished):
    _, directory, _, arguments = finished
    for status, out, err in run_processes(directory.parent, arguments):
        assert (status, out) == (2, [])
        assert len(err) == 1
        assert "already holds this run; add --resume" in err[0]


@pytest.mark.slow
def test_when_a_process_is_killed_the_others_end_with_one_line_and_all_go_on(tmp_path):
    values = config({})
    every = {"duration": 600, "log_every": 10, "evaluate_every": 600, "save_every": 50}
    values["train"] |= {name: {"steps": steps} for name, steps in every.items()}
    (tmp_path / "config.py").write_text(CONFIG.format(values), encoding="utf-8")
    arguments = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"]
    first, second = start_processes(tmp_path, arguments, devices=1)
    try:
        deadline = time.monotonic() + 300
        # Between two saves, so that it is a step that fails.
        while not any(row["step"] % 50 == 10 for row in started_rows(tmp_path / "run")[5:]):
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second.kill()
        _, err = first.communicate(timeout=60)
        second.communicate()
    finally:
        first.kill()
        second.kill()
    assert first.returncode == 1
    [said] = [line for line in lines(err) if line.startswith("error: ")]
    assert "another process ended" in said
    assert said.endswith("start all again with --resume")
    assert "Traceback" not in err
    assert rows(tmp_path / "run")[-1]["step"] < 600
    for status, _, _ in run_processes(tmp_path, [*arguments, "--resume"], devices=1):
        assert status == 0
    assert [row["step"] for row in rows(tmp_path / "run") if "train/loss" in row] == [*range(10, 601, 10)]
    # Two numbers have one sum, so that two processes with a device each are exact.
    whole = [argument.replace(str(tmp_path / "run"), str(tmp_path / "whole")) for argument in arguments]
    assert [status for status, _, _ in run_processes(tmp_path, whole, devices=1)] == [0, 0]
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    ends = [read_arrays(tmp_path / name / "checkpoints" / "600") for name in ("run", "whole")]
    assert all(ends[0][path].tobytes() == ends[1][path].tobytes() for path in ends[1])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "to"), [(signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 0)])
def test_a_signal_to_one_process_saves_and_stops_all(tmp_path, number, status, to):
    values = config({})
    every = {"duration": 3000, "log_every": 10, "evaluate_every": 3000, "save_every": 3000}
    values["train"] |= {name: {"steps": steps} for name, steps in every.items()}
    (tmp_path / "config.py").write_text(CONFIG.format(values), encoding="utf-8")
    arguments = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"]
    processes = start_processes(tmp_path, arguments, devices=1)
    try:
        deadline = time.monotonic() + 300
        while len(started_rows(tmp_path / "run")) < 5:
            assert processes[0].poll() is None, processes[0].communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        processes[to].send_signal(number)
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    # The other one is told by JAX, as of a SIGTERM.
    assert [processes[to].returncode, processes[1 - to].returncode] == [status, 143], outputs
    [saved] = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert saved == int(read_arrays(tmp_path / "run" / "checkpoints" / str(saved))["step"])
    assert f"step {saved} is saved; to go on:" in outputs[to][1]
    assert all("Traceback" not in err for _, err in outputs)


@pytest.mark.slow
def test_a_process_without_data_ends_all_with_one_line(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG.format(config({})), encoding="utf-8")
    arguments = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"]
    first, second = run_processes(tmp_path, arguments, without_data=(1,))
    for (status, _, err), start in ((first, "error: process 1 ended: "), (second, "error: ")):
        assert status == 2
        assert len(err) == 1
        assert err[0].startswith(start)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("coordinator", "processes", "process", "message"),
    [
        (None, 2, None, "need --coordinator=HOST:PORT"),
        ("auto", 2, 0, "--coordinator=auto finds"),
        ("localhost", 2, 0, "is 'localhost'; it must be HOST:PORT, or auto"),
        ("host:many", 2, 0, "is 'host:many'; it must be HOST:PORT, or auto"),
        ("host:1234", 2, None, "needs --processes=N and --process=I"),
        ("host:1234", 2, 2, r"--process is 2; with --processes=2 it must lie in 0 … 1"),
    ],
)
def test_bad_addresses_are_one_line(coordinator, processes, process, message):
    with pytest.raises(UserError, match=message) as caught:
        distributed.start(coordinator=coordinator, processes=processes, process=process)
    assert "\n" not in str(caught.value)


def test_the_rows_of_a_batch_can_be_read_apart():
    data = open_source("sklearn", "digits").load("train[:50]")
    whole = training_batch(data, seed=1, step=3, batch_size=16)
    for part in (np.arange(4), np.arange(4, 16), np.array([1, 2, 9])):
        found = training_batch(data, seed=1, step=3, batch_size=16, rows=part)
        assert found.keys() == whole.keys()
        for name, values in found.items():
            assert np.array_equal(values, whole[name][part]), name
    assert np.array_equal(local_rows(16, make_mesh(model=2)), np.arange(16))
