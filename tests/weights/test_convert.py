"""Conversion refuses what does not fit, names all of it, and changes head and stem only as asked."""

import logging

import jax
import numpy as np
import pytest

from cnn_jax import weights
from cnn_jax.errors import UserError

GOLDEN_NAMES = {"resnetv2_50": "timm_resnetv2_50", "googlenet": "googlenet_aux"}
"""Models whose golden references have other names."""


@pytest.fixture(scope="module")
def zeros(golden):
    """`name -> state`: a golden reference's state dict without its values."""

    def state(name):
        _, _, meta = golden.load(GOLDEN_NAMES.get(name, name))
        return {key: np.zeros(shape, np.float32) for key, (shape, *_) in meta["tensors"].items()}

    return state


def test_missing_unused_and_differing_keys_are_all_named(zeros):
    state = zeros("resnet18")
    del state["layer2.0.downsample.0.weight"]
    del state["bn1.running_var"]
    state["layer9.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    state["aux.weight"] = np.zeros(3, np.float32)
    state["layer1.0.conv1.weight"] = np.zeros((10, 64, 3, 3), np.float32)
    with pytest.raises(UserError) as caught:
        weights.convert("resnet18", state)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "batch_stats/backbone/stem/norm/var, params/backbone/stage2/block1/shortcut/conv/kernel have no key",
        "the keys aux.weight, layer9.0.conv1.weight have no place",
        "layer1.0.conv1.weight (3, 3, 64, 10) but params/backbone/stage1/block1/conv1/kernel (3, 3, 64, 64)",
    ):
        assert part in message


@pytest.mark.parametrize("key", ["features.20.conv.0.0.weight", "features.1.conv.3.weight", "features.18.2.weight"])
def test_keys_without_a_place_are_named(key, zeros):
    with pytest.raises(UserError, match=rf"the keys {key} have no place in the model$"):
        weights.convert("mobilenet_v2", {**zeros("mobilenet_v2"), key: np.zeros(1, np.float32)})


def test_a_deeper_model_has_leaves_without_a_key(zeros):
    with pytest.raises(UserError, match=r"params/backbone/stage1/block3/conv1/kernel.* have no key"):
        weights.convert("resnet34", zeros("resnet18"))


def test_a_shallower_model_has_no_place_for_keys(zeros):
    with pytest.raises(UserError, match=r"layer1\.0\.conv3\.weight.* have no place in the model"):
        weights.convert("resnet18", zeros("resnet50"))


def test_a_state_without_a_head(zeros):
    state = zeros("resnet18")
    del state["fc.weight"]
    with pytest.raises(UserError, match=r"fc\.weight is not among the 121 keys"):
        weights.convert("resnet18", state)


def test_a_model_without_a_key_map():
    with pytest.raises(UserError, match="unknown model with torch weights 'resent18'; did you mean 'resnet18'"):
        weights.convert("resent18", {})


def test_variables_of_another_model(zeros):
    variables = weights.convert("resnet18", zeros("resnet18"))
    variables["params"]["other"] = {"kernel": np.zeros(3)}
    with pytest.raises(UserError, match="none of model 'resnet18': params/other/kernel"):
        weights.to_torch("resnet18", variables)


