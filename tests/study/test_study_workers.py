"""Workers of one machine: their share of the cores, of a GPU's memory, and what they say when they cannot go on."""

import os
import sys

import jax
import pytest

from cnn_jax.errors import UserError
from cnn_jax.study import runner
from cnn_jax.study.runner import work
from cnn_jax.study.spec import check_study
from cnn_jax.study.workers import as_a_worker, run_workers, share_of_cores

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
    with pytest.raises(UserError, match="worker 0 of 2 ended with status 1: no room"):
        run_workers(tmp_path, [sys.executable, "-c", script], workers=2, note=lambda _: None)
    for worker in range(2):
        text = (tmp_path / "logs" / f"worker_{worker}.log").read_text(encoding="utf-8")
        assert text.splitlines()[0] == f"false --worker={worker}"


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
