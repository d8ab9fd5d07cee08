"""Augmentations one at a time and together, on few images: what do they do to the gap, and which does most?"""

from ml_collections import ConfigDict

FLIP = {"name": "random_flip"}
CROP = {"name": "random_crop", "padding": 2}
ROTATION = {"name": "random_rotation", "degrees": 15.0}
ZOOM = {"name": "random_zoom", "factors": (0.8, 1.25)}
COLOUR = {"name": "colour_jitter"}
CUTOUT = {"name": "cutout", "length": 6}
MIXUP = {"name": "mixup", "alpha": 1.0}
CUTMIX = {"name": "cutmix", "alpha": 1.0, "probability": 0.5}
AUGMENTATIONS = {
    "flip": (FLIP,),
    "crop": (CROP,),
    "rotation": (ROTATION,),
    "zoom": (ZOOM,),
    "colour jitter": (COLOUR,),
    "cutout": (CUTOUT,),
    "mixup": (MIXUP,),
    "cutmix": (CUTMIX,),
    "all": (FLIP, CROP, ROTATION, ZOOM, COLOUR, CUTOUT, CUTMIX),
}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c10"
    config.title = "Augmentation"
    config.claim = "Augmentation reduces overfitting."
    config.source = "Krizhevsky et al. 2012; DeVries & Taylor 2017; Zhang et al. 2018; Yun et al. 2019; textbook"
    config.scale = scale
    config.baseline = "bases/cifar10_16px.py"
    config.overrides = {
        "model.channels": (16, 32, 64),
        "data.wrappers.train": ({"name": "class_subset", "per_class": 200, "seed": 0},),
        "train.duration": {"steps": 2000},
        "train.log_every": {"steps": 200},
    }
    config.variants = {name: {"data.augment": nodes} for name, nodes in AUGMENTATIONS.items()}
    config.seeds = tuple(range(8))
    config.measures = {
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        "test/accuracy": {"direction": "higher", "share": True},
        "test/loss": {"direction": "lower"},
    }
    config.comparisons = (
        *({"measure": "gap", "variant": name, "claim": "less", "smallest": 0.01} for name in AUGMENTATIONS),
        *(
            {"measure": "test/accuracy", "variant": name, "claim": "not_less", "smallest": 0.01, "primary": False}
            for name in AUGMENTATIONS
        ),
        *(
            {"measure": "test/accuracy", "variant": "all", "against": name, "claim": "greater", "primary": False}
            for name in AUGMENTATIONS
            if name != "all"
        ),
    )
    config.notes = (
        "2,000 images for 50 epochs, so that the baseline can learn them by heart. Both sides of the gap are measured"
        " on images without augmentation. 'all' is every one but mixup, with cutmix for half of the images. Strengths"
        " are usual ones, scaled to 16 pixels, and not tuned. The verdict rests on the gaps; which augmentation does"
        " most is what the table says. smallest: one point of either."
    )
    return config.lock()
