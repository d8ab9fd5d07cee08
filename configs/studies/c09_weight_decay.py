"""L2 in the loss, decoupled weight decay and L1, each at two strengths, on few images."""

from ml_collections import ConfigDict

VARIANTS = {
    "L2 1e-3": {"optimizer.l2": 1e-3},
    "L2 1e-2": {"optimizer.l2": 1e-2},
    "decay 0.1": {"optimizer.weight_decay": 0.1},
    "decay 1": {"optimizer.weight_decay": 1.0},
    "L1 1e-4": {"optimizer.l1": 1e-4},
    "L1 1e-3": {"optimizer.l1": 1e-3},
}
MODERATE = ("L2 1e-3", "decay 0.1", "L1 1e-4")
"""The weaker one of each kind, on which the verdict rests."""


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c09"
    config.title = "Weight decay"
    config.claim = "L1 and L2 (weight decay) reduce overfitting."
    config.source = "Krogh & Hertz 1992; Loshchilov & Hutter 2019; textbook"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {
        "model.dense": (128,),
        "data.wrappers.train": ({"name": "class_subset", "per_class": 100, "seed": 0},),
    }
    config.variants = VARIANTS
    config.seeds = tuple(range(10))
    config.probes = ({"name": "sparsity", "threshold": 1e-3},)
    config.measures = {
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        "test/accuracy": {"direction": "higher", "share": True},
        "test/loss": {"direction": "lower"},
        "loss gap": {"of": {"test/loss": 1.0, "train/loss": -1.0}, "direction": "lower"},
        "sparsity": {"direction": "higher", "share": True},
    }
    config.comparisons = (
        *(
            {"measure": measure, "variant": name, "claim": claim, "smallest": 0.01, "primary": name in MODERATE}
            for measure, claim in (("gap", "less"), ("test/accuracy", "not_less"))
            for name in VARIANTS
        ),
        *(
            {"measure": measure, "variant": name, "claim": "less", "primary": False}
            for measure in ("test/loss", "loss gap")
            for name in VARIANTS
        ),
        *(
            {"measure": "sparsity", "variant": name, "claim": "greater", "smallest": 0.01, "primary": False}
            for name in VARIANTS
        ),
    )
    config.notes = (
        "The comparisons of losses were added after the runs, to see where accuracy and loss tell of overfitting"
        " alike. The verdict rests on the weaker strength of each kind. 1,000 images for 80 epochs of Adam at 0.002. L1"
        " and L2 are added to the gradient, so that Adam scales them; the decoupled decay is not scaled: 0.1 takes 0.02"
        " % of each weight at every step of the full rate. All parameters are decayed, biases too. Sparsity is the"
        " share of weights below 0.001 in magnitude. Overfitting is reduced where the gap is smaller and accuracy is"
        " not lower. smallest: one point of gap, accuracy and sparsity."
    )
    return config.lock()
