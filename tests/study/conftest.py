"""A study that trains in seconds."""

import pytest


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
