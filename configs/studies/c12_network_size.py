"""Networks of 8 to 128 channels on 1,000 images: how does the gap grow with the width?"""

from ml_collections import ConfigDict

DOUBLINGS = (3, 4, 5, 6, 7)
WIDTHS = tuple(2**doublings for doublings in DOUBLINGS)


def slope(names, positions):
    """The contrast that is the slope of a least-squares line through the values at these positions."""
    mean = sum(positions) / len(positions)
    squares = sum((position - mean) ** 2 for position in positions)
    return {name: (position - mean) / squares for name, position in zip(names, positions, strict=True)}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    names = ("baseline", *(f"width {width}" for width in WIDTHS[1:]))
    per_doubling = slope(names, DOUBLINGS)
    config = ConfigDict(convert_dict=False)
    config.id = "c12"
    config.title = "Network size"
    config.claim = "A smaller network overfits less."
    config.source = "textbook; against it: Belkin et al. 2019, Nakkiran et al. 2020"
    config.scale = scale
    config.baseline = "bases/cifar10_16px.py"
    config.overrides = {
        "model.channels": (WIDTHS[0],) * 2,
        "data.wrappers.train": ({"name": "class_subset", "per_class": 100, "seed": 0},),
        "train.duration": {"steps": 1200},
        "train.log_every": {"steps": 120},
    }
    config.variants = {f"width {width}": {"model.channels": (width, width)} for width in WIDTHS[1:]}
    config.seeds = tuple(range(10))
    config.measures = {
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        "test/accuracy": {"direction": "higher", "share": True},
        "test/loss": {"direction": "lower"},
        "parameters": {"direction": "lower"},
    }
    trend = {"name": "slope per doubling of the width", "contrast": per_doubling}
    config.comparisons = (
        {**trend, "measure": "gap", "claim": "greater", "smallest": 0.005},
        {**trend, "measure": "test/accuracy", "claim": "not_greater", "smallest": 0.005},
        {**trend, "measure": "test/loss", "claim": "greater", "primary": False},
        {"measure": "gap", "variant": "width 128", "claim": "greater", "smallest": 0.01, "primary": False},
    )
    config.notes = (
        "Two convolutions of equal width and a linear layer, 60 epochs of Adam at one rate. The primary comparisons"
        " are the slopes over log2 of the width: of the gap, and of test accuracy, because a larger gap of a network"
        " that is better on new images, too, is no overfitting. smallest: half a point per doubling."
    )
    return config.lock()
