"""Activations against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import ACTIVATIONS, PReLU, activation_layer

FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "prelu": lambda x: np.where(x > 0, x, 0.25 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "gelu": lambda x: x * 0.5 * (1 + scipy.special.erf(x / np.sqrt(2))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "scaled_tanh": lambda x: 1.7159 * np.tanh(2 * x / 3),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "identity": lambda x: x,
}


def test_every_activation_has_a_formula():
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("kind", FORMULAS)
def test_activations_equal_their_formulas(kind):
    x = np.linspace(-8, 8, 60, dtype=np.float32).reshape(5, 4, 3)
    layer = activation_layer(kind, name="act")
    if kind == "prelu":
        y, variables = layer.init_with_output(jax.random.key(0), jnp.asarray(x))
        assert variables["params"]["slope"].shape == (3,)
    else:
        y = layer(jnp.asarray(x))
    np.testing.assert_allclose(y, FORMULAS[kind](x.astype(np.float64)), atol=2e-6)


def test_slopes():
    x = jnp.float32([[-2.0, 4.0]])
    np.testing.assert_allclose(activation_layer("leaky_relu", name="act", negative_slope=0.2)(x), [[-0.4, 4.0]])
    prelu = activation_layer("prelu", name="act", negative_slope=0.5)
    np.testing.assert_allclose(prelu.init_with_output(jax.random.key(0), x)[0], [[-1.0, 4.0]])


def test_prelu_has_a_slope_per_channel():
    x = -jnp.ones((2, 3, 2))
    y = PReLU().apply({"params": {"slope": jnp.float32([0.1, 0.7])}}, x)
    np.testing.assert_allclose(y[0, 0], [-0.1, -0.7], rtol=1e-6)


def test_errors():
    with pytest.raises(UserError, match="unknown activation 'rleu'; did you mean 'relu'"):
        activation_layer("rleu", name="act")
    with pytest.raises(UserError, match=r"negative_slope=0\.2 has no effect on activation 'tanh'"):
        activation_layer("tanh", name="act", negative_slope=0.2)
