"""The classic stack on Fashion-MNIST: conv 32 3×3, pool, conv 64 3×3, pool, flatten, dense (34,826 parameters).

The last 5,000 training images are for validation.
Accuracy and wall time are in the README's table and experiments/results.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy"}}
    config.model = {"name": "classic_stack", "in_channels": 1, "channels": (32, 64), "kernel_size": 3, "dense": ()}
    config.data = {
        "source": "tfds",
        "name": "fashion_mnist",
        "splits": {"train": "train[:55000]", "validation": "train[55000:]", "test": "test"},
        "batch_size": 128,
        "augment": ({"name": "random_flip"},),
    }
    config.optimizer = {"name": "adam", "learning_rate": 2e-3}
    config.schedule = {"name": "cosine", "warmup": {"epochs": 0.5}}
    config.train = {"duration": {"epochs": 10}}
    return config.lock()
