"""The whole training command as a benchmark: a cold and a warm row, with and without torch."""

import pytest

from cnn_jax.benchmark.whole_command import measure_command
from cnn_jax.errors import UserError

SPLITS = {"train": "train[:512]", "validation": "train[512:640]", "test": "test[:130]"}


def measure(tfds_directory, monkeypatch, *overrides, python=None):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_directory))
    splits = [f"--config.data.splits.{name}={value}" for name, value in SPLITS.items()]
    said = []
    rows = measure_command(epochs=1, rounds=1, python=lambda: python, overrides=[*splits, *overrides], say=said.append)
    return rows, said


@pytest.mark.slow
def test_the_command_alone_gives_a_cold_and_a_warm_row(tfds_directory, monkeypatch):
    rows, said = measure(tfds_directory, monkeypatch)
    assert [row["mode"] for row in rows] == [f"whole command, epochs: 1, {cache} cache" for cache in ("cold", "warm")]
    for row in rows:
        assert row["parameters"] == 34_826  # of the table in numbers.md
        assert row["ours"] == pytest.approx(512 / row["seconds"][0])
        assert row["peer"] is None
    assert len(said) == 3  # the warm cache has to be filled first


@pytest.mark.slow
def test_the_command_against_torch(tfds_directory, monkeypatch, torch_python):
    rows, _ = measure(tfds_directory, monkeypatch, python=torch_python)
    for row in rows:
        assert row["peer_versions"]["torch"]
        assert row["ratio"] == pytest.approx(row["peer_seconds"][0] / row["seconds"][0])
    with pytest.raises(UserError, match=r"the networks differ, parameters: .*'ours'"):
        measure(tfds_directory, monkeypatch, "--config.model.channels=(32, 65)", python=torch_python)


@pytest.mark.slow
def test_a_command_that_fails_ends_the_benchmark_with_its_last_line(tfds_directory, monkeypatch):
    with pytest.raises(UserError, match=r"train.py failed with status 2: error: .*optimizer"):
        measure(tfds_directory, monkeypatch, "--config.optimizer.learning_rate=-1.0")
