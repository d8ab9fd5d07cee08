"""Many steps in one dispatch over a split on the device: the same run as step by step."""

import shutil

import jax
import numpy as np
import pytest

from cnn_jax.train.checkpoint import Checkpoints
from cnn_jax.train.plan import Plan
from cnn_jax.train.run import build
from cnn_jax.train.session import train
from cnn_jax.train.writers import read_rows


def without_times(directory):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(directory / "metrics.jsonl")]


def final(config, directory):
    """Every array of the last checkpoint, by path."""
    experiment, checkpoints = build(config), Checkpoints(directory / "checkpoints", keep=None)
    restored = checkpoints.restore(8, experiment.abstract_state(), experiment.empty_metrics())[:2]
    checkpoints.close()
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(restored))[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def at_once(config, steps, *, devices=1):
    """The config with its split on the device and so many steps a dispatch."""
    data, settings = {**config["data"], "resident": True}, {**config["train"], "steps_per_dispatch": steps}
    return {**config, "data": data, "train": settings, "parallel": {"devices": devices}}


@pytest.fixture(scope="module")
def small_config(session_tiny_config):
    """Convolution, BatchNorm, dropout, augmentation, momentum and averages, in a network that compiles fast."""
    model = {"name": "classic_stack", "in_channels": 1, "channels": (4,), "dense": (8,), "padding": "same"}
    return {**session_tiny_config, "model": {**model, "norm": "batch", "dropout_rate": 0.2}}


@pytest.fixture(scope="module")
def plain(small_config, tmp_path_factory):
    """A finished run, step by step."""
    directory = tmp_path_factory.mktemp("plain") / "run"
    return directory, train(small_config, directory)


@pytest.fixture(scope="module")
def scanned(small_config, tmp_path_factory):
    """The same run with two steps a dispatch; events are at 2, 3, 4, 6 and 8, so that single steps are left over."""
    directory = tmp_path_factory.mktemp("scanned") / "run"
    return directory, train(at_once(small_config, 2), directory)


def assert_equal_runs(a, b, config):
    """The same log and, bit for bit, the same end."""
    assert without_times(a) == without_times(b)
    ends = [final(config, path) for path in (a, b)]
    for path, value in ends[0].items():
        np.testing.assert_array_equal(ends[1][path], value, err_msg=path)


@pytest.mark.slow
def test_steps_in_one_dispatch_equal_single_steps_bit_for_bit(plain, scanned, small_config):
    (directory, result), (other, other_result) = plain, scanned
    assert_equal_runs(other, directory, small_config)
    assert other_result["metrics"] == result["metrics"]
    # How steps are dispatched is no part of what is trained.
    assert other_result["config_sha256"] == result["config_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "config"), [(2, lambda c: c), (4, lambda c: at_once(c, 5)), (6, lambda c: at_once(c, 1))]
)
def test_a_run_continues_with_another_number_of_steps_a_dispatch(scanned, small_config, tmp_path, step, config):
    cut = tmp_path / "cut"
    shutil.copytree(scanned[0], cut)
    (cut / "result.json").unlink()
    for later in (cut / "checkpoints").iterdir():
        if int(later.name) > step:
            shutil.rmtree(later)
    train(config(small_config), cut, resume=True)
    assert_equal_runs(cut, scanned[0], small_config)


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one_in_one_dispatch(scanned, small_config, tmp_path):
    train(at_once(small_config, 2, devices=8), tmp_path / "eight")
    one, eight = without_times(scanned[0]), without_times(tmp_path / "eight")
    assert [row["step"] for row in one] == [row["step"] for row in eight]
    for a, b in zip(one, eight):
        for name in a:
            if name.endswith("loss"):
                assert abs(a[name] - b[name]) < 1e-5, (a["step"], name)


REST = ((1, 1), (1, 3), (8, 1))


@pytest.mark.parametrize(("devices", "steps"), [(8, 3), *(pytest.param(*row, marks=pytest.mark.slow) for row in REST)])
def test_after_its_first_dispatch_the_loop_moves_only_its_batches_and_compiles_nothing(small_config, steps, devices):
    config = at_once(small_config, steps, devices=devices)
    experiment = build(config if steps > 1 else {**config, "data": small_config["data"]})
    advance, state, pending = experiment.compiled_advance(), experiment.initial_state(), experiment.empty_metrics()
    state, pending = advance(state, pending, 0, steps)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        # An epoch is 6.25 steps: the order of the second one is computed under the guard too.
        with jax.transfer_guard("disallow"):
            for done in range(steps, 8, steps):
                state, pending = advance(state, pending, done, steps)
            if steps > 1:  # fewer steps, before an evaluation, are the same program on a CPU
                state, pending = advance(state, pending, done + steps, steps - 1)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled
    assert int(state.step) >= 8


def test_the_transfer_guard_would_tell():
    add = jax.jit(lambda x: x + 1)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        add(np.ones(3, np.float32))


@pytest.mark.parametrize("steps_per_dispatch", [1, 2, 5, 50, 1000])
@pytest.mark.parametrize("intervals", [(50, 469, 469), (3, 4, 2), (7, 100, 1)])
def test_a_dispatch_ends_at_every_event(steps_per_dispatch, intervals):
    plan = Plan(
        total=1001,
        **dict(zip(("log_every", "evaluate_every", "save_every"), intervals)),
        examples_per_epoch=60_000,
        batch_size=128,
        steps_per_dispatch=steps_per_dispatch,
    )
    done, seen = 0, {0}
    while done < plan.total:
        steps = plan.steps_at_once(done)
        assert 1 <= steps <= steps_per_dispatch
        done += steps
        seen.add(done)
    events = {step for every in intervals for step in range(0, plan.total, every)} | {plan.total}
    assert events <= seen
    # And no more dispatches than that takes.
    assert len(seen) <= len(events) + plan.total / steps_per_dispatch + 1
