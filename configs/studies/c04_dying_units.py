"""ReLU at a rate at which units die, against activations that have a slope everywhere."""

from ml_collections import ConfigDict

OTHERS = ("leaky_relu", "prelu", "elu", "gelu")


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c04"
    config.title = "Dying units"
    config.claim = "Leaky ReLU, PReLU, ELU and GELU cure dying units."
    config.source = "Maas et al. 2013; He et al. 2015; Clevert et al. 2016; textbook"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {
        "model.dense": (64, 64),
        "optimizer": {"name": "sgd", "learning_rate": 0.03, "momentum": 0.9},
        "schedule": {"name": "constant"},
    }
    config.variants = {
        **{name: {"model.activation": name} for name in OTHERS},
        "relu at a tenth of the rate": {"optimizer.learning_rate": 0.003},
    }
    config.seeds = tuple(range(10))
    config.probes = ({"name": "dead_units"},)
    config.measures = {
        "dead_units": {"direction": "lower", "share": True},
        "test/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
        "diverged": {"direction": "lower", "share": True},
    }
    fewer = {"measure": "dead_units", "claim": "less", "smallest": 0.02}
    better = {"measure": "test/accuracy", "claim": "greater", "smallest": 0.01, "primary": False}
    config.comparisons = (
        *({**fewer, "variant": name} for name in OTHERS),
        *({**better, "variant": name} for name in OTHERS),
        {**fewer, "variant": "relu at a tenth of the rate", "primary": False},
    )
    config.notes = (
        "The rate, 0.03 with momentum 0.9, is high on purpose, and the same for all; at 0.1 most runs of the others"
        " diverged, where ReLU went on with what was left of its units. 'relu at a tenth of the rate' shows that it is"
        " what kills. Dead is a unit that gives the same number for all test images. A run that diverges has no units"
        " to count, and chance accuracy. smallest: two points of the units, one point of accuracy."
    )
    return config.lock()
