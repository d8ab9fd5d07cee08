"""Standard against depthwise separable convolutions, of equal width and of equal multiply-accumulates."""

from ml_collections import ConfigDict


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c24"
    config.title = "Separable convolutions"
    config.claim = "Depthwise separable convolutions are far cheaper for little accuracy."
    config.source = "Howard et al. 2017, section 3.1 and table 4"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {
        "model.channels": (16, 32, 64),
        "model.norm": "batch",
        "model.final_pool": "average",
    }
    config.variants = {
        "separable": {"model.separable": True},
        "separable wide": {"model.separable": True, "model.channels": (44, 88, 174)},
    }
    config.seeds = tuple(range(10))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "compute": {"of": {"multiply_accumulates": 1.0}, "log": True, "direction": "lower"},
        "speed": {"of": {"examples_per_second": 1.0}, "log": True, "direction": "higher"},
        "multiply_accumulates": {"direction": "lower"},
        "parameters": {"direction": "lower"},
    }
    config.comparisons = (
        {"measure": "test/accuracy", "variant": "separable", "claim": "not_less", "smallest": 0.02},
        {"measure": "compute", "variant": "separable", "claim": "less", "smallest": 1.0},
        {"measure": "speed", "variant": "separable", "claim": "greater", "primary": False},
        {
            "measure": "test/accuracy",
            "variant": "separable wide",
            "claim": "greater",
            "smallest": 0.005,
            "primary": False,
        },
        {"measure": "speed", "variant": "separable wide", "claim": "greater", "primary": False},
    )
    config.notes = (
        "Three convolutions with BatchNorm, as in MobileNet; the first is a full one in all variants. 'separable wide'"
        " has 2.75 times the channels, and with them the baseline's multiply-accumulates within 3 %. Measured time is"
        " that of training on this machine. smallest: two points of accuracy ('little'), a factor of e in compute"
        " ('far')."
    )
    return config.lock()
