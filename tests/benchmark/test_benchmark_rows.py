"""Rows from real workers at tiny sizes, and what is stored and shown of them."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys

import jax
import pytest

from cnn_jax.benchmark import store
from cnn_jax.benchmark.cases import CPU_CASES, Case, select
from cnn_jax.benchmark.gpu import GPU_CASES, smoke
from cnn_jax.benchmark.peer import SCRIPTS, find_torch
from cnn_jax.benchmark.race import Protocol
from cnn_jax.benchmark.table import measure, our_side, torch_side
from cnn_jax.benchmark.worker import describe, make_experiment, make_runner, make_runs
from cnn_jax.errors import UserError

TINY = Case(model="lenet5", image=(28, 28, 1), batch_size=4)
QUICK = Protocol(rounds=2, turn_seconds=0.01, row_seconds=0.0)


@pytest.mark.slow
def test_a_runner_takes_the_steps_of_a_run():
    experiment = make_experiment(TINY)
    for mode in ("train", "forward"):
        make_runner(experiment, mode)(2)
    about = describe(TINY, experiment)
    assert about["parameters"] == 61_706  # LeCun et al. 1998, as it is taught today: numbers.md
    assert sum(about["parameter_bytes"]) == 4 * 61_706
    assert about["norm_bytes"] == []
    # Convolutions of 28² × 25 × 6 and 10² × 150 × 16, dense layers.
    assert about["macs"] == 784 * 25 * 6 + 100 * 150 * 16 + 400 * 120 + 120 * 84 + 84 * 10


def test_overrides_reach_the_experiment():
    assert make_experiment(TINY, overrides=("--config.model.dtype=bfloat16",)).model.head.dtype == "bfloat16"
    with pytest.raises(UserError, match="dtpye"):
        make_experiment(TINY, overrides=("--config.model.dtpye=bfloat16",))


@pytest.mark.slow
def test_a_row_against_plain_settings():
    lines = []
    ours = our_side(overrides=("--config.optimizer.momentum=0.5",))
    [row] = measure([(TINY, ("train",))], ours=ours, peer=our_side(), protocol=QUICK, say=lines.append)
    assert row["ratio"] > 0
    assert row["ratio_spread"][0] <= row["ratio"] <= row["ratio_spread"][1]
    assert (row["model"], row["mode"], row["rounds"], row["peer_variant"]) == ("lenet5", "train", 2, "jit")
    assert row["flops_per_second"] == pytest.approx(row["ours"] * 6 * 416_520)
    assert lines[0] == "lenet5: starting"


@pytest.mark.slow
def test_many_runs_count_the_examples_of_all():
    many, alone = (our_side(runs=runs) for runs in (3, 1))
    [row] = measure([(TINY, ("train",))], ours=many, peer=alone, protocol=QUICK, say=lambda _: None)
    assert set(row["trials"]) == {"vmap", "sequential"}
    about = describe(TINY, make_runs(TINY, 1, overrides=())[0], runs=3)
    # Three runs of four steps of four examples are what is timed as one; of one run alone, four steps.
    assert (about["examples"], about["runs"], about["batch_size"]) == (3 * 4 * 4, 3, 4)
    assert row["variant"] in row["trials"]
    assert row["peer_variant"] == "alone"
    assert row["parameters"] == 61_706  # of one run


@pytest.mark.slow
def test_different_networks_are_refused():
    peer = our_side(overrides=("--config.model.num_classes=11",))
    with pytest.raises(UserError, match=r"lenet5: the sides differ, parameters: .*61706.*61791"):
        list(measure([(TINY, ("train",))], ours=our_side(), peer=peer, protocol=QUICK, say=print))


@pytest.mark.slow
def test_other_batches_than_the_peers_are_refused():
    ours = our_side(overrides=("--config.data.batch_size=8",))
    with pytest.raises(UserError, match=r"the sides differ, batch_size: {'ours': 8, 'peer': 4}"):
        list(measure([(TINY, ("train",))], ours=ours, peer=our_side(), protocol=QUICK, say=print))


@pytest.mark.slow
def test_a_worker_that_fails_is_one_line():
    for override, line in (("--config.model.dtpye=x", "dtpye"), ("--config.data.resident=true", "benchmark.py runs")):
        ours = our_side(overrides=(override,))
        with pytest.raises(UserError, match=line):
            list(measure([(TINY, ("train",))], ours=ours, peer=None, protocol=QUICK, say=print))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        (
            ["gpu", "--smoke", "--rows=resnet20:forward", "--peer=plain", "--config.model.norm=group"],
            r"│ resnet20 +│ forward │.*×.*│ jit",
        ),
        (["runs", "--runs=2", "--rows=lenet5", "--config.data.batch_size=8"], r"│ lenet5 +│ train +│.*×.*│ alone"),
    ],
)
def test_commands_that_need_no_torch_end_with_a_table(arguments, row, repository):
    script = str(repository / "experiments" / "benchmark.py")
    quick = ["--rounds=1", "--row-seconds=0", "--turn-seconds=0.01"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, script, *arguments, *quick], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(row, done.stdout), done.stdout


@pytest.mark.slow
def test_torch_has_the_same_networks(torch_python):
    for case in (*CPU_CASES, *GPU_CASES):
        with torch_side(torch_python).start() as worker:
            theirs = worker.ask("describe", case=dataclasses.asdict(case))["parameters"]
        params = make_experiment(smoke(case) if case.image[0] > 32 else case).abstract_state().params
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == theirs, case.model


@pytest.mark.slow
def test_a_row_against_torch(torch_python):
    [row] = measure(
        [(TINY, ("train",))], ours=our_side(), peer=torch_side(torch_python), protocol=QUICK, say=lambda _: None
    )
    assert set(row["trials"]) == {"eager", "channels_last", "compiled"}
    assert row["peer_variant"] in row["trials"]
    assert row["peer"] > 0
    assert row["peer_versions"]["torch"]


@pytest.mark.slow
def test_without_torch_the_reason_is_told(tmp_path, monkeypatch):
    assert find_torch("/nowhere/python") == (None, "/nowhere/python cannot import torch")
    # An index that has nothing: the environment is made, the package is not found.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    python, why = find_torch(None)
    assert python is None
    assert why.startswith("torch==2.13.0 could not be installed into ")


def test_the_peers_scripts_import_nothing_of_ours():
    for path in SCRIPTS.glob("torch_*.py"):
        assert not re.search(r"^\s*(import|from) cnn_jax", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def row(**changes):
    base = {
        "model": "resnet20",
        "mode": "train",
        "ours": 512.34,
        "peer": 1024.68,
        "ratio": 0.5,
        "ratio_spread": [0.45, 0.55],
        "rounds": 5,
        "batch_size": 128,
        "image": [32, 32, 3],
        "peer_variant": "channels_last",
        "peer_versions": {"torch": "2.13.0"},
        "others": 0.01,
    }
    return {**base, **changes}


def test_the_table_says_what_was_measured_and_how(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    assert store.markdown(store.stored()) == "No benchmarks are stored yet."
    monkeypatch.setattr(sys, "argv", ["experiments/benchmark.py", "cpu", "--torch-python=/home/me/python"])
    rows = [row(), row(model="lenet5", ours=45.67, peer=None, ratio=None, ratio_spread=None, others=0.3, rounds=7)]
    path = store.save("cpu", store.document(rows, peer_versions={"torch": "2.13.0"}))
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert {"commit", "dirty", "hardware", "versions", "command", "rows"} <= stored.keys()
    text = store.markdown(store.stored())
    assert "| `resnet20` | train | 32×32×3 | 128 | 512 | 1,025 | 0.50× | 0.45 – 0.55 | channels last |" in text
    assert "| `lenet5` | train | 32×32×3 | 128 | 45.7 | – | – | – | – |" in text
    assert "5 to 7 rounds" in text
    assert "PyTorch 2.13.0" in text
    assert "`benchmark.py cpu`" in text  # without this machine's paths
    assert "up to 30% of the machine" in text


def test_rows_before_a_failure_are_shown(monkeypatch, capsys, repository):
    monkeypatch.syspath_prepend(repository / "experiments")
    monkeypatch.delenv("COLUMNS", raising=False)
    benchmark = importlib.import_module("benchmark")

    def measured(*_):
        yield row(mode="a long name of a mode that takes half of 80 columns")
        raise UserError("the second row failed")

    monkeypatch.setattr(benchmark, "run_cpu", measured)
    with pytest.raises(UserError, match="the second row failed"):
        benchmark.main(["cpu"])
    assert "│ a long name of a mode that takes half of 80 columns │" in capsys.readouterr().out


@pytest.mark.parametrize(("rows", "message"), [("lenet", "did you mean 'lenet5'"), ("lenet5:test", "mode 'test'")])
def test_unknown_rows(rows, message):
    with pytest.raises(UserError, match=message):
        select(rows, CPU_CASES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cpu", "--rows=lenet"], "did you mean 'lenet5'"),
        (["cpu", "--environment=XLA_FLAGS"], "is no KEY=VALUE"),
        (["cpu", "--rounds=0"], "--rounds=0 must be 1 or more"),
        (["scaling", "--interconnect=nvlink"], "did you mean 'nvlink4'"),
        (["table", "--chekc"], "'--chekc' is not understood"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in [
                (["gpu", "--rows=resnet20"], "JAX finds no GPU here"),
                (["cpu", "--rows=,"], "--rows=, names no model"),
                (["cpu", "--peer=plain", "--store"], "drop --peer=plain"),
                (["cpu", "--rows=lenet5", "--store"], "drop --rows=lenet5"),
                (["runs", "--rows=resnet20:forward"], "known: train"),
                (["runs", "--runs=1"], "--runs=1 must be 2 or more"),
                (["command", "--config.train.duration.steps=10"], "the peer trains for --epochs"),
                (["scaling", "--model=lenet5,resnet20"], "must be one model"),
                (["scaling", "--bandwidth=0"], "--bandwidth=0.0 must be above 0"),
                (["tabel"], "invalid choice"),
            ]
        ),
    ],
)
def test_bad_input_of_the_benchmark_is_one_line_and_status_2(arguments, message, repository):
    script = str(repository / "experiments" / "benchmark.py")
    environment = {**os.environ, "PYTHONPATH": str(repository), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_the_readme_section_is_what_is_stored(repository):
    script = str(repository / "experiments" / "benchmark.py")
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, script, "table", "--check"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
