"""A small residual network on scikit-learn's handwritten digits (8×8 grey images, in the package): the first run.

Accuracy and wall time are in the README's table and experiments/results.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.1}}
    config.model = {"name": "resnet_cifar", "depth": 8, "width": 16, "in_channels": 1}
    config.data = {
        "source": "sklearn",
        "name": "digits",
        "splits": {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"},
        "batch_size": 64,
        "augment": ({"name": "random_crop", "padding": 1},),
    }
    config.optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "l2": 5e-4}
    config.schedule = {"name": "one_cycle"}
    config.train = {"duration": {"epochs": 30}, "log_every": {"steps": 20}}
    return config.lock()
