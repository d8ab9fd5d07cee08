"""A convolutional network against multilayer perceptrons: one of as many parameters, and wider ones."""

from ml_collections import ConfigDict


def mlp(*hidden):
    return {"model": {"name": "mlp", "in_channels": 1, "hidden": hidden}}


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c01"
    config.title = "Weight sharing"
    config.claim = "Weight sharing needs fewer parameters than an MLP, and does better."
    config.source = "LeCun et al. 1998, section II; textbook"
    config.scale = scale
    config.baseline = "bases/fashion_mnist.py"
    # 80 + 1,241 + 4,260 = 5,581 parameters; an MLP of 7 hidden units on 784 pixels has 5,575, one of 256 has 203,530.
    cnn = {"name": "classic_stack", "in_channels": 1, "channels": (8, 17), "kernel_size": 3, "dense": ()}
    wide = {**cnn, "channels": (16, 32), "padding": "same"}  # 20,490 parameters
    config.overrides = mlp(7)
    config.variants = {"mlp 32": mlp(32), "mlp 256": mlp(256), "cnn": {"model": cnn}, "cnn wide": {"model": wide}}
    config.seeds = tuple(range(10))
    config.controls = ("null", "shuffled labels")
    config.measures = {
        "test/accuracy": {"direction": "higher", "share": True},
        "gap": {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}, "direction": "lower", "share": True},
        "parameters": {"direction": "lower"},
        "number of parameters": {"of": {"parameters": 1.0}, "log": True, "direction": "lower"},
        "multiply_accumulates": {"direction": "lower"},
    }
    config.comparisons = (
        {"measure": "test/accuracy", "variant": "cnn", "claim": "greater", "smallest": 0.01},
        {"measure": "test/accuracy", "variant": "cnn wide", "against": "mlp 256", "claim": "greater", "smallest": 0.01},
        {"measure": "test/accuracy", "variant": "cnn", "against": "mlp 256", "claim": "greater", "primary": False},
        {
            "measure": "test/accuracy",
            "variant": "cnn",
            "against": "mlp 32",
            "claim": "greater",
            "smallest": 0.01,
            "primary": False,
        },
        {
            "measure": "number of parameters",
            "variant": "cnn wide",
            "against": "mlp 256",
            "claim": "less",
            "smallest": 1.0,
        },
    )
    config.notes = (
        "The baseline is the MLP with the CNN's number of parameters (5,575 and 5,581); 'mlp 256', with 36 times as"
        " many, turned out to be about as accurate, 'cnn wide' has a tenth of those. 'cnn' has no padding, 'cnn wide'"
        " has; both are two 3×3 convolutions with pools and a linear layer. All train on the same 4,000 images for 20"
        " epochs of Adam at one rate, 0.002. smallest: one point of accuracy, a factor of e in parameters."
    )
    return config.lock()
