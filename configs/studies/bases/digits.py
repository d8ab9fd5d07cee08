"""A stack of convolutions without pools on scikit-learn's digits (8×8, in the package), by momentum SGD.

Trained on 80 % of the training split; the rest of it is for choosing rates. Tested on the 360 test images.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy"}}
    config.model = {
        "name": "classic_stack",
        "in_channels": 1,
        "channels": (16,) * 4,
        "kernel_size": 3,
        "padding": "same",
        "pool": "none",
        "dense": (),
        "final_pool": "average",
    }
    config.data = {
        "source": "sklearn",
        "name": "digits",
        "splits": {"train": "train[:80%]", "validation": "train[80%:]", "test": "test"},
        "batch_size": 32,
        "resident": True,
    }
    config.optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
    config.schedule = {"name": "cosine"}
    config.train = {
        "duration": {"steps": 1200},
        "steps_per_dispatch": 20,
        "log_every": {"steps": 120},
        "evaluate_every": {"steps": 100_000},  # at the end
        "save_every": {"steps": 100_000},
        "keep_checkpoints": 1,
        "evaluate_training": True,
        "figures": False,
    }
    return config.lock()
