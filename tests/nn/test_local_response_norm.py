"""Local response normalisation against loops over the paper's sum and torch's definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.nn.local_response_norm import LocalResponseNorm


def normalised(x, size, alpha, beta, offset):
    """Krizhevsky et al. 2012, Section 3.3, in float64: the sum goes from max(0, i - n/2) to min(N - 1, i + n/2).

    Of an even window torch takes the larger half before the channel: F.pad(..., (size // 2, (size - 1) // 2)).
    """
    x = np.asarray(x, np.float64)
    y = np.zeros_like(x)
    for i in range(x.shape[-1]):
        neighbours = range(max(0, i - size // 2), min(x.shape[-1] - 1, i + (size - 1) // 2) + 1)
        y[..., i] = x[..., i] / (offset + alpha * sum(x[..., j] ** 2 for j in neighbours)) ** beta
    return y


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 5, 7), 5), ((2, 3, 4, 8), 4), ((1, 2, 3, 2, 6), 3), ((2, 4, 3), 5), ((3, 4, 4, 2), 1)]
)
def test_equals_the_sum_over_neighbouring_channels(shape, size):
    x = 3 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    arguments = {"alpha": 0.5, "beta": 0.75, "offset": 2.0}
    y = LocalResponseNorm(size, **arguments).apply({}, jnp.asarray(x))
    np.testing.assert_allclose(y, normalised(x, size, **arguments), rtol=1e-5)


def test_the_constants_are_the_papers():
    x = 100 * np.random.default_rng(0).standard_normal((2, 3, 3, 9), dtype=np.float32)
    y = LocalResponseNorm().apply({}, jnp.asarray(x))
    np.testing.assert_allclose(y, normalised(x, 5, alpha=1e-4, beta=0.75, offset=2.0), rtol=1e-5)


def test_gradients_and_types():
    x = jnp.zeros((1, 2, 2, 4), jnp.bfloat16)
    layer = LocalResponseNorm(dtype="bfloat16")
    assert layer.apply({}, x).dtype == jnp.bfloat16
    gradient = jax.grad(lambda x: layer.apply({}, x).astype(jnp.float32).sum())(x)
    np.testing.assert_allclose(gradient.astype(jnp.float32), np.full(x.shape, 2.0**-0.75), rtol=1e-2)
