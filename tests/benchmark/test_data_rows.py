"""The rows of `benchmark.py data`: what they are, real ones at tiny sizes, and what happens without a peer."""

import dataclasses
import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

from cnn_jax.benchmark import store
from cnn_jax.benchmark.data_cases import DATA_ROWS, PHOTOGRAPH, select_rows, write_photographs
from cnn_jax.benchmark.data_rows import measure_data, peer_side
from cnn_jax.benchmark.data_worker import host_batches, sample
from cnn_jax.benchmark.peer import SCRIPTS, find_tensorflow
from cnn_jax.benchmark.race import Protocol
from cnn_jax.errors import UserError

QUICK = Protocol(rounds=2, turn_seconds=0.01, row_seconds=0.0)
ROWS = {row.name: row for row in DATA_ROWS}


def tiny(name, **changes):
    """A row that takes little time."""
    return dataclasses.replace(ROWS[name], **{"batch_size": 4, "examples": 12, **changes})


def measured(row, **pythons):
    """The row, with what is said on the way."""
    said = []
    [found] = measure_data([row], find_python=pythons.get, protocol=QUICK, say=said.append)
    return found, said


def test_the_rows_are_those_of_the_issue():
    goals = {(row.kind, row.peer): row.goal for row in DATA_ROWS}
    assert goals == {
        ("host", "tensorflow"): 1.0,
        ("host", "torch"): 1.0,
        ("resident", "fixed"): 0.97,
        ("stream", "pillow"): 0.8,
    }
    assert {row.workers for row in DATA_ROWS if row.kind == "stream"} == {0, 2}
    assert [row.name for row in select_rows("")] == list(ROWS)
    assert [row.name for row in select_rows("dataloader,tf_data,dataloader")] == ["dataloader", "tf_data"]


@pytest.mark.parametrize(("rows", "message"), [("tfdata", "did you mean 'tf_data'"), (",", "names no row")])
def test_unknown_data_rows(rows, message):
    with pytest.raises(UserError, match=message):
        select_rows(rows)


def test_a_host_batch_is_cropped_flipped_and_normalised():
    row = tiny("tf_data", batch_size=64, examples=128)
    batch = next(host_batches(row))
    assert len(set(np.asarray(batch["id"]).tolist())) == 64
    about = sample(row)
    assert (about["shape"], about["type"], about["labels"]) == ([64, 32, 32, 3], "float32", 64)
    # Of 40 rows and columns 4 at each end are black: the mean share of a window that is not.
    seen = np.mean([32 - abs(start - 4) for start in range(9)]) / 32
    level, second = 127.5 / 255, (255 * 511 / 6) / 255**2  # of even levels from 0 to 255: mean, and mean square
    mean = seen**2 * level
    std = np.sqrt(seen**2 * second - mean**2)
    assert about["mean"] == pytest.approx((mean - row.mean) / row.std, abs=0.03)
    assert about["std"] == pytest.approx(std / row.std, abs=0.03)


def test_photographs_are_jpeg_files_of_real_pixels(tmp_path):
    from PIL import Image

    write_photographs(tmp_path / "photographs", count=4)
    files = sorted((tmp_path / "photographs" / "train").glob("*/*.jpg"))
    assert [file.parent.name for file in files] == ["china", "china", "flower", "flower"]
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size[::-1]) == ("JPEG", PHOTOGRAPH)
            assert np.asarray(image).std() > 20
    assert len({file.read_bytes() for file in files}) == 4


def test_the_data_scripts_import_nothing_of_ours():
    for name in ("torch_data.py", "tensorflow_data.py", "pillow_decode.py"):
        assert "import cnn_jax" not in (text := (SCRIPTS / name).read_text(encoding="utf-8"))
        assert "from cnn_jax" not in text