def test_another_number_of_classes_is_refused_unless_asked_for(zeros, caplog):
    state = zeros("resnet18")
    message = r"1000 classes, the model 7: give new_head=.* to initialise params/head/output/bias, params/head/output/k"
    with pytest.raises(UserError, match=message):
        weights.convert("resnet18", state, num_classes=7)
    with caplog.at_level(logging.WARNING):
        variables = weights.convert("resnet18", state, num_classes=7, new_head=jax.random.key(0))
    assert "initialised anew for 7 classes: params/head/output/bias, params/head/output/kernel" in caplog.text
    assert variables["params"]["head"]["output"]["kernel"].shape == (512, 7)
    assert float(np.abs(variables["params"]["head"]["output"]["kernel"]).max()) > 0
    assert float(np.abs(variables["params"]["backbone"]["stage1"]["block1"]["conv1"]["kernel"]).max()) == 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_the_stem_adapts_to_the_channels(channels, zeros):
    state = zeros("resnet18")
    state["conv1.weight"] = np.random.default_rng(0).standard_normal((64, 3, 7, 7), dtype=np.float32)
    kernel = weights.convert("resnet18", state, in_channels=channels)["params"]["backbone"]["stem"]["conv"]["kernel"]
    given = np.moveaxis(state["conv1.weight"], (1, 0), (-2, -1))
    assert kernel.shape == (7, 7, channels, 64)
    if channels == 1:
        np.testing.assert_allclose(kernel[:, :, 0], given.sum(axis=2), rtol=1e-6)
    else:
        for channel in range(channels):
            np.testing.assert_allclose(kernel[:, :, channel], given[:, :, channel % 3] * 3 / channels, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "key", "shape", "message"),
    [
        ("squeezenet1_1", "features.0.weight", (64,), r"shapes differ: features\.0\.weight \(64,\)"),
        (
            "squeezenet1_1",
            "features.3.squeeze.weight",
            (16,),
            r"squeeze\.weight \(16,\) \(it needs 2 axes\) but params/",
        ),
        ("squeezenet1_1", "classifier.1.weight", (0, 512, 1, 1), "and none of size 0"),
        ("squeezenet1_1", "features.0.weight", (64, 0, 3, 3), "and none of size 0"),
        ("alexnet", "classifier.1.weight", (4096, 8960), "it needs 2 axes, the second a multiple of 36"),
        ("resnetv2_50", "head.fc.weight", (1000, 2048), "it needs 4 axes"),
        ("resnetv2_50", "head.fc.weight", (1000, 2048, 1, 2), "its last 2 axes must be of size 1"),
    ],
)
def test_tensors_of_a_wrong_rank_or_size_are_named(name, key, shape, message, zeros):
    state = zeros(name)
    assert key in state
    with pytest.raises(UserError, match=message) as caught:
        weights.convert(name, {**state, key: np.zeros(shape, np.float32)})
    assert "\n" not in str(caught.value)


def test_classes_of_0_are_not_the_states(zeros):
    with pytest.raises(UserError, match="num_classes"):
        weights.convert("squeezenet1_1", zeros("squeezenet1_1"), num_classes=0)


@pytest.mark.parametrize("dtype", ["int8", "bool", "complex64", "U1"])
def test_what_is_not_of_real_numbers_is_refused(dtype, zeros):
    state = {**zeros("squeezenet1_1"), "features.0.bias": np.zeros(64, dtype)}
    with pytest.raises(UserError, match=r"features\.0\.bias has the type .*, not of real numbers"):
        weights.convert("squeezenet1_1", state)


def test_channels_are_summed_in_float32_and_nothing_becomes_infinite(zeros):
    state = zeros("squeezenet1_1")
    stem = {**state, "features.0.weight": np.full((64, 3, 3, 3), 60000, np.float16)}
    variables = weights.convert("squeezenet1_1", stem, in_channels=1)
    assert float(variables["params"]["backbone"]["stem"]["conv"]["kernel"].max()) == 180000
    with pytest.raises(UserError, match=r"features\.0\.bias has numbers that float32 cannot hold"):
        weights.convert("squeezenet1_1", {**state, "features.0.bias": np.full(64, 1e300)})


def test_only_all_variables_of_a_model_become_torchs(zeros):
    with pytest.raises(UserError, match=r"params/backbone/.*params/head/output/kernel are missing"):
        weights.to_torch("squeezenet1_1", {})
    variables = weights.convert("resnet18", zeros("resnet18"))
    with pytest.raises(UserError, match=r"batch_stats/backbone/stem/norm/mean.* are missing$"):
        weights.to_torch("resnet18", {"params": variables["params"]})
    with pytest.raises(UserError, match=r"conv3/kernel.* are missing; shapes differ: .*params/.* instead of"):
        weights.to_torch("resnet50", variables)


def test_auxiliary_tensors_that_are_left_out_are_told(zeros, caplog):
    with caplog.at_level(logging.WARNING):
        variables = weights.convert("googlenet", zeros("googlenet"))
    assert not any("auxiliary" in name for name in variables["params"])
    assert "auxiliary tensors of the weights are left out; auxiliary=True takes them" in caplog.text
