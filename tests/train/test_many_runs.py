"""Many runs in one program: each is the run that its config gives alone."""

import json

import jax
import numpy as np
import pytest

from cnn_jax.train.checkpoint import Checkpoints
from cnn_jax.train.run import build
from cnn_jax.train.session import evaluate_run, train, train_many
from cnn_jax.train.writers import read_rows

VARY = {"seed": (3, 4), "optimizer": {"learning_rate": (0.05, 0.02)}, "model": {"dropout_rate": (0.2, 0.4)}}
NAMES = [
    "seed=3,optimizer.learning_rate=0.05,model.dropout_rate=0.2",
    "seed=4,optimizer.learning_rate=0.02,model.dropout_rate=0.4",
]


def without_times(directory):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(directory / "metrics.jsonl")]


def final(config, directory, step=8):
    """Every array of a checkpoint, by path."""
    experiment, checkpoints = build(config), Checkpoints(directory / "checkpoints", keep=None)
    restored = checkpoints.restore(step, experiment.abstract_state(), experiment.empty_metrics())[:2]
    checkpoints.close()
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(restored))[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(np.max(np.abs(np.asarray(a[path], np.float64) - b[path])) for path in a)


@pytest.fixture(scope="module")
def small_config(session_tiny_config):
    """Convolution, BatchNorm, dropout, augmentation, momentum and averages, in a network that compiles fast."""
    model = {"name": "classic_stack", "in_channels": 1, "channels": (4,), "dense": (8,), "padding": "same"}
    config = {**session_tiny_config, "model": {**model, "norm": "batch", "dropout_rate": 0.2}}
    config["train"] = {**config["train"], "log_every": {"steps": 2}, "steps_per_dispatch": 2}
    return {**config, "data": {**config["data"], "resident": True}}


def own_config(config, index):
    """The config of one of the runs of VARY."""
    rate, dropout = VARY["optimizer"]["learning_rate"][index], VARY["model"]["dropout_rate"][index]
    return {
        **config,
        "seed": VARY["seed"][index],
        "optimizer": {**config["optimizer"], "learning_rate": rate},
        "model": {**config["model"], "dropout_rate": dropout},
    }


@pytest.fixture(scope="module")
def alone(small_config, tmp_path_factory):
    """Each run trained by itself."""
    above = tmp_path_factory.mktemp("alone")
    for index, name in enumerate(NAMES):
        train(own_config(small_config, index), above / name)
    return above


@pytest.fixture(scope="module")
def together(small_config, tmp_path_factory):
    """Both modes, each on one device."""
    above = tmp_path_factory.mktemp("together")
    for mode in ("vmap", "sequential"):
        results = train_many({**small_config, "runs": {"vary": VARY, "mode": mode}}, above / mode)
        assert list(results) == NAMES
    return above


@pytest.mark.parametrize("mode", ["vmap", "sequential"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_run_among_many_is_the_same_run_alone(alone, together, small_config, mode, index):
    one, many, config = alone / NAMES[index], together / mode / NAMES[index], own_config(small_config, index)
    assert {path.name for path in many.iterdir()} == {path.name for path in one.iterdir()}
    results = [json.loads((path / "result.json").read_text(encoding="utf-8")) for path in (one, many)]
    assert results[0].keys() == results[1].keys()
    for key in ("status", "steps", "evaluated_step", "seed", "config_sha256", "data", "parameters"):
        assert results[0][key] == results[1][key], key
    print(mode, index, largest_difference(final(config, one), final(config, many)))
    assert largest_difference(final(config, one), final(config, many)) < 1e-6
    for a, b in zip(without_times(one), without_times(many), strict=True):
        assert a.keys() == b.keys()
        assert all(b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-6) for name in a), (a, b)
    numbers = evaluate_run(many, split="test", batch_size=7)
    assert numbers["metrics"]["test/accuracy"] == results[0]["metrics"]["test/accuracy"]


def test_what_varies_makes_a_difference(together, small_config):
    ends = [final(own_config(small_config, 0), together / "vmap" / name) for name in NAMES]
    assert largest_difference(*ends) > 1e-2
