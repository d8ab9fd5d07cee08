"""The same network on images of 32, 16 and 8 pixels."""

from ml_collections import ConfigDict


def size(pixels):
    resize = ({"name": "resize", "size": pixels},)
    return {"data.transforms": {"train": resize, "evaluation": resize}}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c39"
    config.title = "Resolution"
    config.claim = "Input resolution matters."
    config.source = "textbook; Tan & Le 2019, section 3"
    config.scale = scale
    config.baseline = "bases/cifar10_16px.py"
    config.overrides = {**size(32), "model.channels": (16, 32, 32), "model.final_pool": "average"}
    config.variants = {"16 px": size(16), "8 px": size(8)}
    config.seeds = tuple(range(10))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "multiply_accumulates": {"direction": "lower"},
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
    }
    less = {"measure": "test/accuracy", "claim": "less", "smallest": 0.01}
    config.comparisons = (
        {**less, "variant": "16 px"},
        {**less, "variant": "8 px"},
        {**less, "variant": "8 px", "against": "16 px", "primary": False},
        {"measure": "multiply_accumulates", "variant": "16 px", "claim": "less", "primary": False},
    )
    config.notes = (
        "Three convolutions with pools and the mean over space: the parameters do not depend on the size, but the"
        " share of the image that a unit of the last map sees does (22 pixels). Images are reduced with antialiasing."
        " 8,000 images, 10 epochs, one rate, 0.002. smallest: one point of accuracy."
    )
    return config.lock()
