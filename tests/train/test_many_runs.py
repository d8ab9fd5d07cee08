"""Many runs in one program: each is the run that its config gives alone."""

import json
import shutil

import jax
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.train.checkpoint import Checkpoints
from cnn_jax.train.many_runs import build_runs, many_runs, split_runs
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


def train_together(config, mode, above):
    """The runs of VARY in one program on one device."""
    assert list(train_many({**config, "runs": {"vary": VARY, "mode": mode}}, above)) == NAMES
    return above


@pytest.fixture(scope="module")
def vectorised(small_config, tmp_path_factory):
    """Both runs at once."""
    return train_together(small_config, "vmap", tmp_path_factory.mktemp("together") / "vmap")


@pytest.fixture(scope="module")
def sequential(small_config, tmp_path_factory):
    """One after the other."""
    return train_together(small_config, "sequential", tmp_path_factory.mktemp("together") / "sequential")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["vectorised", "sequential"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_run_among_many_is_the_same_run_alone(alone, small_config, mode, index, request):
    together = request.getfixturevalue(mode)
    one, many, config = alone / NAMES[index], together / NAMES[index], own_config(small_config, index)
    assert {path.name for path in many.iterdir()} == {path.name for path in one.iterdir()}
    results = [json.loads((path / "result.json").read_text(encoding="utf-8")) for path in (one, many)]
    assert results[0].keys() == results[1].keys()
    for key in ("status", "steps", "evaluated_step", "seed", "config_sha256", "data", "parameters"):
        assert results[0][key] == results[1][key], key
    # Not to the bit: alone, XLA knows the dropout rate, and multiplies by its inverse.
    assert largest_difference(final(config, one), final(config, many)) < 1e-6
    for a, b in zip(without_times(one), without_times(many), strict=True):
        assert a.keys() == b.keys()
        assert all(b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-6) for name in a), (a, b)
    numbers = evaluate_run(many, split="test", batch_size=7)
    assert numbers["metrics"]["test/accuracy"] == results[0]["metrics"]["test/accuracy"]


@pytest.mark.slow
def test_what_varies_makes_a_difference(vectorised, small_config):
    ends = [final(own_config(small_config, 0), vectorised / name) for name in NAMES]
    assert largest_difference(*ends) > 1e-2


def after_two_steps(config, *, mode, devices):
    """The states of four seeds after one dispatch, and how many devices held them."""
    _, configs = split_runs({**config, "runs": {"vary": {"seed": (0, 1, 2, 3)}}})
    experiments = build_runs(configs)
    program = many_runs(experiments, mode=mode, devices=devices)
    state = program.stack([experiment.initial_state() for experiment in experiments])
    pending = program.stack([experiment.empty_metrics() for experiment in experiments])
    state, _ = program.advance(state, pending, 0, 2)
    return [jax.device_get(own) for own in program.split(state)], len(jax.tree.leaves(state)[0].sharding.device_set)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["vmap", "sequential"])
def test_runs_divided_over_devices_are_those_of_one_device(small_config, mode):
    one, many = (after_two_steps(small_config, mode=mode, devices=count) for count in (1, 8))
    assert (one[1], many[1]) == (1, 4)  # the most devices that divide four runs
    for a, b in zip(one[0], many[0], strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6), a, b)
    assert not np.array_equal(*(state.params["head"]["output"]["kernel"] for state in one[0][:2]))


@pytest.mark.slow
def test_between_dispatches_nothing_moves_and_nothing_compiles(small_config):
    _, configs = split_runs({**small_config, "runs": {"vary": {"seed": (0, 1)}}})
    experiments = build_runs(configs)
    program = many_runs(experiments, mode=None, devices=2)
    state = program.stack([experiment.initial_state() for experiment in experiments])
    pending = program.stack([experiment.empty_metrics() for experiment in experiments])
    state, pending = program.advance(state, pending, 0, 2)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        with jax.transfer_guard("disallow"):
            for done in range(2, 10, 2):  # an epoch is 6.25 steps
                state, pending = program.advance(state, pending, done, 2)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


