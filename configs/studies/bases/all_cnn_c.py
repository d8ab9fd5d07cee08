"""The recipe of Springenberg et al. 2015, section 3.1, for Model C on CIFAR-10 without augmentation: 350 epochs.

SGD with momentum 0.9, decay 0.001, dropout 0.2 of the image and 0.5 behind each stage, the rate divided by ten after
200, 250 and 300 epochs. The paper tries the rates 0.25, 0.1, 0.05 and 0.01 and reports the best. What differs: images
are normalised per channel, where the paper whitens them and normalises their contrast; the batch, of which it says
nothing, is 128; the last 5,000 training images are held out, for choosing the rate.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy"}}
    config.model = {"name": "model_c"}
    config.data = {
        "source": "tfds",
        "name": "cifar10",
        "splits": {"train": "train[:45000]", "validation": "train[45000:]", "test": "test"},
        "batch_size": 128,
        "resident": True,
    }
    config.optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "l2": 1e-3}
    config.schedule = {"name": "step", "boundaries": ({"epochs": 200}, {"epochs": 250}, {"epochs": 300})}
    config.train = {
        "duration": {"epochs": 350},
        "steps_per_dispatch": 100,
        "log_every": {"epochs": 5},
        "evaluate_every": {"epochs": 35},
        "save_every": {"epochs": 35},
        "keep_checkpoints": 1,
        "evaluate_training": True,
        "figures": False,
    }
    return config.lock()
