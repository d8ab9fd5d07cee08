"""Initial values made of training images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.ops.conv import convolve
from cnn_jax.ops.whitening import whitening_filters
from cnn_jax.train.run import build

PLACE = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}


@pytest.fixture
def whitened_config(tiny_config):
    tiny_config["model"] = {"name": "airbench94", "in_channels": 1, "widths": (8,)}
    tiny_config["init"] = {"name": "whitening", "examples": 60}
    tiny_config["parameter_groups"] = ({"pattern": "backbone/whiten/kernel", "frozen": True}, {"pattern": ".*"})
    return tiny_config


def test_the_responses_of_the_filters_are_uncorrelated():
    generator = np.random.default_rng(0)
    images = generator.standard_normal((700, 6, 5, 2)).astype(np.float32)
    images[..., 1] += 0.7 * images[..., 0]  # correlated channels and pixels
    images[:, 1:] += 0.5 * images[:, :-1]
    epsilon = 0.05
    filters = whitening_filters(images, window=(2, 2), epsilon=epsilon)
    assert filters.shape == (2, 2, 2, 16)
    np.testing.assert_array_equal(filters[..., 8:], -filters[..., :8])
    # [700, 5, 4, 8] -> [700 * 5 * 4, 8]
    responses = np.asarray(convolve(jnp.asarray(images), jnp.asarray(filters[..., :8]), **PLACE), np.float64).reshape(
        -1, 8
    )
    moments = responses.T @ responses / len(responses)
    # Jordan 2024: eigenvectors over √(λ + ε), so λ / (λ + ε) remains.
    windows = np.lib.stride_tricks.sliding_window_view(images, (2, 2), axis=(1, 2))
    patches = windows.reshape(-1, 8).astype(np.float64)  # [700, 5, 4, C, 2, 2] -> [700 * 5 * 4, 8]
    values = np.linalg.eigvalsh(patches.T @ patches / len(patches))
    np.testing.assert_allclose(moments, np.diag(values / (values + epsilon)), atol=1e-4)


def test_a_run_starts_with_the_filters_of_its_first_images(whitened_config):
    experiment = build(whitened_config)
    state = experiment.initial_state()
    train = experiment.splits["train"]
    images = (np.float32(train.images[:60]) / 255 - np.float32(experiment.mean)) / np.float32(experiment.std)
    expected = whitening_filters(images, window=(2, 2), epsilon=5e-4)
    found = state.params["backbone"]["whiten"]["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(found, state.ema["params"]["backbone"]["whiten"]["kernel"])
    assert jax.tree.structure(experiment.abstract_state()) == jax.tree.structure(state)
    assert experiment.config.init == {"name": "whitening", "examples": 60, "layer": "backbone/whiten", "epsilon": 5e-4}


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"name": "whitenning"}, "config.init.name: unknown 'whitenning'|unknown config.init.name 'whitenning'"),
        (
            {"name": "whitening", "layer": "backbone/whitten"},
            "no kernel 'backbone/whitten/kernel'; layers with one",
        ),
        ({"name": "whitening", "layer": "backbone/stage1/conv2"}, r"kernel of shape \(3, 3, 8, 8\); whitening makes"),
        ({"name": "whitening", "examples": 0}, r"config\.init\.examples"),
    ],
)
def test_bad_initialisers_are_one_line(whitened_config, init, message):
    whitened_config["init"] = init
    with pytest.raises(UserError, match=message) as caught:
        build(whitened_config)
    assert "\n" not in str(caught.value)
