"""80 to 50,000 training images in factors of five, the same number of steps: the exponent of the learning curve."""

from ml_collections import ConfigDict

SIZES = (80, 400, 2000, 10000, 50000)
LOG_5 = 1.6094379124341003
"""The distance of neighbouring sizes on the axis of ln n."""


def slope(names, positions):
    """The contrast that is the slope of a least-squares line through the values at these positions."""
    mean = sum(positions) / len(positions)
    squares = sum((position - mean) ** 2 for position in positions)
    return {name: (position - mean) / squares for name, position in zip(names, positions, strict=True)}


def images(count):
    return {"data.wrappers.train": ({"name": "class_subset", "per_class": count // 10, "seed": 0},)}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    names = ("baseline", *(f"{size} images" for size in SIZES[1:]))
    config = ConfigDict(convert_dict=False)
    config.id = "c32"
    config.title = "Amount of data"
    config.claim = "CNNs need much data."
    config.source = "textbook; power laws: Hestness et al. 2017"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {**images(SIZES[0]), "train.duration": {"steps": 2000}, "train.log_every": {"steps": 200}}
    config.variants = {f"{size} images": images(size) for size in SIZES[1:]}
    config.seeds = tuple(range(8))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "error": {"of": {"test/error": 1.0}, "log": True, "direction": "lower"},
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
    }
    config.comparisons = (
        {
            "name": "exponent: slope of ln error over ln n",
            "measure": "error",
            "contrast": slope(names, [index * LOG_5 for index in range(len(SIZES))]),
            "claim": "less",
            "smallest": 0.1,
        },
        *(
            {"measure": "test/accuracy", "variant": name, "against": names[index], "claim": "greater", "primary": False}
            for index, name in enumerate(names[1:])
        ),
    )
    config.notes = (
        "Each smaller set is a part of the larger ones. All train for 2,000 steps of 50 images: 1,250 epochs of the"
        " smallest set, two of the largest, so that the amount of data is not an amount of steps. The primary"
        " comparison is the exponent of the error as a power of n. smallest: 0.1, with which ten times the data take a"
        " fifth of the errors away."
    )
    return config.lock()
