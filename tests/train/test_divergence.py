"""A step that is not finite: found within a line of the log, taken apart, and gone back from where that is asked."""

import copy
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import DivergenceError, UserError
from cnn_jax.train.checkpoint_arrays import read_arrays
from cnn_jax.train.divergence import MOST_REDUCTIONS, first_not_finite
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.optim import parameter_path
from cnn_jax.train.run import build
from cnn_jax.train.session import train, train_many
from cnn_jax.train.writers import read_rows

# L2 of 30 multiplies the parameters by 29 in each step at a rate of 1, and shrinks them at a sixteenth.
GROWING = {"name": "sgd", "learning_rate": 1.0, "l2": 30.0}


@pytest.fixture(scope="module")
def mlp_config(session_tiny_config):
    """Without normalisation, so that a rate can be too high."""
    settings = {**session_tiny_config["train"], "duration": {"steps": 24}, "ema": None, "figures": False}
    return {
        **session_tiny_config,
        "model": {"name": "mlp", "hidden": (16, 8), "in_channels": 1},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "schedule": {"name": "constant"},
        "train": settings,
    }


@pytest.fixture(scope="module")
def experiment(session_tiny_config):
    return build(session_tiny_config)


def replaced(state, path, value):
    def one(at, x):
        return jnp.full_like(x, value) if parameter_path(at) == path else x

    return state.replace(params=jax.tree_util.tree_map_with_path(one, state.params))


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("backbone/stage2/block1/conv1/kernel", np.inf, "the parameter backbone/stage2/block1/conv1/kernel, before"),
        ("backbone/stage2/block1/conv1/kernel", np.nan, "the parameter backbone/stage2/block1/conv1/kernel, before"),
        ("backbone/stage1/block1/conv2/kernel", 3e38, "the output of the layer backbone/stage1/block1/conv2"),
        # Normalised channels of 3e38 overflow in the next convolution.
        ("backbone/stage1/block1/norm1/bias", 3e38, "the output of the layer backbone/stage1/block1/conv2"),
        ("head/output/kernel", 3e38, "the output of the layer head/output"),
        ("head/output/kernel", 1e38, "the loss|the output of the layer head/output|the gradient of"),
    ],
)
def test_the_first_layer_that_is_not_finite_is_named(experiment, path, value, found):
    import re

    assert re.match(found, first_not_finite(experiment, replaced(experiment.initial_state(), path, value), 1))


def test_an_update_that_is_not_finite_is_named(mlp_config):
    config = {**mlp_config, "optimizer": {"name": "sgd", "learning_rate": 9e29, "l2": 1e30}}
    experiment = build(config)
    state = replaced(experiment.initial_state(), "backbone/dense1/kernel", 1e10)
    found = first_not_finite(experiment, state, 1)
    assert found.startswith(("the optimizer's update of", "the gradient of", "the output of the layer")), found


@pytest.mark.slow
def test_layers_that_are_rematerialised_are_named_too(session_tiny_config):
    model = {**session_tiny_config["model"], "remat": ("stage1", "stage2")}
    experiment = build({**session_tiny_config, "model": model})
    state = replaced(experiment.initial_state(), "backbone/stage2/block1/conv1/kernel", 3e38)
    assert first_not_finite(experiment, state, 1) == "the output of the layer backbone/stage2/block1/conv1"


