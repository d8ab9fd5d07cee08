"""The mean over space in place of flattened maps and a dense layer."""

from ml_collections import ConfigDict


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c15"
    config.title = "Global average pooling"
    config.claim = "Global average pooling replaces dense layers with fewer parameters and less overfitting."
    config.source = "Lin et al. 2014, section 3.2"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {"model.channels": (16, 32, 64), "model.dense": (64,)}
    config.variants = {
        "average": {"model.dense": (), "model.final_pool": "average"},
        "average+dense": {"model.final_pool": "average"},
        "flatten only": {"model.dense": ()},
    }
    config.seeds = tuple(range(10))
    config.measures = {
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        "test/accuracy": {"direction": "higher", "share": True},
        "train/accuracy": {"direction": "higher", "share": True},
        "parameters": {"direction": "lower"},
        "number of parameters": {"of": {"parameters": 1.0}, "log": True, "direction": "lower"},
    }
    config.comparisons = (
        {"measure": "gap", "variant": "average", "claim": "less", "smallest": 0.01},
        {"measure": "test/accuracy", "variant": "average", "claim": "not_less", "smallest": 0.02},
        {"measure": "number of parameters", "variant": "average", "claim": "less", "smallest": 0.5},
        {"measure": "gap", "variant": "average+dense", "claim": "less", "smallest": 0.01, "primary": False},
        {"measure": "gap", "variant": "flatten only", "claim": "less", "smallest": 0.01, "primary": False},
    )
    config.notes = (
        "Three convolutions with pools on 4,000 images for 20 epochs; the baseline has a dense layer of 64 units on"
        " the flattened 3×3 maps. A network that cannot fit has no gap either: so the second primary comparison asks"
        " that accuracy stays within two points. smallest: one point of gap, two points of accuracy, a factor of 1.65"
        " in parameters."
    )
    return config.lock()
