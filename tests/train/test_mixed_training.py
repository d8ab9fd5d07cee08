"""Whole runs with mixup and cutmix: they learn, in every mode, and training alone sees mixed examples."""

import jax
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.train.run import build
from cnn_jax.train.session import train, train_many
from cnn_jax.train.writers import read_rows

MIXUP = {"name": "mixup", "alpha": 0.4}
CUTMIX = {"name": "cutmix", "probability": 0.5}


def small(config, *augment, **more):
    """A network that compiles fast, with the given augmentations."""
    model = {"name": "classic_stack", "in_channels": 1, "channels": (4,), "dense": (8,), "padding": "same"}
    return {**config, "model": model, "data": {**config["data"], "augment": augment}, **more}


@pytest.mark.parametrize("node", [MIXUP, pytest.param(CUTMIX, marks=pytest.mark.slow)], ids=["mixup", "cutmix"])
def test_a_run_with_mixed_examples_learns_and_is_evaluated_on_whole_ones(tiny_config, tmp_path, node):
    tiny_config["model"] = {"name": "mlp", "in_channels": 1, "hidden": (32,)}
    tiny_config["task"]["class_weights"] = (1.0,) * 9 + (2.0,)
    tiny_config["data"] |= {"augment": (node,), "batch_size": 40}
    tiny_config["data"]["splits"] |= {"train": "train[:600]", "validation": "train[600:650]"}
    tiny_config["optimizer"] = {"name": "adamw", "learning_rate": 0.01}
    end = {"steps": 80}
    tiny_config["train"] = {"duration": end, "evaluate_every": end, "save_every": end, "log_every": {"steps": 20}}
    result = train(tiny_config, tmp_path / "run")
    assert result["metrics"]["test/accuracy"] > 0.7
    losses = [row["train/loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "train/loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    # What was learnt is seen in whole examples alone.
    assert result["metrics"]["test/loss"] < 0.9 * losses[-1]


def parameters_after_a_step(config):
    """The parameters of a config after one step, by path."""
    experiment = build(config)
    state, _ = experiment.compiled_step()(experiment.initial_state(), experiment.empty_metrics(), experiment.batch(0))
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(state.params))[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def close(a, b):
    assert a.keys() == b.keys()
    return all(np.allclose(a[path], b[path], rtol=1e-4, atol=1e-6) for path in a)


@pytest.mark.slow
def test_partners_are_of_the_whole_batch_on_every_mesh_and_of_a_devices_share_where_it_works_alone(tiny_config):
    config = small(tiny_config, {"name": "mixup_or_cutmix"})
    one = parameters_after_a_step({**config, "parallel": {"devices": 1}})
    assert close(one, parameters_after_a_step({**config, "parallel": {"devices": 4}}))
    accumulated = {**config, "train": {**config["train"], "accumulate": 4}}
    assert close(one, parameters_after_a_step({**accumulated, "parallel": {"devices": 1}}))
    alone = parameters_after_a_step({**config, "parallel": {"devices": 4, "mode": "pmap"}})
    assert not close(one, alone)


@pytest.mark.slow
def test_mixed_runs_in_one_program_are_those_alone(tiny_config, tmp_path):
    config = small(tiny_config, MIXUP)
    vary = {"seed": (3, 4), "optimizer": {"learning_rate": (0.05, 0.02)}}
    together = train_many({**config, "runs": {"vary": vary, "mode": "vmap"}}, tmp_path / "runs")
    for index, result in enumerate(together.values()):
        own = {**config["optimizer"], "learning_rate": vary["optimizer"]["learning_rate"][index]}
        alone = train({**config, "seed": vary["seed"][index], "optimizer": own}, tmp_path / f"alone {index}")
        assert result["metrics"]["test/loss"] == pytest.approx(alone["metrics"]["test/loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "mixup", "alpha": 0.0}, r"config\.data\.augment\.0\.alpha: should be greater than 0"),
        (
            {"name": "cutmix", "probability": 1.5},
            r"config\.data\.augment\.0\.probability: should be less than or equal",
        ),
        (
            {"name": "cutmix", "targets": 1},
            r"augment\.0\.targets: unknown key 'targets'.*Valid here: alpha, probability",
        ),
        ({"name": "cutmx"}, r"unknown config\.data\.augment\.0\.name 'cutmx'; did you mean 'cutmix'"),
    ],
)
def test_a_bad_mixing_is_one_line(tiny_config, node, message):
    with pytest.raises(UserError, match=message):
        build(small(tiny_config, node))


def test_binary_cross_entropy_smooths_mixed_targets_as_it_smooths_labels(tiny_config):
    tiny_config["task"]["loss"] = {"name": "sigmoid_binary_cross_entropy", "label_smoothing": 0.1}
    loss = build(small(tiny_config, MIXUP)).task.loss_function
    logits, labels = jax.random.normal(jax.random.key(0), (5, 10)), np.arange(5, dtype=np.int32)
    np.testing.assert_allclose(loss(logits, np.eye(10, dtype=np.float32)[:5]), loss(logits, labels), rtol=1e-6)
