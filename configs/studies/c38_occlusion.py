"""Squares of growing size over the images, for networks trained without and with cutout and random erasing."""

from ml_collections import ConfigDict

SIZES = (4, 8, 12)
VARIANTS = {
    "cutout": ({"name": "cutout", "length": 10},),
    "random erasing": ({"name": "random_erasing", "probability": 0.5},),
}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c38"
    config.title = "Occlusion"
    config.claim = "Occlusion is survivable; random erasing helps."
    config.source = "DeVries & Taylor 2017; Zhong et al. 2020, section 4; textbook"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.overrides = {"data.splits.test": "test[:2000]"}
    config.variants = {name: {"data.augment": nodes} for name, nodes in VARIANTS.items()}
    config.seeds = tuple(range(10))
    config.probes = ({"name": "occlusion_accuracy", "sizes": SIZES},)
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        **{f"occlusion_accuracy/{size}": {"direction": "higher", "share": True} for size in SIZES},
        **{
            f"drop by {size} px": {
                "of": {"test/accuracy": 1.0, f"occlusion_accuracy/{size}": -1.0},
                "direction": "lower",
                "share": True,
            }
            for size in SIZES
        },
    }
    drop = {"contrast": {"baseline": 1.0}, "claim": "not_greater", "smallest": 0.05}
    config.comparisons = (
        {"name": "drop by 4 of 28 px", "measure": "drop by 4 px", **drop},
        {"name": "drop by 8 of 28 px", "measure": "drop by 8 px", **drop},
        *(
            {"measure": "occlusion_accuracy/8", "variant": name, "claim": "greater", "smallest": 0.01}
            for name in VARIANTS
        ),
        {"name": "drop by 12 of 28 px", "measure": "drop by 12 px", **drop, "primary": False},
        *(
            {"measure": measure, "variant": name, "claim": "greater", "smallest": 0.01, "primary": False}
            for measure in ("occlusion_accuracy/12", "test/accuracy")
            for name in VARIANTS
        ),
    )
    config.notes = (
        "Squares of 4, 8 and 12 pixels, 2, 8 and 18 % of the image, of the training images' mean grey, at random"
        " places that are the same for all networks. 'Survivable' is taken as: at most five points of accuracy. In"
        " training, cutout paints a square of 10 pixels black in every image, random erasing a rectangle of 2 to 40 %"
        " with noise in every second one. smallest: those five points; one point between trainings."
    )
    return config.lock()
