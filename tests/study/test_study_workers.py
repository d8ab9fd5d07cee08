"""Workers of one machine: their share of the cores, of a GPU's memory, and what they say when they cannot go on."""

import os
import sys
import time

import jax
import pytest

from cnn_jax.errors import UserError
from cnn_jax.study import runner
from cnn_jax.study.runner import work
from cnn_jax.study.spec import check_study
from cnn_jax.study.workers import as_a_worker, have_own_cores, share_of_cores, workers_that_wait
from cnn_jax.train.experiment import Experiment

NEEDS_AFFINITY = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")


@NEEDS_AFFINITY
def test_cores_are_shared_and_no_two_workers_get_the_same(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {8, 1, 2, 3, 5, 7, 6})
    assert [share_of_cores(worker, 3) for worker in range(3)] == [[1, 2], [3, 5], [6, 7]]
    assert share_of_cores(0, 1) == [1, 2, 3, 5, 6, 7, 8]
    assert share_of_cores(8, 9) == [1, 2, 3, 5, 6, 7, 8]  # more workers than cores: all share all


@NEEDS_AFFINITY
def test_a_measurement_has_a_workers_cores_and_gives_the_others_back():
    before = os.sched_getaffinity(0)
    with as_a_worker(len(before)):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_workers_leave_each_other_memory_of_a_gpu_and_an_error_of_all_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    script = (
        "import os, sys; print(os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'], sys.argv[1]); sys.exit('error: no room')"
    )
    with (
        pytest.raises(UserError, match="worker 0 of 2 ended with status 1: no room"),
        workers_that_wait(tmp_path, [sys.executable, "-c", script], workers=2) as finish,
    ):
        finish(lambda _: None)
    for worker in range(2):
        text = (tmp_path / "logs" / f"worker_{worker}.log").read_text(encoding="utf-8")
        assert text.splitlines()[0] == f"false --worker={worker}"


WORKER = """
import os, pathlib, sys
from cnn_jax.errors import UserError
from cnn_jax.study.workers import join, wait_to_begin
worker, parent = (int(text.partition("=")[2]) for text in sys.argv[1:3])
threads = lambda: [int(path.name) for path in pathlib.Path("/proc/self/task").iterdir()]
cores = lambda: sorted(set().union(*map(os.sched_getaffinity, threads())))
own = join(worker, 2, parent, wait=sys.argv[3] == "--wait")
print("waits on", *cores(), flush=True)
try:
    wait_to_begin(own)
except UserError as error:
    sys.exit(f"error: {error}")
print("works on", *cores(), flush=True)
"""


@NEEDS_AFFINITY
def test_workers_get_ready_beside_a_measurement_and_begin_on_their_own_cores(tmp_path):
    share = [share_of_cores(worker, 2) for worker in range(2)]
    command = [sys.executable, "-c", WORKER]
    with workers_that_wait(tmp_path, command, workers=2) as finish:
        logs = [tmp_path / "logs" / f"worker_{worker}.log" for worker in range(2)]
        deadline = time.monotonic() + 60
        while not all("waits" in log.read_text(encoding="utf-8") for log in logs) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any("works" in log.read_text(encoding="utf-8") for log in logs)  # before they may
        finish(lambda _: None)
    for worker, log in enumerate(logs):
        waits, works = log.read_text(encoding="utf-8").splitlines()
        assert waits == f"waits on {' '.join(map(str, share[1]))}"  # those of worker 0 are measured on
        assert works == f"works on {' '.join(map(str, share[worker]))}"


def test_a_study_that_ends_before_its_workers_begin_ends_them(tmp_path):
    processes = []

    def gives_up(finish):
        processes.extend(finish.args[0])
        raise UserError("a wrong config")

    with (
        pytest.raises(UserError, match="a wrong config"),
        workers_that_wait(tmp_path, [sys.executable, "-c", WORKER], workers=2) as finish,
    ):
        gives_up(finish)
    assert len(processes) == 2
    assert all(process.poll() for process in processes)  # ended, and not with 0
    assert "works on" not in (tmp_path / "logs" / "worker_1.log").read_text(encoding="utf-8")


def test_too_little_memory_ends_the_study_and_is_no_failure_of_a_run(tmp_path, tiny_study, monkeypatch):
    def no_room(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr(runner, "many_runs", no_room)
    study = check_study(
        {**tiny_study, "variants": {}, "comparisons": ({"measure": "gap", "contrast": {"baseline": 1.0}},)}
    )
    with pytest.raises(UserError, match="variant 'baseline' does not fit into the memory of this device"):
        work(study, tmp_path, mode="sequential", note=lambda _: None)
    assert not list(tmp_path.glob("cells/*.failure.json"))


@NEEDS_AFFINITY
def test_workers_get_ready_beside_a_measurement_only_where_each_has_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3})
    assert [have_own_cores(workers) for workers in (1, 2, 3, 4)] == [False, True, True, False]


def test_what_fails_while_a_worker_waits_is_told_by_training(tmp_path, tiny_study, monkeypatch):
    study, waited = check_study(tiny_study), []
    monkeypatch.setitem(jax.config.values, "jax_compilation_cache_dir", str(tmp_path))

    def broken(_):
        waited.append("compiles")
        raise ValueError("no such layer")

    def wait():
        waited.append("waits")
        return "sequential"

    monkeypatch.setattr(Experiment, "compiled_evaluation", broken)
    work(study, tmp_path, mode=wait, note=lambda _: None)
    assert waited[:2] == ["compiles", "waits"]
    assert waited.count("waits") == 1
    failures = list(tmp_path.glob("cells/*.failure.json"))
    assert len(failures) == 9
    assert all("no such layer" in path.read_text(encoding="utf-8") for path in failures)