def test_a_statistic_that_is_not_finite_is_a_divergence_and_not_saved(session_tiny_config, tmp_path, monkeypatch):
    """The loss of training does not show it: BatchNorm takes the batch's own statistics there."""
    create = Experiment.compiled_creation

    def with_infinite_variance(self):
        def made(key):
            state = create(self)(key)
            one = lambda path, x: jnp.full_like(x, jnp.inf) if path[-1].key == "var" else x  # noqa: E731
            return state.replace(model_state=jax.tree_util.tree_map_with_path(one, state.model_state))

        return made

    monkeypatch.setattr(Experiment, "compiled_creation", with_infinite_variance)
    with pytest.raises(
        DivergenceError, match=r"diverged at step 2: a parameter, .*; not finite first: the statistic .*var"
    ):
        train(session_tiny_config, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def diverging(config, **settings):
    config = {**copy.deepcopy(config), "optimizer": GROWING}
    config["train"] |= {"log_every": {"steps": 3}, "save_every": {"steps": 2}, **settings}
    return config


def test_a_divergence_is_told_at_the_next_line_of_the_log_with_the_layer(mlp_config, tmp_path):
    with pytest.raises(
        DivergenceError, match=r"diverged at step \d+: loss .*; not finite first: the .*; lower"
    ) as caught:
        train(diverging(mlp_config), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["message"] == str(caught.value)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    # Nothing was logged, or saved, at or after the interval of the step.
    assert all(row["step"] < caught.value.step for row in rows)
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        assert int(folder.name) < caught.value.step
        assert all(np.isfinite(x).all() for x in read_arrays(folder).values())


@pytest.fixture(scope="module")
def reduced(mlp_config, tmp_path_factory):
    """A run that goes back from its divergences."""
    directory = tmp_path_factory.mktemp("reduced") / "run"
    config = diverging(mlp_config, on_divergence="restore_and_reduce")
    return config, directory, train(config, directory)


def test_restore_and_reduce_goes_back_and_on_with_half_the_rates(reduced):
    _, directory, result = reduced
    assert result["status"] == "completed"
    halved = len(result["reduced_at"])
    assert 1 <= halved <= MOST_REDUCTIONS
    rates = {row["train/learning_rate"] for row in read_rows(directory / "metrics.jsonl") if "epoch" in row}
    assert min(rates) == pytest.approx(0.5**halved)
    steps = [row["step"] for row in read_rows(directory / "metrics.jsonl") if "epoch" in row]
    assert steps == list(range(3, 25, 3)), "no line twice, none missing"
    assert "rates halved after diverging at step" in (directory / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("last", [0, 2, 8, 14, 22])
def test_a_run_with_reduced_rates_is_resumed_to_the_same_end(reduced, tmp_path, last):
    config, directory, result = reduced
    cut = tmp_path / "run"
    shutil.copytree(directory, cut)
    (cut / "result.json").unlink()
    for later in (cut / "checkpoints").iterdir():
        if int(later.name) > last:
            shutil.rmtree(later)
    again = train(config, cut, resume=True)
    a, b = (read_arrays(run / "checkpoints" / "24") for run in (cut, directory))
    assert all(a[path].tobytes() == b[path].tobytes() for path in a)
    assert again["metrics"] == result["metrics"]
    assert again["reduced_at"] == result["reduced_at"]


@pytest.mark.slow
def test_a_run_that_has_ended_diverged_can_be_gone_on_with(mlp_config, tmp_path):
    config = diverging(mlp_config)
    with pytest.raises(DivergenceError):
        train(config, tmp_path / "run")
    with_policy = copy.deepcopy(config)
    with_policy["train"]["on_divergence"] = "restore_and_reduce"
    result = train(with_policy, tmp_path / "run", resume=True)
    assert result["status"] == "completed"
    assert result["reduced_at"]


@pytest.mark.slow
def test_after_ten_reductions_the_run_ends(mlp_config, tmp_path):
    config = diverging(mlp_config, on_divergence="restore_and_reduce")
    config["optimizer"] = {"name": "sgd", "learning_rate": 1e29}
    with pytest.raises(DivergenceError):
        train(config, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], len(result["reduced_at"])) == ("diverged", MOST_REDUCTIONS)


def test_many_runs_are_not_taken_back(mlp_config, tmp_path):
    config = diverging(mlp_config, on_divergence="restore_and_reduce")
    with pytest.raises(UserError, match=r"config\.train\.on_divergence takes one run back"):
        train_many({**config, "runs": {"vary": {"seed": (0, 1)}}}, tmp_path / "runs")


@pytest.mark.slow
def test_the_command_takes_the_policy(repository, tmp_path):
    command = [sys.executable, str(repository / "experiments" / "train.py"), "--config=configs/quickstart.py"]
    options = [
        "--config.train.duration.steps=40",
        "--config.train.figures=false",
        "--config.optimizer.learning_rate=1e25",
    ]
    options += ["--config.data.splits.train=train[:200]", "--config.train.log_every.steps=5"]
    for policy, status in (("stop", 1), ("sometimes", 2)):
        done = subprocess.run(
            [*command, *options, f"--workdir={tmp_path / policy}", f"--on_divergence={policy}"],
            cwd=repository,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
