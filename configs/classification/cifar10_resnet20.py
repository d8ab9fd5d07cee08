"""ResNet-20 on CIFAR-10 with the recipe of He et al. 2016, section 4.2: 64 k steps, or a variant that is shorter.

  --config=configs/classification/cifar10_resnet20.py          the paper's schedule
  --config=configs/classification/cifar10_resnet20.py:short    8 epochs with the same shape
  --config=configs/classification/cifar10_resnet20.py:smoke    20 steps on 512 images

Trains on 45,000 and evaluates on the other 5,000 images of the training split, as the paper does to choose its
schedule. Those 5,000 are not the test set: add --config.data.splits.test=test where all 10,000 test images are there,
and --config.data.splits.train=train --config.data.splits.validation=none for the paper's final numbers.
"""

from ml_collections import ConfigDict

VARIANTS = ("full", "short", "smoke")


def get_config(variant="full"):
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    config = ConfigDict()
    config.seed = 0
    config.task = {"name": "classification", "loss": {"name": "softmax_cross_entropy"}}
    config.model = {"name": "resnet20"}
    config.data = {
        "source": "tfds",
        "name": "cifar10",
        "splits": {"train": "train[:45000]", "validation": "train[45000:]"},
        "batch_size": 128,
        "augment": ({"name": "random_crop", "padding": 4}, {"name": "random_flip"}),
    }
    config.optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "l2": 1e-4}
    if variant == "full":
        config.schedule = {"name": "step", "boundaries": ({"steps": 32_000}, {"steps": 48_000}), "factor": 0.1}
        config.train = {
            "duration": {"steps": 64_000},
            "log_every": {"steps": 100},
            "evaluate_every": {"steps": 2_000},
            "save_every": {"steps": 4_000},
        }
    elif variant == "short":
        config.schedule = {"name": "step", "boundaries": ({"epochs": 4}, {"epochs": 6}), "factor": 0.1}
        config.train = {"duration": {"epochs": 8}, "evaluate_every": {"epochs": 1}, "save_every": {"epochs": 1}}
    else:
        config.data.splits = {"train": "train[:512]", "validation": "train[45000:45256]"}
        config.train = {"duration": {"steps": 20}, "log_every": {"steps": 5}}
    return config.lock()
