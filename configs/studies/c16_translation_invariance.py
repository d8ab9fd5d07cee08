"""No pooling against pools and strides: does the answer stay when the image moves by a few pixels?"""

from ml_collections import ConfigDict

SHIFTS = (1, 2, 3, 4)


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c16"
    config.title = "Invariance to shifts"
    config.claim = "Pooling gives local translation invariance."
    config.source = "LeCun et al. 1998, section II-A; against it: Zhang 2019, Azulay & Weiss 2019"
    config.scale = scale
    config.baseline = "bases/mnist.py"
    config.overrides = {"model.pool": "none", "data.splits.test": "test[:1000]"}
    config.variants = {
        "max": {"model.pool": "max"},
        "average": {"model.pool": "average"},
        "stride": {"model.stride": 2},
    }
    config.seeds = tuple(range(10))
    config.probes = ({"name": "shift_consistency", "shifts": SHIFTS},)
    config.measures = {
        "shift_consistency": {"direction": "higher", "share": True},
        **{f"shift_consistency/{shift}": {"direction": "higher", "share": True} for shift in SHIFTS},
        "test/accuracy": {"direction": "higher", "share": True},
    }
    config.comparisons = (
        {"measure": "shift_consistency", "variant": "max", "claim": "greater", "smallest": 0.01},
        {"measure": "shift_consistency", "variant": "max", "against": "stride", "claim": "greater", "smallest": 0.01},
        *(
            {"measure": f"shift_consistency/{shift}", "variant": "max", "claim": "greater", "primary": False}
            for shift in SHIFTS
        ),
        {"measure": "shift_consistency", "variant": "average", "claim": "greater", "primary": False},
        {"measure": "test/accuracy", "variant": "max", "claim": "greater", "primary": False},
    )
    config.notes = (
        "MNIST, whose digits all stand in the middle: nothing in the data asks for invariance. The maps are flattened,"
        " so that the linear layer sees where things are. 'stride' has maps of the same size as the pools give."
        " Consistency is the share of test images whose class stays the same, over shifts of 1 to 4 pixels. smallest:"
        " one point."
    )
    return config.lock()
