"""VGG-like stacks of 4, 7, 10 and 19 layers of equal width."""

from ml_collections import ConfigDict

CONVOLUTIONS = {7: 2, 10: 3, 19: 6}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c25"
    config.title = "Depth"
    config.claim = "Depth matters: deeper networks are better."
    config.source = "Simonyan & Zisserman 2015, table 3"
    config.scale = scale
    config.baseline = "bases/cifar10_16px.py"
    config.overrides = {
        "model.channels": (16, 32, 64),
        "model.norm": "batch",
        "model.final_pool": "average",
    }
    config.variants = {f"{depth} layers": {"model.convolutions": count} for depth, count in CONVOLUTIONS.items()}
    config.seeds = tuple(range(8))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "train/accuracy": {"direction": "higher", "share": True},
        "parameters": {"direction": "lower"},
        "multiply_accumulates": {"direction": "lower"},
    }
    step = {"measure": "test/accuracy", "claim": "greater", "smallest": 0.01}
    config.comparisons = (
        {**step, "variant": "7 layers"},
        {**step, "variant": "10 layers", "against": "7 layers"},
        {**step, "variant": "19 layers", "against": "10 layers"},
        {**step, "variant": "10 layers", "primary": False},
        {**step, "variant": "19 layers", "primary": False},
        {**step, "measure": "train/accuracy", "variant": "19 layers", "against": "10 layers", "primary": False},
    )
    config.notes = (
        "Three stages of 1, 2, 3 or 6 convolutions and a linear layer on the means over space; the baseline has 4"
        " layers. BatchNorm, which VGG lacks: its authors began their deep networks with layers of trained shallow"
        " ones. Parameters grow with depth, as in the paper. 8,000 images, 10 epochs, one rate, 0.002. smallest: one"
        " point of accuracy."
    )
    return config.lock()
