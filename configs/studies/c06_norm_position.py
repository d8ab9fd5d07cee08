"""BatchNorm before or behind the activation."""

from ml_collections import ConfigDict


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c06"
    config.title = "The place of BatchNorm"
    config.claim = "BatchNorm belongs before the activation."
    config.source = "Ioffe & Szegedy 2015, section 3.2"
    config.scale = scale
    config.baseline = "bases/cifar10_16px.py"
    config.overrides = {"model.norm": "batch", "model.channels": (16, 32, 64), "model.convolutions": (1, 2, 2)}
    config.variants = {"conv-act-norm": {"model.norm_position": "after"}}
    config.seeds = tuple(range(20))
    config.controls = ("null",)
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "test/loss": {"direction": "lower"},
        "train/accuracy": {"direction": "higher", "share": True},
    }
    before = {"contrast": {"baseline": 1.0, "conv-act-norm": -1.0}, "name": "before − behind"}
    config.comparisons = (
        {**before, "measure": "test/accuracy", "claim": "greater", "smallest": 0.005},
        {**before, "measure": "test/loss", "claim": "less", "primary": False},
        {**before, "measure": "train/accuracy", "claim": "greater", "primary": False},
    )
    config.notes = (
        "Five convolutions; the baseline has the norm before the activation. Twenty seeds, because a small difference"
        " is expected. One rate, 0.002, for both. Behind the activation the convolutions keep their biases, which the"
        " norm would cancel before it. smallest: half a point of accuracy."
    )
    return config.lock()
