"""No norm, BatchNorm, GroupNorm and LayerNorm at three rates and three scales of the initial weights."""

from ml_collections import ConfigDict

CONDITIONS = {
    "moderate": {},
    "high rate": {"optimizer.learning_rate": 0.5},
    "very high rate": {"optimizer.learning_rate": 2.0},
    "small start": {"model.init_scale": 0.2},
    "large start": {"model.init_scale": 3.0},
}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c05"
    config.title = "Batch normalisation"
    config.claim = "BatchNorm stabilises, allows higher rates and lowers sensitivity to initialisation."
    config.source = "Ioffe & Szegedy 2015, sections 3.3 and 4.2"
    config.scale = scale
    config.baseline = "bases/digits.py"
    config.overrides = {"model.channels": (16,) * 6}
    config.factors = {
        "norm": {name: {"model.norm": name} for name in ("none", "batch", "group", "layer")},
        "condition": CONDITIONS,
    }
    config.seeds = tuple(range(10))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
        "train/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
        "diverged": {"direction": "lower", "share": True},
    }

    def loss(norm, condition):
        """What a condition costs a network without norm, less what it costs one with it."""
        plain = {"baseline": 1.0, f"none {condition}": -1.0}
        return {**plain, f"{norm} moderate": -1.0, f"{norm} {condition}": 1.0}

    config.comparisons = (
        tuple(
            {
                "name": f"loss by {condition}, none − {norm}",
                "measure": "test/accuracy",
                "contrast": loss(norm, condition),
                "claim": "greater",
                "smallest": 0.02,
                "primary": norm == "batch",
            }
            for norm in ("batch", "group", "layer")
            for condition in CONDITIONS
            if condition != "moderate"
        )
        + tuple(
            {"measure": "test/accuracy", "variant": f"{norm} moderate", "claim": "greater", "primary": False}
            for norm in ("batch", "group", "layer")
        )
        + tuple(
            {
                "measure": "diverged",
                "variant": f"batch {condition}",
                "against": f"none {condition}",
                "claim": "less",
                "primary": False,
            }
            for condition in ("high rate", "very high rate", "large start")
        )
    )
    config.notes = (
        "Six convolutions, momentum SGD at 0.05 ('moderate'), 0.5 and 2; kernels start with He's deviation, a fifth"
        " and three times of it. Sensitivity is what a condition costs compared with 'moderate', so that the primary"
        " comparisons are differences of differences. A run that diverges counts as chance, 10 %. smallest: two points."
    )
    return config.lock()
