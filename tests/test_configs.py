"""Every file in configs/ builds, and takes two real steps at smoke size."""

import ast
import pathlib

import jax
import numpy as np
import pytest

from cnn_jax.data.sources import Source
from cnn_jax.train.config_file import load, override
from cnn_jax.train.optim import assign_groups
from cnn_jax.train.run import build

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "configs"
FILES = sorted(FOLDER.rglob("*.py"))
# Those in `studies` itself describe studies: tests/study/test_claim_configs.py. What they start from is in its `bases`.
TRAINING_FILES = [file for file in FILES if file.parent != FOLDER / "studies"]
VARIANTS = {"cifar10_resnet20.py": ("full", "short", "smoke"), "cifar10_speedrun.py": ("full", "smoke")}
SMOKE = [
    "--config.data.batch_size=8",
    "--config.data.evaluation_batch_size=8",
    "--config.data.splits.train=train[:40]",
    "--config.parallel.devices=1",
]
# It takes most of a minute to write the others' data sets as TFDS does.
FAST = {"quickstart.py"}
REFERENCES = [
    pytest.param(
        str(file) + (f":{variant}" if variant else ""),
        id=f"{file.stem}:{variant}" if variant else file.stem,
        marks=[] if file.name in FAST else [pytest.mark.slow],
    )
    for file in TRAINING_FILES
    for variant in VARIANTS.get(file.name, (None,))
]


def without_wrappers(config):
    """A config that does not ask for more examples of a class than a smoke test has."""
    return {**config, "data": {key: value for key, value in config["data"].items() if key != "wrappers"}}


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_config_builds_and_takes_two_steps(reference, request):
    config = without_wrappers(load(reference))
    overrides = list(SMOKE)
    for split in ("validation", "test"):
        spec = config["data"]["splits"].get(split)
        if spec:
            overrides.append(f"--config.data.splits.{split}={spec.partition('[')[0]}[40:50]")
    if config["data"]["source"] == "tfds":
        overrides.append(f"--config.data.directory={request.getfixturevalue('tfds_directory')}")
    experiment = build(override(config, overrides))
    step, state, pending = experiment.compiled_step(), experiment.initial_state(), experiment.empty_metrics()
    start = jax.device_get(state.params)
    for index in range(2):
        state, pending = step(state, pending, experiment.batch(index))
    metrics = jax.device_get(pending)
    assert int(metrics.bad_step) == -1
    assert int(metrics.states["accuracy"]["count"]) == 16
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), start, jax.device_get(state.params))
    expected = jax.tree.map(lambda group: not group.frozen, assign_groups(start, experiment.config.parameter_groups))
    assert moved == expected, "a parameter did not move, or a frozen one did"


@pytest.mark.parametrize("reference", [pytest.param(param.values[0], id=param.id) for param in REFERENCES])
def test_a_config_builds_on_noise_of_its_size(reference):
    config = without_wrappers(load(reference))
    shape = {"digits": (8, 8, 1), "cifar10": (32, 32, 3)}.get(config["data"]["name"], (28, 28, 1))
    noise = np.random.default_rng(0)
    source = Source(
        name="noise",
        class_names=tuple("0123456789"),
        sizes={"train": 100, "test": 100},
        load_range=lambda _, start, stop: (
            noise.integers(0, 256, (stop - start, *shape), np.uint8),
            np.arange(start, stop, dtype=np.int32) % 10,
        ),
    )
    splits = {name: f"{split}[:40]" for name, split in (("train", "train"), ("test", "test"))}
    overrides = [f"--config.data.splits.{name}={spec}" for name, spec in splits.items()]
    overrides += ["--config.data.splits.validation=train[40:80]", *SMOKE[:2]]
    assert build(override(config, overrides), source=source).plan.total > 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_imports_nothing_of_cnn_jax_and_says_what_it_is(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"ml_collections"}
        if isinstance(node, ast.ImportFrom):
            assert node.module == "ml_collections"


def test_the_recipe_of_he_et_al():
    config = load(str(FOLDER / "classification" / "cifar10_resnet20.py"))
    assert config["train"]["duration"] == {"steps": 64_000}
    assert config["schedule"]["boundaries"] == ({"steps": 32_000}, {"steps": 48_000})
    assert config["optimizer"] == {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "l2": 1e-4}
    assert config["data"]["batch_size"] == 128


def test_the_recipe_of_airbench94():
    # airbench94_muon.py sums the losses of 2,000 examples where the task takes their mean; with momentum SGD that is a
    # factor of the rate, and of the decay its inverse.
    config = load(str(FOLDER / "classification" / "cifar10_speedrun.py"))
    assert config["optimizer"] == {
        **{"name": "muon", "learning_rate": 0.24, "momentum": 0.6, "nesterov": True, "steps": 3, "fixed_norm": True},
    }
    whiten, bias, norms, head, rest = config["parameter_groups"]
    assert whiten == {"pattern": "backbone/whiten/kernel", "frozen": True}
    assert bias["until"] == {"epochs": 3}
    assert rest == {"pattern": ".*/conv[12]/kernel"}
    for group, rate in ((bias, 0.053), (norms, 0.053), (head, 0.67)):
        sgd = group["optimizer"]
        assert sgd["learning_rate"] == pytest.approx(2000 * rate)
        # theirs: rate * (sum of gradients + (2e-6 * 2000 / rate) * parameter)
        assert sgd["learning_rate"] * sgd["l2"] == pytest.approx(2e-6 * 2000)
        assert (sgd["name"], sgd["momentum"], sgd["nesterov"]) == ("sgd", 0.85, True)
    assert config["data"]["batch_size"] == 2000
    assert config["train"]["duration"] == {"epochs": 8}