def test_without_a_peer_the_reason_is_told(monkeypatch, repository, capsys):
    assert find_tensorflow("/nowhere/python") == (None, "/nowhere/python cannot import tensorflow")
    monkeypatch.syspath_prepend(repository / "experiments")
    benchmark = importlib.import_module("benchmark")

    def measured(rows, *, find_python, **_):
        assert [peer_side(row, find_python) for row in rows] == [None, None]
        return []

    monkeypatch.setattr("cnn_jax.benchmark.data_rows.measure_data", measured)
    nowhere = ["--torch-python=/nowhere/python", "--tensorflow-python=/nowhere/python"]
    assert benchmark.main(["data", "--rows=tf_data,dataloader", *nowhere]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"no {module}, so our numbers alone: /nowhere/python cannot import {module}"
        for module in ("tensorflow", "torch")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows=tf"], "known row of --rows"),
        (["--rows=tf_data", "--store"], "drop --rows=tf_data"),
        (["--config.seed=1"], "'--config.seed=1' is not understood"),
    ],
)
def test_bad_input_of_the_data_benchmark(arguments, message, monkeypatch, repository):
    monkeypatch.syspath_prepend(repository / "experiments")
    benchmark = importlib.import_module("benchmark")
    with pytest.raises(UserError, match=message):
        benchmark.main(["data", *arguments])


def test_the_data_table_names_its_peers():
    row = {
        "model": "tf_data",
        "mode": "host pipeline, against tf.data",
        "ours": 2000.0,
        "peer": 1000.0,
        "ratio": 2.0,
        "ratio_spread": [1.5, 2.5],
        "rounds": 5,
        "goal": 1.0,
        "batch_size": 128,
        "image": [32, 32, 3],
        "peer_variant": "permutation, gather",
        "peer_versions": {"tensorflow": "2.21.0"},
        "others": 0.01,
    }
    text = store.markdown({"data": store.document([row], peer_versions=row["peer_versions"])})
    assert "| ours | peer | ratio | least – greatest | peer's fastest form |" in text
    line = "| `tf_data` | host pipeline, against tf.data | 32×32×3 | 128 | 2,000 | 1,000 | 2.00× | 1.50 – 2.50 |"
    assert f"{line} permutation, gather |" in text
    assert "TensorFlow 2.21.0" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stream_threads", "stream_processes"])
def test_a_stream_against_pillow(name):
    row, _ = measured(tiny(name, examples=24), pillow=sys.executable)
    assert row["ratio_spread"][0] <= row["ratio"] <= row["ratio_spread"][1]
    assert set(row["trials"]) == {"threads", "processes"}
    assert row["peer_versions"].keys() == {"pillow"}


@pytest.mark.slow
def test_the_resident_split_against_one_batch():
    case = dataclasses.replace(ROWS["resident_lenet5"].case, batch_size=4)
    row, _ = measured(tiny("resident_lenet5", examples=40, steps_per_dispatch=2, case=case))
    assert set(row["trials"]) == {"many steps a dispatch", "one step a dispatch"}
    assert row["ratio"] > 0


@pytest.mark.slow
def test_the_host_pipeline_against_torch(torch_python):
    row, _ = measured(tiny("dataloader", batch_size=128, examples=512), torch=torch_python)
    assert {"torch, 0 workers", "torch, 2 workers"} <= set(row["trials"])
    assert row["peer_versions"]["torch"]


@pytest.mark.slow
def test_the_host_pipeline_against_tensorflow():
    python = os.environ.get("CNN_JAX_TENSORFLOW")
    if not python:
        pytest.skip("needs TensorFlow in its own environment: set CNN_JAX_TENSORFLOW to that environment's python")
    row, _ = measured(tiny("tf_data", batch_size=128, examples=512), tensorflow=python)
    assert len(row["trials"]) == 3
    assert row["peer_versions"]["tensorflow"]


@pytest.mark.slow
def test_the_host_pipeline_alone_ends_with_a_table(repository):
    script = str(repository / "experiments" / "benchmark.py")
    quick = ["--rounds=1", "--row-seconds=0", "--turn-seconds=0.01", "--rows=tf_data"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, script, "data", "--tensorflow-python=/nowhere/python", *quick],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no tensorflow, so our numbers alone" in done.stderr
    assert "tf_data" in done.stdout
