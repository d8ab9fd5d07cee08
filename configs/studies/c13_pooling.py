"""Max, average and L2 pooling, and no pooling at all."""

from ml_collections import ConfigDict

VARIANTS = {"average": {"model.pool": "average"}, "L2": {"model.pool": "l2"}, "none": {"model.pool": "none"}}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c13"
    config.title = "Kinds of pooling"
    config.claim = "Max pooling beats average pooling."
    config.source = "Scherer et al. 2010; textbook"
    config.scale = scale
    config.baseline = "bases/cifar10_16px.py"
    config.overrides = {"model.final_pool": "average"}
    config.variants = VARIANTS
    config.seeds = tuple(range(10))
    config.controls = ("null",)
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        "multiply_accumulates": {"direction": "lower"},
    }
    config.comparisons = tuple(
        {
            "name": f"max − {name}",
            "measure": "test/accuracy",
            "contrast": {"baseline": 1.0, name: -1.0},
            "claim": "greater",
            "smallest": 0.01,
            "primary": name == "average",
        }
        for name in VARIANTS
    )
    config.notes = (
        "Three convolutions, each with a pool, and the mean over space before the linear layer, so that all variants"
        " have the same parameters. Without pools the maps stay 16×16 and a unit of the last one sees 7×7 pixels"
        " instead of 22×22. One rate, 0.002. smallest: one point of accuracy."
    )
    return config.lock()
