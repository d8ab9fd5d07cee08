"""Stochastic depth: whole examples, in training only, with the expected value kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.nn.stochastic_depth import StochasticDepth, linear_rates


@pytest.mark.parametrize("space", [(5,), (3, 2), (2, 2, 3)])
def test_an_example_is_left_out_whole_or_scaled(space):
    x = jax.random.normal(jax.random.key(0), (400, *space, 3))
    rate = 0.25
    y = StochasticDepth(rate).apply({}, x, train=True, rngs={"dropout": jax.random.key(1)})
    kept = np.abs(y).reshape(400, -1).max(axis=1) > 0
    np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=1e-6)
    np.testing.assert_array_equal(y[~kept], 0)
    # Four standard deviations of a binomial share.
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / 400)


def test_evaluation_and_rate_zero_change_nothing_and_need_no_key():
    x = jnp.ones((3, 2, 2, 1))
    np.testing.assert_array_equal(StochasticDepth(0.5).apply({}, x, train=False), x)
    np.testing.assert_array_equal(StochasticDepth(0.0).apply({}, x, train=True), x)


def test_the_key_decides():
    x = jnp.ones((64, 2, 1))
    draw = [StochasticDepth(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 0, 1)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert np.any(draw[0] != draw[2])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_out_of_range(rate):
    with pytest.raises(UserError, match=f"stochastic depth rate is {rate}; it must be at least 0 and below 1"):
        StochasticDepth(rate).apply({}, jnp.ones((1, 2, 1)), train=False)


def test_linear_rates_are_torchvisions():
    # Block i of n, counted from 0, has the share i / n of the rate.
    np.testing.assert_allclose(linear_rates(0.3, 6), [0.0, 0.05, 0.1, 0.15, 0.2, 0.25])
    assert linear_rates(0.5, 1) == (0.0,)
