"""A CNN and an MLP on images and on the same images with their pixels in one fixed random order."""

from ml_collections import ConfigDict


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    permuted = ({"name": "permute_pixels", "seed": 0},)
    config = ConfigDict(convert_dict=False)
    config.id = "c02"
    config.title = "Spatial structure"
    config.claim = "MLPs ignore spatial structure, CNNs use it."
    config.source = "textbook"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    config.factors = {
        "network": {"cnn": {}, "mlp": {"model": {"name": "mlp", "in_channels": 1, "hidden": (128,)}}},
        "pixels": {"natural": {}, "permuted": {"data.transforms": {"train": permuted, "evaluation": permuted}}},
    }
    config.seeds = tuple(range(10))
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
    }
    config.comparisons = (
        {
            "name": "drop of the CNN − drop of the MLP",
            "measure": "test/accuracy",
            "contrast": {"baseline": 1.0, "cnn permuted": -1.0, "mlp natural": -1.0, "mlp permuted": 1.0},
            "claim": "greater",
            "smallest": 0.01,
        },
        {
            "name": "drop of the CNN",
            "measure": "test/accuracy",
            "contrast": {"baseline": 1.0, "cnn permuted": -1.0},
            "claim": "greater",
            "smallest": 0.01,
            "primary": False,
        },
        {
            "name": "drop of the MLP",
            "measure": "test/accuracy",
            "contrast": {"mlp natural": 1.0, "mlp permuted": -1.0},
            "claim": "equal",
            "smallest": 0.01,
        },
    )
    config.notes = (
        "The order is the same for all images, of training and test, and all runs, so that no information is lost. The"
        " claim has two parts, so two comparisons are primary: what the order costs the MLP, and what it costs the CNN"
        " less what it costs the MLP, a difference of differences. Both train on the same 4,000 images for 20 epochs of"
        " Adam at one rate. smallest: one point of accuracy."
    )
    return config.lock()
