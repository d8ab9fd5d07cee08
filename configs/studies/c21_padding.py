"""Zero padding against none, mirrored and full padding, asked about digits at the border."""

from ml_collections import ConfigDict

VARIANTS = ("valid", "reflect", "full")


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c21"
    config.title = "Padding"
    config.claim = "Same padding keeps border information, valid padding loses it."
    config.source = "textbook"
    config.scale = scale
    config.baseline = "bases/mnist.py"
    config.overrides = {
        "model.channels": (16, 32),
        "model.kernel_size": 5,
        "model.final_pool": "average",
        "data.augment": ({"name": "random_translation", "shares": (0.25, 0.25)},),
        "data.splits.test": "test[:1000]",
    }
    config.variants = {name: {"model.padding": name} for name in VARIANTS}
    config.seeds = tuple(range(10))
    config.probes = ({"name": "accuracy_by_position", "offsets": (0, 2, 4, 6, 8)},)
    at = {offset: f"accuracy_by_position/{offset}" for offset in (0, 2, 4, 6, 8)}
    config.measures = {
        **{name: {"direction": "higher", "share": True} for name in at.values()},
        "loss at the border": {"of": {at[0]: 1.0, at[6]: -1.0}, "direction": "lower", "share": True},
        "multiply_accumulates": {"direction": "lower"},
    }
    config.comparisons = (
        {"measure": "loss at the border", "variant": "valid", "claim": "greater", "smallest": 0.01},
        {"measure": at[6], "variant": "valid", "claim": "less", "smallest": 0.01},
        {"measure": at[4], "variant": "valid", "claim": "less", "smallest": 0.01, "primary": False},
        {"measure": at[0], "variant": "valid", "claim": "less", "smallest": 0.01, "primary": False},
        *(
            {"measure": at[6], "variant": name, "claim": "equal", "smallest": 0.01, "primary": False}
            for name in ("reflect", "full")
        ),
    )
    config.notes = (
        "5×5 kernels, so that two convolutions without padding lose much: 28 pixels become 24, 12, 8 and 4. The mean"
        " over space gives all variants the same parameters. In training the digits are moved by up to 7 pixels both"
        " ways; moved by 4 a digit touches the border, by 6 and 8 it is cut. smallest: one point of accuracy."
    )
    return config.lock()
