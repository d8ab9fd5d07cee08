"""Resizing, against the definition of linear interpolation in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.ops.resample import resize_linear


def interpolated(x, size, axis):
    """Linear interpolation at (i + 1/2) old / new - 1/2, cut off at the first and last pixel."""
    old = x.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.floor(at).astype(int)
    share = np.expand_dims(at - low, tuple(range(1, x.ndim - axis)))
    return (1 - share) * x.take(low, axis) + share * x.take(np.minimum(low + 1, old - 1), axis)


SIZES = [((5,), (12,)), ((3, 4), (24, 31)), ((9, 7), (4, 7)), ((1, 2), (5, 5)), ((2, 3, 4), (4, 5, 2))]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_linear_interpolation_at_every_rank(old, new):
    x = np.random.default_rng(0).standard_normal((2, *old, 3))
    expected = x
    for axis, size in enumerate(new, start=1):
        expected = interpolated(expected, size, axis)
    found = resize_linear(jnp.asarray(x, jnp.float32), new)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_an_image_of_that_size_is_returned():
    x = jnp.ones((1, 3, 4, 2))
    assert resize_linear(x, (3, 4)) is x


def test_the_gradient_shares_every_pixel_out():
    x = jnp.zeros((1, 3, 5, 1))
    gradient = jax.grad(lambda x: jnp.sum(resize_linear(x, (12, 20))))(x)
    np.testing.assert_allclose(gradient, 16.0, rtol=1e-6)
