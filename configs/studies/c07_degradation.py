"""Plain and residual networks of growing depth: does depth hurt, in training error too, and do shortcuts mend it?

The full scale is He et al.'s: 20 to 110 layers on CIFAR-10, 64,000 steps. Run it on a GPU.
"""

from ml_collections import ConfigDict

DEPTHS = {"small": (8, 20, 44), "full": (20, 32, 44, 56, 110)}
DEEP = {"small": 44, "full": 56}
SMALLEST = {"small": 0.02, "full": 0.005}


def get_config(scale="small"):
    if scale not in DEPTHS:
        raise ValueError(f"scale {scale!r}; known: small, full")
    shallow, deep, smallest = DEPTHS[scale][0], DEEP[scale], SMALLEST[scale]
    model = {"name": "resnet_cifar", "depth": shallow, "shortcut": "none"}
    depths = {f"{depth} layers": {"model.depth": depth} for depth in DEPTHS[scale]}
    config = ConfigDict(convert_dict=False)
    config.id = "c07"
    config.title = "Degradation with depth"
    config.claim = "Plain networks degrade with depth, also in training error; residual networks do not."
    config.source = "He et al. 2016, section 4.2, figure 6 and table 6"
    config.scale = scale
    if scale == "full":
        config.baseline = "../classification/cifar10_resnet20.py"
        config.overrides = {
            "model": model,
            "data.splits": {"train": "train", "test": "test"},
            "data.resident": True,
            "train.steps_per_dispatch": 100,
            "train.evaluate_every": {"steps": 64_000},
            "train.save_every": {"steps": 16_000},
            "train.keep_checkpoints": 1,
            "train.evaluate_training": True,
            "train.figures": False,
        }
        depths["110 layers"]["schedule.warmup"] = {"steps": 400}
        config.notes = (
            "The recipe of section 4.2 on all 50,000 training images. For 110 layers the paper starts at the rate 0.01"
            " until the training error is below 80 %, about 400 steps; here the rate rises over the first 400 steps."
            " Published errors of the residual networks: 8.75, 7.51, 7.17, 6.97 and 6.43 % (best of 5 for 110 layers)."
            " Accuracy on the training images is measured without augmentation, the paper's curves are with it."
            " smallest: half a point of accuracy."
        )
    else:
        config.baseline = "bases/fashion_mnist.py"
        size = ({"name": "resize", "size": 14},)
        config.overrides = {
            "model": {**model, "in_channels": 1, "width": 8},
            "data.transforms": {"train": size, "evaluation": size},
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "l2": 1e-4},
            "train.duration": {"steps": 800},
            "train.log_every": {"steps": 80},
        }
        config.notes = (
            "Half as wide as the paper's networks, on 4,000 images of 14×14 for 10 epochs, so that 44 layers train on"
            " two cores; no augmentation, so that training error is what the optimizer sees. One rate, 0.1 with a"
            " cosine, for all. smallest: two points of accuracy."
        )
    config.factors = {"kind": {"plain": {}, "residual": {"model.shortcut": "A"}}, "depth": depths}
    config.seeds = tuple(range(8 if scale == "small" else 5))
    config.measures = {
        "train/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
        "test/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
    }
    plain = {f"plain {deep} layers": 1.0, "baseline": -1.0}
    residual = {f"residual {deep} layers": 1.0, f"residual {shallow} layers": -1.0}
    less = {name: -weight for name, weight in plain.items()}
    deepest = DEPTHS[scale][-1]
    config.comparisons = tuple(
        {"measure": f"{split}/accuracy", "smallest": smallest, **comparison}
        for split in ("train", "test")
        for comparison in (
            {"name": f"plain {deep} − plain {shallow}", "contrast": plain, "claim": "less"},
            {"name": "effect of depth, residual − plain", "contrast": {**residual, **less}, "claim": "greater"},
            {"name": f"residual {deep} − {shallow}", "contrast": residual, "claim": "not_less"},
        )
    ) + tuple(
        {
            "name": f"{kind} {deepest} − {kind} {shallow}",
            "measure": "test/accuracy",
            "contrast": {f"{kind} {deepest} layers": 1.0, name: -1.0},
            "claim": claim,
            "smallest": smallest,
            "primary": False,
        }
        for kind, name, claim in (("plain", "baseline", "less"), ("residual", f"residual {shallow} layers", "not_less"))
        if deepest != deep
    )
    return config.lock()
