"""MobileNetV2 with converted weights gives the logits and feature maps of torchvision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.weights.mobilenet_v2 import convert_mobilenet_v2

TAPS = {
    "stem": "features.0",
    **{f"stage{i}": f"features.{last}" for i, last in enumerate((1, 3, 6, 10, 13, 16, 17), start=1)},
    "final": "features.18",
}


@pytest.fixture(scope="module")
def model_and_shapes():
    model = models.create("mobilenet_v2", num_classes=1000)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return model, jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)


@pytest.mark.slow
def test_logits_equal_torchvision(golden, model_and_shapes):
    state, x, meta = golden.load("mobilenet_v2")
    model, expected = model_and_shapes
    variables = convert_mobilenet_v2(state, expected)

    @jax.jit
    def run(variables, x):
        return model.apply(variables, x, train=False), model.apply(variables, x, train=False, method="features")

    logits, maps = run(variables, jnp.asarray(x))
    assert set(maps) == set(TAPS)
    for ours, theirs in TAPS.items():
        assert golden.compare(maps[ours], meta["taps"][theirs]) <= 1e-4, ours
    assert golden.compare(logits, meta["outputs"]["logits"]) <= 1e-4


@pytest.mark.parametrize("key", ["features.20.conv.0.0.weight", "features.1.conv.3.weight", "features.18.2.weight"])
def test_keys_without_a_place_are_named(key, golden, model_and_shapes):
    _, _, meta = golden.load("mobilenet_v2")
    state = {name: np.zeros(shape, np.float32) for name, (shape, *_) in meta["tensors"].items()}
    with pytest.raises(UserError, match=rf"the keys {key} have no place in the model$"):
        convert_mobilenet_v2({**state, key: np.zeros(1, np.float32)}, model_and_shapes[1])
