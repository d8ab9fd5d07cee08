"""Dropout of dense units at two rates, and of whole maps, on few images."""

from ml_collections import ConfigDict

VARIANTS = {
    "dropout 0.2": {"model.dropout_rate": 0.2},
    "dropout 0.5": {"model.dropout_rate": 0.5},
    "spatial dropout 0.2": {"model.spatial_dropout_rate": 0.2},
}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c08"
    config.title = "Dropout"
    config.claim = "Dropout reduces overfitting."
    config.source = "Srivastava et al. 2014; spatial dropout: Tompson et al. 2015, section 3.2"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {
        "model.dense": (128,),
        "data.wrappers.train": ({"name": "class_subset", "per_class": 100, "seed": 0},),
    }
    config.variants = VARIANTS
    config.seeds = tuple(range(10))
    config.measures = {
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        "test/accuracy": {"direction": "higher", "share": True},
        "test/loss": {"direction": "lower"},
        "loss gap": {"of": {"test/loss": 1.0, "train/loss": -1.0}, "direction": "lower"},
        "train/accuracy": {"direction": "higher", "share": True},
    }
    config.comparisons = (
        *({"measure": "gap", "variant": name, "claim": "less", "smallest": 0.01} for name in VARIANTS),
        *({"measure": "test/accuracy", "variant": name, "claim": "not_less", "smallest": 0.01} for name in VARIANTS),
        *(
            {"measure": measure, "variant": name, "claim": "less", "primary": False}
            for measure in ("test/loss", "loss gap")
            for name in VARIANTS
        ),
    )
    config.notes = (
        "The comparisons of losses were added after the runs, to see where accuracy and loss tell of overfitting"
        " alike. 1,000 images for 80 epochs, so that the baseline can learn them by heart. The gap is accuracy on the"
        " training images, without dropout, less that on test images. Overfitting is reduced where the gap is smaller"
        " and accuracy is not lower. smallest: one point of either."
    )
    return config.lock()
