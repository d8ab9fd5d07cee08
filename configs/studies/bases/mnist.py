"""A small network on 2,000 images of MNIST for 12 epochs: seconds on two cores.

The images are 28×28, the same number of each class; each digit stands in the middle, with 4 black pixels around it.
Tested on the first 2,000 test images.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy"}}
    config.model = {
        "name": "classic_stack",
        "in_channels": 1,
        "channels": (8, 16),
        "kernel_size": 3,
        "padding": "same",
        "dense": (),
    }
    config.data = {
        "source": "tfds",
        "name": "mnist",
        "splits": {"train": "train[:55000]", "test": "test[:2000]"},
        "wrappers": {"train": ({"name": "class_subset", "per_class": 200, "seed": 0},)},
        "batch_size": 50,
        "resident": True,
    }
    config.optimizer = {"name": "adam", "learning_rate": 2e-3}
    config.schedule = {"name": "cosine"}
    config.train = {
        "duration": {"steps": 480},
        "steps_per_dispatch": 20,
        "log_every": {"steps": 40},
        "evaluate_every": {"steps": 100_000},  # at the end
        "save_every": {"steps": 100_000},
        "keep_checkpoints": 1,
        "evaluate_training": True,
        "figures": False,
    }
    return config.lock()
