"""Stride 1, 2 and 4 in the first convolution: accuracy against compute."""

from ml_collections import ConfigDict

VARIANTS = {"stride 2": {"model.stride": (2, 1)}, "stride 4": {"model.stride": (4, 1)}}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c22"
    config.title = "Stride"
    config.claim = "Stride trades accuracy for compute."
    config.source = "textbook"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {
        "model.final_pool": "average",
        "optimizer.learning_rate": 5e-3,
    }
    config.variants = VARIANTS
    config.seeds = tuple(range(10))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "multiply_accumulates": {"direction": "lower"},
        "compute": {"of": {"multiply_accumulates": 1.0}, "log": True, "direction": "lower"},
        "speed": {"of": {"examples_per_second": 1.0}, "log": True, "direction": "higher"},
    }
    config.comparisons = (
        *({"measure": "test/accuracy", "variant": name, "claim": "less", "smallest": 0.005} for name in VARIANTS),
        *({"measure": "compute", "variant": name, "claim": "less", "smallest": 0.5} for name in VARIANTS),
        *({"measure": "speed", "variant": name, "claim": "greater", "primary": False} for name in VARIANTS),
    )
    config.notes = (
        "Two convolutions with pools and the mean over space, so that all variants have the same parameters; stride 4"
        " leaves 7×7 pixels of 28×28 before the first pool. One rate, 0.005. Speed is that of training; of runs that"
        " shared a program it is the program's. smallest: half a point of accuracy, a factor of 1.65 in"
        " multiply-accumulates."
    )
    return config.lock()
