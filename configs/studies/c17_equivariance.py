"""Shift then convolve, or convolve then shift: the difference, and how padding, strides and pools make it."""

from ml_collections import ConfigDict

INSIDE, ALL = "equivariance_error/stage2/interior", "equivariance_error/stage2/whole"
BY_STRIDE = "equivariance_error/stage2/interior_by_stride"


def get_config(scale="small"):
    if scale != "small":
        raise ValueError(f"scale {scale!r}; known: small")
    config = ConfigDict(convert_dict=False)
    config.id = "c17"
    config.title = "Equivariance to shifts"
    config.claim = "Convolution is translation-equivariant; strides, pools and padding break it."
    config.source = "Goodfellow et al. 2016, section 9.2; Zhang 2019"
    config.scale = scale
    config.baseline = "bases/mnist.py"
    config.overrides = {
        "model.pool": "none",
        "model.padding": "valid",
        "model.final_pool": "average",
        "data.splits.test": "test[:500]",
        "train.duration": {"steps": 120},
        "train.log_every": {"steps": 20},
    }
    config.variants = {
        "same padding": {"model.padding": "same"},
        "reflect padding": {"model.padding": "reflect"},
        "stride 2": {"model.stride": (2, 1)},
        "max pool": {"model.pool": "max"},
        "average pool": {"model.pool": "average"},
    }
    config.seeds = tuple(range(10))
    config.probes = ({"name": "equivariance_error", "shift": 1},)
    config.measures = {
        INSIDE: {"direction": "lower"},
        ALL: {"direction": "lower"},
        BY_STRIDE: {"direction": "lower"},
    }
    exact = {"claim": "equal", "smallest": 1e-4}
    broken = {"claim": "greater", "smallest": 1e-2}
    config.comparisons = (
        {"name": "valid, stride 1", "measure": ALL, "contrast": {"baseline": 1.0}, **exact},
        {"measure": INSIDE, "variant": "stride 2", **broken},
        {"measure": INSIDE, "variant": "max pool", **broken},
        {"measure": INSIDE, "variant": "average pool", **broken, "primary": False},
        {"measure": ALL, "variant": "same padding", **broken},
        {"measure": ALL, "variant": "reflect padding", **broken, "primary": False},
        {"name": "same padding, inside", "measure": INSIDE, "contrast": {"same padding": 1.0}, **exact},
        {"name": "stride 2, shift 2", "measure": BY_STRIDE, "contrast": {"stride 2": 1.0}, **exact},
        {"name": "max pool, shift 4", "measure": BY_STRIDE, "contrast": {"max pool": 1.0}, **exact},
    )
    config.notes = (
        "Two convolutions, hardly trained: the identity holds for any weights. The error is |f(shift x) − shift f(x)|"
        " over |f(shift x)| of the second feature map; 'interior' leaves out what sees the border. A shift of one pixel"
        " is half an element behind a stride of 2, where the map is interpolated; a shift of the whole stride is exact"
        " again. Zeros around an image are its mean grey, not black, once it is normalised. smallest: 0.0001 for"
        " 'exact', 0.01 for 'broken'."
    )
    return config.lock()
