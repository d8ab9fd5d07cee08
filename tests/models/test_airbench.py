"""airbench94 against airbench94_muon.py: geometry, initial values, what is trained."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.models.airbench import ScaledHead, partial_identity, unit_deviation


def test_maps_of_31_15_7_and_3_pixels_and_one_vector_for_the_head(random_variables):
    model = models.create("airbench94", num_classes=10)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), shapes, image)
    found = {name: leaf.shape[1:] for name, leaf in maps.items()}
    assert found == {"whiten": (31, 31, 24), "stage1": (15, 15, 64), "stage2": (7, 7, 256), "stage3": (3, 3, 256)}
    assert shapes["params"]["head"]["output"]["kernel"].shape == (256, 10)
    assert set(shapes["params"]["backbone"]["stage2"]["norm1"]) == {"bias"}


@pytest.mark.parametrize(("channels", "features"), [(3, 5), (4, 4), (5, 3)])
def test_the_first_outputs_of_a_convolution_copy_its_inputs(channels, features):
    kernel = np.asarray(partial_identity(jax.random.key(0), (3, 3, channels, features)))
    copies = min(channels, features)
    for output in range(copies):
        expected = np.zeros((3, 3, channels))
        expected[1, 1, output] = 1
        np.testing.assert_array_equal(kernel[..., output], expected)
    rest = kernel[..., copies:]
    if rest.size:
        # torch's default: uniform in ±1 / √fan-in, of deviation limit / √3
        limit = 1 / np.sqrt(9 * channels)
        assert 0.8 * limit < np.abs(rest).max() <= limit
        assert rest.std() == pytest.approx(limit / np.sqrt(3), rel=0.2)


def test_the_head_starts_with_deviation_one_and_divides_by_its_inputs():
    assert np.asarray(unit_deviation()(jax.random.key(0), (16, 10))).std(ddof=1) == pytest.approx(1, rel=1e-5)
    x = jax.random.normal(jax.random.key(1), (2, 3, 3, 16))
    kernel = jax.random.normal(jax.random.key(2), (16, 10))
    logits = ScaledHead(10).apply({"params": {"output": {"kernel": kernel}}}, x, train=False)
    np.testing.assert_allclose(logits, np.asarray(x).max(axis=(1, 2)) @ np.asarray(kernel) / 16, rtol=1e-4, atol=1e-5)


def test_whitening_filters_get_no_gradient_and_their_bias_does(random_variables):
    model = models.create("airbench94", num_classes=5, widths=(8,))
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = random_variables(model, x)

    def loss(params):
        logits, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(logits**2)

    whiten = jax.jit(jax.grad(loss))(variables["params"])["backbone"]["whiten"]
    assert not np.any(whiten["kernel"])
    assert np.all(np.abs(whiten["bias"]) > 0)
