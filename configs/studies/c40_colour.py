"""Colour images against the same images in grey."""

from ml_collections import ConfigDict


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    grey = ({"name": "resize", "size": 16}, {"name": "grey"})
    config = ConfigDict(convert_dict=False)
    config.id = "c40"
    config.title = "Colour"
    config.claim = "Colour carries information."
    config.source = "textbook"
    config.scale = scale
    config.baseline = "bases/cifar10_16px.py"
    config.variants = {"grey": {"data.transforms": {"train": grey, "evaluation": grey}}}
    config.seeds = tuple(range(10))
    config.controls = ("shuffled labels",)
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
    }
    config.comparisons = (
        {"measure": "test/accuracy", "variant": "grey", "claim": "less", "smallest": 0.01},
        {"measure": "gap", "variant": "grey", "claim": "greater", "primary": False},
    )
    config.notes = (
        "Grey is the luma (ITU-R 601-2), written to all three channels, so that the network and its parameters are the"
        " same. Both are normalised by their own mean and deviation. 8,000 images of 16×16, 10 epochs. smallest: one"
        " point of accuracy."
    )
    return config.lock()
