"""A small network on 4,000 images of Fashion-MNIST for 20 epochs: seconds on two cores.

The images are 28×28, the same number of each class, from the first 55,000 of the training split; the other 5,000 are
left for validation. Tested on the 10,000 test images, and on the training images as they are.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy"}}
    config.model = {
        "name": "classic_stack",
        "in_channels": 1,
        "channels": (16, 32),
        "kernel_size": 3,
        "padding": "same",
        "dense": (),
    }
    config.data = {
        "source": "tfds",
        "name": "fashion_mnist",
        "splits": {"train": "train[:55000]", "test": "test"},
        "wrappers": {"train": ({"name": "class_subset", "per_class": 400, "seed": 0},)},
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
