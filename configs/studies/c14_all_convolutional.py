"""Pooling against strided convolutions: Model C, Strided-CNN-C, ConvPool-CNN-C and All-CNN-C.

The full scale is the paper's table 3 without augmentation: 350 epochs, the rate chosen among four. Run it on a GPU.
"""

from ml_collections import ConfigDict

SMALLEST = {"small": 0.015, "full": 0.005}


def get_config(scale="small"):
    if scale not in SMALLEST:
        raise ValueError(f"scale {scale!r}; known: small, full")
    smallest = SMALLEST[scale]
    config = ConfigDict(convert_dict=False)
    config.id = "c14"
    config.title = "All-convolutional networks"
    config.claim = "Strided convolution can replace pooling."
    config.source = "Springenberg et al. 2015, tables 1 to 3"
    config.scale = scale
    if scale == "full":
        config.baseline = "bases/all_cnn_c.py"
        config.tuning = {"grid": {"optimizer.learning_rate": (0.25, 0.1, 0.05, 0.01)}, "seeds": (100,)}
        config.notes = (
            "Published errors: Model C 9.74, Strided-CNN-C 10.19, ConvPool-CNN-C 9.31, All-CNN-C 9.08 %, each at the"
            " best of four rates. Here each variant chooses its rate on 5,000 held-out training images, and all train"
            " on 45,000 images that are neither whitened nor normalised in contrast. smallest: half a point."
        )
    else:
        config.baseline = "bases/cifar10_16px.py"
        config.overrides = {
            "model": {
                "name": "model_c",
                "width_multiplier": 0.125,
                "norm": "batch",
                "input_dropout_rate": 0.0,
                "dropout_rate": 0.0,
            },
        }
        config.notes = (
            "An eighth of the paper's width on 16×16 images, with BatchNorm, so that nine layers start within 1,600"
            " steps, and without dropout, because networks so narrow have little to overfit with. One rate, 0.002."
            " smallest: one and a half points of accuracy."
        )
    config.variants = {
        "strided": {"model.name": "strided_cnn_c"},
        "conv+pool": {"model.name": "conv_pool_cnn_c"},
        "all convolutional": {"model.name": "all_cnn_c"},
    }
    config.seeds = tuple(range(12 if scale == "small" else 5))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
        "train/accuracy": {"direction": "higher", "share": True, "diverged": 0.1},
        "parameters": {"direction": "lower"},
        "multiply_accumulates": {"direction": "lower"},
    }
    accuracy = {"measure": "test/accuracy", "smallest": smallest}
    config.comparisons = (
        {**accuracy, "variant": "strided", "claim": "not_less"},
        {**accuracy, "variant": "all convolutional", "against": "conv+pool", "claim": "not_less"},
        {**accuracy, "variant": "all convolutional", "claim": "greater", "primary": False},
        {**accuracy, "variant": "conv+pool", "claim": "greater", "primary": False},
    )
    return config.lock()
