"""What every test runs under: eight simulated devices, one shared compilation cache, no silent rank promotion."""

import copy
import fcntl
import gc
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# Before JAX starts: the number of simulated devices and the cache are read once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("CNN_JAX_NATIVE_CACHE", str(REPOSITORY / ".cache" / "native"))
os.environ["CNN_JAX_DECODED_CACHE"] = ""  # tests' data sets come and go

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish():
    """Look for garbage less often: traced programs are a million objects that stay, and each search visits them all."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def golden():
    """The reference set's own module, which rebuilds weights and inputs and compares outputs."""
    spec = importlib.util.spec_from_file_location("golden", REPOSITORY / "tests" / "reference" / "golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def raw_data() -> pathlib.Path:
    """The folder of real data sets that CNN_JAX_DATA names; tests that need it are skipped where it is not there."""
    folder = os.environ.get("CNN_JAX_DATA")
    if not folder:
        pytest.skip("needs the real data sets: set CNN_JAX_DATA to their folder")
    path = pathlib.Path(folder).resolve()
    if not (path / "prepare_tfds.py").is_file():
        pytest.skip(f"CNN_JAX_DATA is {folder!r}, which has no prepare_tfds.py")
    return path


@pytest.fixture(scope="session")
def torch_python():
    """A Python with torch: the one that CNN_JAX_TORCH names."""
    from cnn_jax.benchmark.peer import find_torch

    python = os.environ.get("CNN_JAX_TORCH")
    if not python:
        pytest.skip("needs PyTorch in its own environment: set CNN_JAX_TORCH to that environment's python")
    found, why = find_torch(python)
    assert found, why
    return found


@pytest.fixture(scope="session")
def tfds_directory(raw_data, tmp_path_factory) -> pathlib.Path:
    """MNIST, Fashion-MNIST and CIFAR-10 as TFDS directories, prepared from the raw files without TensorFlow."""
    # Once for all of pytest-xdist's processes: whichever comes first prepares, the others wait for its lock.
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    directory, finished = shared / "tfds data", shared / "tfds data are prepared"
    with (shared / "tfds data.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            command = [sys.executable, "prepare_tfds.py", str(directory)]
            done = subprocess.run(command, cwd=raw_data, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            finished.touch()
    return directory


@pytest.fixture(scope="session")
def session_tiny_config() -> dict:
    """A config that trains in seconds and has everything that could break a resume.

    BatchNorm, dropout, EMA, augmentation, momentum, a schedule, epochs that are no multiple of the batch, and a ragged
    evaluation tail.
    """
    return {
        "seed": 3,
        "task": {"name": "classification", "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.1}},
        "model": {"name": "resnet_cifar", "depth": 8, "width": 4, "in_channels": 1, "dropout_rate": 0.2},
        "data": {
            "source": "sklearn",
            "name": "digits",
            "splits": {"train": "train[:100]", "validation": "train[100:150]", "test": "test[:45]"},
            "batch_size": 16,
            "evaluation_batch_size": 16,
            "augment": ({"name": "random_crop", "padding": 1}, {"name": "random_flip"}),
        },
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "l2": 1e-4},
        "schedule": {"name": "cosine", "warmup": {"steps": 2}},
        "train": {
            "duration": {"steps": 8},
            "log_every": {"steps": 3},
            "evaluate_every": {"steps": 4},
            "save_every": {"steps": 2},
            "keep_checkpoints": 100,
            "ema": {"decay": 0.9},
        },
        "parallel": {"devices": 1},
    }


@pytest.fixture
def tiny_config(session_tiny_config) -> dict:
    """A copy of the config that a test may change."""
    return copy.deepcopy(session_tiny_config)


@pytest.fixture
def tiny_study() -> dict:
    """A study that a test may change."""
    return make_tiny_study()


@pytest.fixture(scope="module")
def module_study() -> dict:
    """One that it may not."""
    return make_tiny_study()


def make_tiny_study() -> dict:
    """Logistic regression on some digits at two rates, and a network of one layer: three seeds each, two programs."""
    return {
        "id": "tiny",
        "title": "Tiny",
        "claim": "A hidden layer helps.",
        "baseline": {
            "task": {"name": "classification"},
            "model": {"name": "mlp", "hidden": (), "in_channels": 1},
            "data": {
                "source": "sklearn",
                "name": "digits",
                "splits": {"train": "train[:160]", "validation": "train[160:200]", "test": "test[:90]"},
                "batch_size": 32,
                "evaluation_batch_size": 64,
            },
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
            "train": {
                "duration": {"steps": 12},
                "log_every": {"steps": 4},
                "evaluate_every": {"steps": 4},
                "save_every": {"steps": 12},
                "steps_per_dispatch": 4,
                "figures": False,
                "evaluate_training": True,
            },
        },
        "variants": {"slow": {"optimizer.learning_rate": 0.02}, "hidden layer": {"model.hidden": (16,)}},
        "seeds": (0, 1, 2),
        "measures": {
            "test/accuracy": {"share": True},
            "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        },
        "comparisons": (
            {"measure": "test/accuracy", "variant": "hidden layer"},
            {"measure": "test/accuracy", "variant": "slow", "claim": "less"},
        ),
    }
