"""ResNets with converted weights give the logits and feature maps of torchvision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.weights.resnet import convert_resnet


def shapes(name, **arguments):
    model = models.create(name, num_classes=1000, **arguments)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return model, jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_logits_equal_torchvision(name, golden):
    state, x, meta = golden.load(name)
    model, expected = shapes(name)
    variables = convert_resnet(state, expected)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, expected)

    @jax.jit
    def run(variables, x):
        return model.apply(variables, x, train=False), model.apply(variables, x, train=False, method="features")

    logits, maps = run(variables, jnp.asarray(x))
    bound = max(1e-4, 100 * meta["float32_vs_float64"]["logits"])
    taps = {"stem": "relu", **{f"stage{i}": f"layer{i}" for i in range(1, 5)}}
    # In the order of the network: the first that differs is where the fault is.
    for ours, theirs in taps.items():
        assert golden.compare(maps[ours], meta["taps"][theirs]) <= bound, ours
    assert golden.compare(logits, meta["outputs"]["logits"]) <= bound


@pytest.fixture(scope="module")
def small_state(golden):
    """The state dict of a ResNet-18, without the values: zeros of the right shapes."""
    _, _, meta = golden.load("resnet18")
    return {key: np.zeros(shape, np.float32) for key, (shape, *_) in meta["tensors"].items()}


def test_missing_unused_and_differing_keys_are_all_named(small_state):
    _, variables = shapes("resnet18")
    state = dict(small_state)
    del state["layer2.0.downsample.0.weight"]
    del state["bn1.running_var"]
    state["layer9.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    state["aux.weight"] = np.zeros(3, np.float32)
    state["fc.weight"] = np.zeros((10, 512), np.float32)
    with pytest.raises(UserError) as caught:
        convert_resnet(state, variables)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "batch_stats/backbone/stem/norm/var, params/backbone/stage2/block1/shortcut/conv/kernel have no key",
        "the keys aux.weight, layer9.0.conv1.weight have no place",
        "fc.weight (512, 10) but params/head/output/kernel (512, 1000)",
    ):
        assert part in message


def test_a_deeper_model_has_leaves_without_a_key(small_state):
    _, variables = shapes("resnet34")
    with pytest.raises(UserError, match=r"params/backbone/stage1/block3/conv1/kernel.* have no key"):
        convert_resnet(small_state, variables)


def test_a_shallower_model_has_no_place_for_keys(golden):
    _, _, meta = golden.load("resnet50")
    state = {key: np.zeros(shape, np.float32) for key, (shape, *_) in meta["tensors"].items()}
    _, variables = shapes("resnet18")
    with pytest.raises(UserError, match=r"layer1\.0\.conv3\.weight.* have no place in the model"):
        convert_resnet(state, variables)
