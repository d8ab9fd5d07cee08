"""Basic residual blocks against bottlenecks of 1×1, 3×3 and 1×1 convolutions."""

from ml_collections import ConfigDict


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c23"
    config.title = "Bottlenecks"
    config.claim = "1×1 bottlenecks save parameters at no loss."
    config.source = "He et al. 2016, section 4.1, figure 5"
    config.scale = scale
    config.baseline = "bases/cifar10_16px.py"
    config.overrides = {
        "model": {"name": "resnet_cifar", "depth": 8, "width": 16},
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "l2": 1e-4},
    }
    bottleneck = {"model.block": "bottleneck", "model.depth": 11}
    config.variants = {
        "bottleneck 16": {**bottleneck, "model.width": 4},
        "bottleneck 32": {**bottleneck, "model.width": 8},
        "bottleneck 56": {**bottleneck, "model.width": 14},
        "bottleneck 64": bottleneck,
    }
    config.seeds = tuple(range(10))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "train/accuracy": {"direction": "higher", "share": True},
        "parameters": {"direction": "lower"},
        "number of parameters": {"of": {"parameters": 1.0}, "log": True, "direction": "lower"},
        "multiply_accumulates": {"direction": "lower"},
    }
    accuracy = {"measure": "test/accuracy", "smallest": 0.015}
    config.comparisons = (
        {**accuracy, "variant": "bottleneck 16", "claim": "not_less"},
        {**accuracy, "variant": "bottleneck 32", "claim": "not_less"},
        {**accuracy, "variant": "bottleneck 56", "claim": "not_less"},
        {**accuracy, "variant": "bottleneck 64", "claim": "greater", "primary": False},
        *(
            {"measure": "number of parameters", "variant": name, "claim": "less", "smallest": 0.5}
            for name in ("bottleneck 16", "bottleneck 32")
        ),
        *(
            {"measure": "multiply_accumulates", "variant": name, "claim": "less", "primary": False}
            for name in config.variants
        ),
    )
    config.notes = (
        "One block in each of three stages. The number is the channels that the first stage gives: the basic blocks"
        " give 16, 'bottleneck 16' the same with a 3×3 convolution of 4 channels inside; 'bottleneck 56' has the"
        " multiply-accumulates of the baseline within 6 %; 'bottleneck 64' has the 3×3 convolutions of the baseline"
        " inside, which is how figure 5 compares them. One rate, 0.1, 10 epochs. smallest: one and a half points of"
        " accuracy, a factor of 1.65 in parameters."
    )
    return config.lock()
