"""LeNet-5 in its modern form (61,706 parameters) on MNIST, after LeCun et al. 1998.

The last 5,000 training images are for validation.
Accuracy and wall time are in the README's table and experiments/results.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy"}}
    config.model = {"name": "lenet5", "activation": "relu", "pool": "max"}
    config.data = {
        "source": "tfds",
        "name": "mnist",
        "splits": {"train": "train[:55000]", "validation": "train[55000:]", "test": "test"},
        "batch_size": 128,
        "augment": ({"name": "random_crop", "padding": 2},),
    }
    config.optimizer = {"name": "adam", "learning_rate": 2e-3}
    config.schedule = {"name": "cosine", "warmup": {"epochs": 0.5}}
    config.train = {"duration": {"epochs": 10}}
    return config.lock()
