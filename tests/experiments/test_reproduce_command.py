"""The commands that compare runs, as a user runs them: equal, one byte changed, and bad input."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import cnn_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SMALL = [
    f"--config={ROOT / 'configs/quickstart.py'}",
    "--config.train.duration.steps=6",
    "--config.train.log_every.steps=2",
    "--config.train.figures=false",
    "--config.data.splits.train=train[:64]",
    "--config.data.batch_size=16",
    "--config.parallel.devices=1",
    "--config.model.depth=8",
    "--config.model.width=4",
]


def run(script, *arguments, **environment):
    command = [sys.executable, str(ROOT / "experiments" / script), *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A small run of the training command."""
    directory = tmp_path_factory.mktemp("runs") / "first"
    done = run("train.py", *SMALL, f"--workdir={directory}")
    assert done.returncode == 0, done.stderr
    return directory


def test_a_run_of_the_training_command_is_reproduced(workdir, tmp_path):
    done = run("reproduce.py", workdir, "--steps=2")
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.splitlines()[0].startswith("equal: "), done.stdout
    assert "up to step 2, bit for bit" in done.stdout
    assert "step 2 of 2: equal" in done.stderr

    changed = shutil.copytree(workdir, tmp_path / "changed")
    config = json.loads((changed / "config.json").read_text(encoding="utf-8"))
    config["optimizer"]["learning_rate"] *= 2
    (changed / "config.json").write_text(json.dumps(config), encoding="utf-8")
    done = run("reproduce.py", changed, "--steps=2", "--json")
    assert done.returncode == 1, (done.stdout, done.stderr)
    outcome = json.loads(done.stdout)
    assert not outcome["equal"]
    assert outcome["difference"]["run"] != outcome["difference"]["now"]
    assert any(change["what"].startswith("config") for change in outcome["changes"])


@pytest.mark.slow
def test_one_changed_byte_of_the_source_is_told_by_the_command(workdir, tmp_path):
    package = pathlib.Path(cnn_jax.__file__).parent
    copy = shutil.copytree(package, tmp_path / "cnn_jax", ignore=shutil.ignore_patterns("__pycache__"))
    source = copy / "train" / "loop.py"
    source.write_bytes(source.read_bytes().replace(b"The training loop", b"The training Loop"))
    done = run("reproduce.py", workdir, "--steps=2", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "although this differs (then -> now):" in done.stdout
    assert "code.cnn_jax/train/loop.py: " in done.stdout
    assert run("reproduce.py", workdir, "--steps=2", "--strict", PYTHONPATH=str(tmp_path)).returncode == 1
    # One byte that numbers depend on: the order of the examples is another one.
    source = copy / "data" / "order.py"
    content = source.read_text(encoding="utf-8")
    assert 'ORDER = "order"' in content
    source.write_text(content.replace('ORDER = "order"', 'ORDER = "Order"'), encoding="utf-8")
    done = run("reproduce.py", workdir, "--steps=2", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stdout.startswith("differs at step ")
    assert "  validation/loss: " in done.stdout
    assert "code.cnn_jax/data/order.py: " in done.stdout


@pytest.mark.slow
def test_the_number_of_cores_is_that_of_the_run(workdir, tmp_path):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    changed = shutil.copytree(workdir, tmp_path / "changed")
    passport = json.loads((changed / "passport.json").read_text(encoding="utf-8"))
    passport["sessions"][0]["hardware"]["cores"] = 1
    (changed / "passport.json").write_text(json.dumps(passport), encoding="utf-8")
    done = run("reproduce.py", changed, "--steps=2")
    assert "on 1 of" in done.stderr
    assert "hardware.cores" not in done.stdout


@pytest.mark.slow
def test_runs_of_two_seeds_differ_by_their_seed(workdir, tmp_path):
    assert run("train.py", *SMALL, "--config.seed=1", f"--workdir={tmp_path / 'second'}").returncode == 0
    done = run("diff_runs.py", workdir, tmp_path / "second")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["config:", "  config.seed: 0 -> 1"]
    assert not any("environment" in line for line in lines)
    assert any(line.startswith("log (") for line in lines)
    assert json.loads(run("diff_runs.py", workdir, tmp_path / "second", "--json").stdout)["config"] == [
        {"what": "config.seed", "then": 0, "now": 1}
    ]


def test_a_run_does_not_differ_from_itself(workdir):
    done = run("diff_runs.py", workdir, workdir)
    assert (done.returncode, done.stdout) == (0, "no difference\n"), done.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("reproduce.py", ["nowhere"], "nowhere/passport.json does not exist"),
        ("reproduce.py", ["RUN", "--steps=0"], "--steps is 0"),
        ("reproduce.py", ["RUN", "--steps=many"], "invalid int value: 'many'"),
        ("reproduce.py", [], "required: RUN"),
        ("diff_runs.py", ["RUN", "nowhere"], "nowhere/config.json does not exist"),
        ("diff_runs.py", ["RUN"], "required: B"),
    ],
)
def test_bad_input_is_one_line_and_status_2(workdir, script, arguments, message):
    done = run(script, *(str(workdir) if argument == "RUN" else argument for argument in arguments))
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
