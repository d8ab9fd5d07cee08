"""Runs of earlier versions are read by this one: their checkpoints, their results, and their training goes on."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from cnn_jax.train.checkpoint import read_progress
from cnn_jax.train.checkpoint_arrays import read_arrays
from cnn_jax.train.config_file import plain
from cnn_jax.train.manifest import FORMAT
from cnn_jax.train.run import build
from cnn_jax.train.session import evaluate_run, train
from cnn_jax.train.writers import read_rows

GOLDEN = pathlib.Path(__file__).parent / "golden"
FORMATS = range(1, FORMAT + 1)
NUMPY_ALONE = """
import pathlib, sys
from cnn_jax.train.checkpoint_arrays import read_arrays
import numpy as np
arrays, values = read_arrays(pathlib.Path(sys.argv[1])), np.load(sys.argv[2])
assert set(arrays) == set(values)
assert all(type(arrays[path]) is np.ndarray and arrays[path].tobytes() == values[path].tobytes() for path in arrays)
import jax
assert not jax._src.xla_bridge.backends_are_initialized(), "a device was taken"
"""


@pytest.fixture(params=FORMATS, ids=lambda number: f"format {number}")
def golden(request):
    """The folder of a format, each of which has one for ever."""
    return GOLDEN / f"format_{request.param}"


def test_every_format_has_a_golden_run():
    assert {path.name for path in GOLDEN.iterdir()} == {f"format_{number}" for number in FORMATS}


def test_the_arrays_of_earlier_versions_are_what_they_were(golden):
    arrays = read_arrays(golden / "run" / "checkpoints" / "12")
    with np.load(golden / "values.npz") as values:
        assert set(arrays) == set(values)
        for path in values:
            assert arrays[path].dtype == values[path].dtype, path
            np.testing.assert_allclose(arrays[path], values[path], rtol=1e-6, atol=1e-7, err_msg=path)
    progress = read_progress(golden / "run" / "checkpoints" / "12")
    assert progress.best is not None
    assert progress.best_step in (4, 8, 12)


def test_runs_of_earlier_versions_are_evaluated_to_their_results(golden):
    stored = json.loads((golden / "run" / "result.json").read_text(encoding="utf-8"))
    found = evaluate_run(golden / "run", split="test")
    assert found["step"] == stored["evaluated_step"]
    assert found["metrics"]["test/accuracy"] == stored["metrics"]["test/accuracy"]
    assert found["metrics"]["test/loss"] == pytest.approx(stored["metrics"]["test/loss"], rel=1e-4)


@pytest.mark.parametrize("devices", [1, 8])
def test_training_of_earlier_versions_goes_on(golden, tmp_path, devices):
    cut = tmp_path / "run"
    shutil.copytree(golden / "run", cut)
    (cut / "result.json").unlink()
    shutil.rmtree(cut / "checkpoints" / "12")
    config = plain(json.loads((cut / "config.json").read_text(encoding="utf-8")))
    train({**config, "parallel": {"devices": devices}}, cut, resume=True)
    steps = [row["step"] for row in read_rows(cut / "metrics.jsonl")]
    assert steps == [row["step"] for row in read_rows(golden / "run" / "metrics.jsonl")]
    with np.load(golden / "values.npz") as values:
        arrays = read_arrays(cut / "checkpoints" / "12")
        for path in values:
            np.testing.assert_allclose(arrays[path], values[path], rtol=1e-3, atol=1e-4, err_msg=path)


def test_numpy_alone_reads_them_and_takes_no_device(golden, tmp_path):
    arrays = read_arrays(golden / "run" / "checkpoints" / "12")
    np.savez(tmp_path / "arrays.npz", **arrays)
    command = [
        sys.executable,
        "-c",
        NUMPY_ALONE,
        str(golden / "run" / "checkpoints" / "12"),
        str(tmp_path / "arrays.npz"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_golden_runs_are_of_models_that_are_still_built_the_same(golden):
    experiment = build(plain(json.loads((golden / "run" / "config.json").read_text(encoding="utf-8"))))
    leaves = jax.tree_util.tree_flatten_with_path(experiment.abstract_state())[0]
    with np.load(golden / "values.npz") as values:
        assert {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves} == {
            path: values[path].shape for path in values
        }
