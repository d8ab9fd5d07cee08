"""A small network on 8,000 images of CIFAR-10 of half the size for 10 epochs: seconds on two cores.

The images are made 16×16, the same number of each class, from the first 45,000 of the training split. Tested on
the other 5,000: where only a part of the official test split is at hand, the numbers are the same.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy"}}
    config.model = {
        "name": "classic_stack",
        "in_channels": 3,
        "channels": (16, 32, 32),
        "kernel_size": 3,
        "padding": "same",
        "dense": (),
    }
    half = ({"name": "resize", "size": 16},)
    config.data = {
        "source": "tfds",
        "name": "cifar10",
        "splits": {"train": "train[:45000]", "test": "train[45000:]"},
        "wrappers": {"train": ({"name": "class_subset", "per_class": 800, "seed": 0},)},
        "transforms": {"train": half, "evaluation": half},
        "batch_size": 50,
        "resident": True,
    }
    config.optimizer = {"name": "adam", "learning_rate": 2e-3}
    config.schedule = {"name": "cosine"}
    config.train = {
        "duration": {"steps": 1600},
        "steps_per_dispatch": 20,
        "log_every": {"steps": 160},
        "evaluate_every": {"steps": 100_000},  # at the end
        "save_every": {"steps": 100_000},
        "keep_checkpoints": 1,
        "evaluate_training": True,
        "figures": False,
    }
    return config.lock()
