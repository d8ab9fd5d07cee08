"""Adam, SGD without and with momentum, RMSprop and Adagrad, each at its best of the same seven rates."""

from ml_collections import ConfigDict

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
OPTIMIZERS = {
    "sgd": {"name": "sgd", "learning_rate": 1e-1},
    "momentum": {"name": "sgd", "learning_rate": 3e-2, "momentum": 0.9},
    "rmsprop": {"name": "rmsprop", "learning_rate": 1e-3},
    "adagrad": {"name": "adagrad", "learning_rate": 1e-2},
}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c30"
    config.title = "Optimizers"
    config.claim = "Adam is the safe default; SGD, RMSprop and Adagrad differ."
    config.source = "Kingma & Ba 2015; against it: Wilson et al. 2017; textbook"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {
        "model.dense": (64,),
        "data.splits.validation": "train[55000:56000]",
        "train.duration": {"steps": 800},
        "train.log_every": {"steps": 80},
        "train.evaluate_every": {"steps": 40},
    }
    config.variants = {
        **{name: {"optimizer": node} for name, node in OPTIMIZERS.items()},
        "adam untuned": {"optimizer": {"name": "adam", "learning_rate": 1e-3}},
    }
    config.tuning = {"grid": {"optimizer.learning_rate": RATES}, "seeds": (100, 101, 102)}
    config.tuning_of = {"adam untuned": {"grid": {"optimizer.learning_rate": (1e-3,)}, "seeds": (100,)}}
    config.seeds = tuple(range(10))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
        "steps to 75 %": {
            "steps_to": {"metric": "validation/accuracy", "target": 0.75, "direction": "higher"},
            "direction": "lower",
        },
        "train/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
    }
    config.comparisons = (
        *(
            {
                "name": f"Adam − {name}",
                "measure": "test/accuracy",
                "contrast": {"baseline": 1.0, name: -1.0},
                "claim": "not_less",
                "smallest": 0.01,
            }
            for name in OPTIMIZERS
        ),
        {"measure": "test/accuracy", "variant": "adam untuned", "claim": "not_less", "smallest": 0.01},
        *(
            {
                "name": f"Adam − {name}, steps to 75 %",
                "measure": "steps to 75 %",
                "contrast": {"baseline": 1.0, name: -1.0},
                "claim": "less",
                "smallest": 40.0,
                "primary": False,
            }
            for name in OPTIMIZERS
        ),
    )
    config.notes = (
        "The baseline is Adam. Every optimizer is tried at the same seven rates with three seeds on 1,000 validation"
        " images; all have a cosine schedule, and momentum 0.9 where they have one. 'adam untuned' is Adam at 0.001,"
        " its paper's default: what it loses is the price of not tuning. 'Safe' is taken as: not worse than any other,"
        " and not worse without tuning. smallest: one point, 40 steps (the interval between evaluations)."
    )
    return config.lock()
