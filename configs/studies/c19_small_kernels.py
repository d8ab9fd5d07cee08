"""Two 3×3 convolutions against one 5×5, and three against one 7×7: equal receptive fields."""

from ml_collections import ConfigDict


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c19"
    config.title = "Stacked small kernels"
    config.claim = "Stacked 3×3 convolutions beat one large kernel."
    config.source = "Simonyan & Zisserman 2015, section 2.3"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {
        "model.channels": (16, 16),
        "model.kernel_size": (3, 5),
    }
    config.variants = {
        "3×3 twice": {"model.kernel_size": (3, 3), "model.convolutions": (1, 2)},
        "7×7": {"model.kernel_size": (3, 7)},
        "3×3 thrice": {"model.kernel_size": (3, 3), "model.convolutions": (1, 3)},
    }
    config.seeds = tuple(range(15))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        "parameters": {"direction": "lower"},
        "multiply_accumulates": {"direction": "lower"},
    }
    pairs = {"3×3 twice": "baseline", "3×3 thrice": "7×7"}
    config.comparisons = (
        *(
            {"measure": "test/accuracy", "variant": small, "against": large, "claim": "greater", "smallest": 0.005}
            for small, large in pairs.items()
        ),
        *(
            {"measure": measure, "variant": small, "against": large, "claim": "less", "primary": False}
            for measure in ("parameters", "multiply_accumulates")
            for small, large in pairs.items()
        ),
    )
    config.notes = (
        "The baseline has one 5×5 convolution of 16 channels in the second stage, on maps of 14×14; the first stage,"
        " which has one input channel, is a 3×3 convolution in all variants. One rate, 0.002, 20 epochs. smallest: half"
        " a point of accuracy."
    )
    return config.lock()
