"""The commands as a user runs them: in a process of their own, from a fresh directory."""

import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from cnn_jax.command import compilation_cache
from cnn_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What the README's second example takes for known.
README_IMPORTS = """
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.pool import MaxPool
"""
SMALL = [
    "--config.train.duration.steps=4",
    "--config.data.splits.train=train[:64]",
    "--config.data.batch_size=16",
    "--config.parallel.devices=1",
]


def run(script, *arguments, cwd=ROOT, **environment):
    command = [sys.executable, str(ROOT / "experiments" / script), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=300
    )


def one_line_error(done):
    """The message of a command that refused its input."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of the quickstart, cut short, made from another directory than the checkout."""
    directory = tmp_path_factory.mktemp("a run") / "work dir"
    done = run(
        "train.py", f"--config={ROOT / 'configs/quickstart.py'}", f"--workdir={directory}", *SMALL, cwd=directory.parent
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "step 4/4" in done.stderr  # plain progress lines where there is no terminal
    assert f"Run directory: {directory}" in done.stdout
    assert "Next: " in done.stdout
    assert re.search(r"test/accuracy\s+│\s+\d\.\d{4}", done.stdout), done.stdout
    # Nothing is written beside the run directory.
    assert [path.name for path in directory.parent.iterdir()] == ["work dir"]
    return directory


def test_evaluate_agrees_with_the_result_and_stores_its_numbers(workdir):
    done = run("evaluate.py", f"--run={workdir}", "--split=test", "--batch-size=7")
    assert done.returncode == 0, done.stderr
    stored = json.loads((workdir / "evaluation_test_step_4.json").read_text(encoding="utf-8"))
    result = json.loads((workdir / "result.json").read_text(encoding="utf-8"))
    assert stored["metrics"]["test/accuracy"] == result["metrics"]["test/accuracy"]
    assert stored["examples"] == 360


@pytest.mark.slow
def test_compiled_programs_are_kept_where_the_user_keeps_caches(workdir, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    assert run("evaluate.py", f"--run={workdir}", "--no-compilation-cache", **environment).returncode == 0
    assert not (tmp_path / "cnn_jax").exists()
    programs = []
    for _ in range(2):
        assert run("evaluate.py", f"--run={workdir}", **environment).returncode == 0
        programs.append({path.name for path in (tmp_path / "cnn_jax").rglob("*-cache")})
    assert programs[0]
    assert programs[1] == programs[0]


def test_the_environment_decides_where_compiled_programs_are_kept(tmp_path):
    assert compilation_cache({"JAX_COMPILATION_CACHE_DIR": "", "HOME": str(tmp_path)}) == {}
    assert compilation_cache({}) == {}
    (tmp_path / "file").touch()
    assert compilation_cache({"XDG_CACHE_HOME": str(tmp_path / "file")}) == {}
    for environment in ({"HOME": str(tmp_path)}, {"HOME": "/nowhere", "XDG_CACHE_HOME": f"{tmp_path}/.cache"}):
        folder = pathlib.Path(compilation_cache(environment)["JAX_COMPILATION_CACHE_DIR"])
        assert folder.is_dir()
        assert folder.parent == tmp_path / ".cache" / "cnn_jax"


@pytest.mark.slow
def test_resume_of_a_finished_run_shows_its_result(workdir):
    arguments = ("--config=configs/quickstart.py", f"--workdir={workdir}", *SMALL)
    done = run("train.py", *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in done.stdout


SCRIPTS = ("train.py", "evaluate.py", "summarize.py", "tabulate_results.py", "convert.py", "predict.py")
SCRIPTS += ("inspect_data.py", "draw_augmentations.py", "reproduce.py", "diff_runs.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_on_a_screen(script):
    done = run(script, "--help")
    assert done.returncode == 0
    assert 3 < len(done.stdout.splitlines()) <= 24


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train.py", ["--config=nowhere.py", "--workdir=x"], "'nowhere.py' does not exist"),
        ("train.py", ["--config=configs/quickstart.py", "--workdir=x", "--config.sed=1"], "did you mean 'seed'"),
        ("train.py", ["--config=configs/quickstart.py", "--workdir=x", "--confg.seed=1"], "is not understood"),
        ("train.py", ["--config=configs/quickstart.py", "--workdir=/proc/run"], "is not writable"),
        ("train.py", ["--config=configs/classification/cifar10_resnet20.py:tiny", "--workdir=x"], "unknown variant"),
        ("evaluate.py", ["--run=nowhere"], "nowhere/config.json does not exist"),
        ("summarize.py", ["--config=configs/quickstart.py", "--config.model.name=lenet"], "did you mean 'lenet5'"),
        ("tabulate_results.py", ["--store", "nowhere"], "result.json does not exist"),
        ("train.py", ["--config=configs/quickstart.py"], "required: --workdir"),
        ("train.py", ["--config=configs/quickstart.py", "--workdir="], "--workdir is empty"),
    ],
)
def test_bad_input_is_one_line_and_status_2(script, arguments, message):
    assert message in one_line_error(run(script, *arguments))
    assert not (ROOT / "x").exists()


@pytest.mark.slow
def test_a_killed_run_continues_with_the_same_command(workdir, tmp_path):
    arguments = ["--config=configs/quickstart.py", *SMALL, "--config.train.duration.steps=160", "--config.seed=5"]
    arguments += ["--config.train.save_every.steps=10", "--config.train.log_every.steps=5", "--resume"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run("train.py", *arguments, f"--workdir={whole}").returncode == 0
    command = [sys.executable, str(ROOT / "experiments" / "train.py"), *arguments, f"--workdir={cut}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (cut / "checkpoints" / "20").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "result.json").exists()
    assert run("train.py", *arguments, f"--workdir={cut}").returncode == 0
    rows = [
        [{k: v for k, v in json.loads(line).items() if k != "time"} for line in path.read_text().splitlines()]
        for path in (whole / "metrics.jsonl", cut / "metrics.jsonl")
    ]
    assert rows[0] == rows[1]
    results = [json.loads((path / "result.json").read_text(encoding="utf-8")) for path in (whole, cut)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert len(json.loads((cut / "passport.json").read_text(encoding="utf-8"))["sessions"]) == 2


@pytest.mark.parametrize(("error", "at_once"), [("KeyboardInterrupt", True), ("Stopped(signal.SIGINT, 3)", False)])
def test_an_interrupted_command_ends_at_once_unless_it_was_left_in_order(error, at_once):
    # The interpreter of one that was interrupted while it compiled would end with a segmentation fault.
    script = f"""
import atexit, os, signal
from cnn_jax.command import run
from cnn_jax.train.stopping import Stopped
def main(arguments):
    atexit.register(print, "ends as usual")
    raise {error}
run(main)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 130, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert ("ends as usual" not in done.stdout) == at_once


def test_a_diverging_run_ends_with_status_1_and_one_line(tmp_path):
    done = run(
        "train.py",
        "--config=configs/quickstart.py",
        f"--workdir={tmp_path / 'run'}",
        *SMALL,
        "--config.train.duration.steps=12",
        "--config.optimizer.learning_rate=1e20",
    )
    assert done.returncode == 1, done.stderr
    assert "error: training diverged at step" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_readme_table_is_what_the_stored_results_say():
    done = run("tabulate_results.py", "--check")
    assert done.returncode == 0, done.stderr


def test_the_readme_config_and_model_work(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    [config_block] = [block for block in blocks if "get_config" in block]
    [model_block] = [block for block in blocks if "class Stack" in block]
    config = tmp_path / "readme.py"
    config.write_text(config_block, encoding="utf-8")
    done = run(
        "train.py", f"--config={config}", f"--workdir={tmp_path / 'run'}", *SMALL, "--config.train.duration.steps=8"
    )
    assert done.returncode == 0, done.stderr
    names: dict = {}
    exec(README_IMPORTS + model_block, names)
    model = names["stack"](num_classes=5)
    logits, _ = model.init_with_output(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), train=False)
    assert logits.shape == (2, 5)


def test_every_guarantee_names_a_test_that_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) >= 8
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in named:
        assert f"def {name}(" in written, name


@pytest.mark.slow
def test_slices_and_steps_have_files_of_their_own(workdir, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    evaluate = importlib.import_module("evaluate")
    for split in ("train[:10]", "train[10:]", "train[10:20]", "train[:10%]"):
        assert evaluate.main([f"--run={workdir}", f"--split={split}"]) == 0
    names = {path.name for path in workdir.glob("evaluation_train*")}
    assert names == {f"evaluation_train_{part}_step_4.json" for part in ("0-10", "10-end", "10-20", "0-10percent")}


def test_a_row_of_the_table_holds_runs_of_one_config_only(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    tabulate_results = importlib.import_module("tabulate_results")
    monkeypatch.setattr(tabulate_results, "RESULTS", tmp_path / "results")

    def finished(name, *, seed, rate, arguments):
        directory = tmp_path / name
        directory.mkdir()
        data = {"test": {"origin": "a/test", "examples": 10}}
        hardware = {"platform": "cpu", "processor": "p", "cores": 2}
        result = {"status": "completed", "commit": "c" * 40, "dirty": False, "seed": seed, "metrics": {}, "data": data}
        result |= {"metrics": {"test/accuracy": 0.5 + 0.1 * seed}, "parameters": 7, "steps": 3, "hardware": hardware}
        command = ["python", "experiments/train.py", *arguments, "--workdir", str(directory), f"--config.seed={seed}"]
        (directory / "result.json").write_text(json.dumps(result))
        (directory / "passport.json").write_text(json.dumps({"sessions": [{"command": command}]}))
        config = {"seed": seed, "optimizer": {"learning_rate": rate}, "data": {"directory": str(seed)}, "parallel": {}}
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    plain = ["--config", "configs/a.py"]
    for seed in (0, 1):
        tabulate_results.store(finished(f"plain{seed}", seed=seed, rate=0.1, arguments=plain))
    overridden = [*plain, "--config.optimizer.learning_rate=0.2"]
    tabulate_results.store(finished("overridden", seed=0, rate=0.2, arguments=overridden))
    rows = tabulate_results.table(tabulate_results.load()).splitlines()[2:]
    assert len(rows) == 2
    assert any("`configs/a.py`" in row and "55.00 ± 7.07 %" in row and "| 2 |" in row for row in rows)
    assert any("--config.optimizer.learning_rate=0.2" in row and "50.00 %" in row and "| 1 |" in row for row in rows)
    # The same name for another experiment is refused, whether it would replace a result or join its row.
    for name, seed in (("edited", 0), ("joined", 2)):
        with pytest.raises(UserError, match="another experiment"):
            tabulate_results.store(finished(name, seed=seed, rate=0.3, arguments=plain))
    assert len(tabulate_results.table(tabulate_results.load()).splitlines()) == 4