@pytest.mark.slow
def test_killed_runs_go_on_together_from_the_last_step_that_all_have(vectorised, small_config, tmp_path):
    shutil.copytree(vectorised, tmp_path / "cut")
    # A kill while checkpoints of step 6 are written: the first run has it, the second does not.
    for name, last in zip(NAMES, (6, 4), strict=True):
        (tmp_path / "cut" / name / "result.json").unlink()
        for later in (tmp_path / "cut" / name / "checkpoints").iterdir():
            if int(later.name) > last:
                shutil.rmtree(later)
    config = {**small_config, "runs": {"vary": VARY, "mode": "vmap"}}
    results = train_many(config, tmp_path / "cut", resume=True)
    for index, name in enumerate(NAMES):
        own, before, after = own_config(small_config, index), vectorised / name, tmp_path / "cut" / name
        assert results[name]["status"] == "completed"
        assert without_times(after) == without_times(before)
        assert largest_difference(final(own, after), final(own, before)) == 0
    with pytest.raises(UserError, match="already holds this run; add --resume"):
        train_many(config, tmp_path / "cut")


@pytest.mark.slow
def test_one_diverged_run_stops_no_other(small_config, tmp_path):
    rates = (1e15, 0.05)  # the first step is finite, so that there is a checkpoint to keep
    settings = {**small_config["train"], "save_every": {"steps": 1}, "steps_per_dispatch": 1, "ema": None}
    config = {
        **small_config,
        "optimizer": {"name": "sgd", "learning_rate": 0.05},
        "schedule": {"name": "step", "boundaries": ({"steps": 100},)},
        "train": settings,
        "runs": {"vary": {"optimizer": {"learning_rate": rates}}},
    }
    bad, good = train_many(config, tmp_path / "runs").values()
    assert (bad["status"], bad["metrics"]) == ("diverged", {})
    assert f"diverged at step {bad['steps']}:" in bad["message"]
    assert 1 < bad["steps"] < 8
    directories = [tmp_path / "runs" / f"optimizer.learning_rate={rate}" for rate in rates]
    assert max(int(path.name) for path in (directories[0] / "checkpoints").iterdir()) == bad["steps"] - 1
    assert (good["status"], good["steps"]) == ("completed", 8)
    assert np.isfinite(good["metrics"]["test/loss"])
    assert [row["step"] for row in read_rows(directories[1] / "metrics.jsonl") if "train/loss" in row] == [2, 4, 6, 8]
    # Both have ended, so that there is nothing to go on with.
    assert list(train_many(config, tmp_path / "runs", resume=True).values()) == [bad, good]


BAD_RUNS = [
    ({"seed": (0, 1), "optimizer": {"learning_rate": (0.1,)}}, "different numbers of values"),
    ({"seed": 3}, r"vary\.seed must be a tuple of numbers.*got 3"),
    ({"schedule": {"name": ("cosine", "step")}}, "must be a tuple of numbers"),
    ({"data": {"batch_size": (16, 32)}}, r"vary\.data cannot vary; what can lies below seed, model"),
    ({"seed": (1, 1)}, "has the run seed=1 twice"),
    ({"optimizer": {"momentun": (0.8, 0.9)}}, "did you mean 'momentum'"),
    ({"optimizer": {"momentum": (0.0, 0.9)}}, "state of the run optimizer.momentum=0.9 has other shapes"),
    ({"optimizer": {"learning_rate": (0.1, -0.1)}}, "greater than 0, got -0.1"),
    ({"model": {"dropout_rate": (0.0, 0.2)}}, r"differ in more than numbers \(.*train them one by one"),
    ({"train": {"duration": {"steps": (4, 8)}}}, "other steps, log lines or saves"),
    ({}, "vary"),
]


@pytest.mark.parametrize(("vary", "message"), BAD_RUNS, ids=[message for _, message in BAD_RUNS])
def test_runs_that_cannot_share_a_program_are_refused_in_one_line(small_config, tmp_path, vary, message):
    with pytest.raises(UserError, match=message) as raised:
        train_many({**small_config, "runs": {"vary": vary}}, tmp_path / "runs")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_early_stopping_of_many_runs_is_refused(small_config, tmp_path):
    config = {**small_config, "train": {**small_config["train"], "early_stopping": {"patience": 2}}}
    with pytest.raises(UserError, match="early_stopping ends runs at different steps"):
        train_many({**config, "runs": {"vary": {"seed": (0, 1)}}}, tmp_path / "runs")
