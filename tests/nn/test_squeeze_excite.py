"""Squeeze and excitation against Eq. 2 to 4 of Hu et al. 2018 in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.nn.squeeze_excite import SqueezeExcite

ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "silu": lambda x: x / (1 + np.exp(-x))}
GATES = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6}


@pytest.mark.parametrize(
    ("space", "activation", "gate"),
    [((7,), "relu", "sigmoid"), ((3, 4), "silu", "sigmoid"), ((2, 3, 2), "relu", "hard_sigmoid")],
)
def test_gates_channels_by_the_mean_of_the_image(space, activation, gate):
    generator = np.random.default_rng(0)
    x = (1 + generator.standard_normal((2, *space, 6))).astype(np.float32)
    layer = SqueezeExcite(4, activation=activation, gate=gate)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.asarray(x))
    ones = (1,) * len(space)
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == {
        "params": {
            "reduce": {"kernel": (*ones, 6, 4), "bias": (4,)},
            "expand": {"kernel": (*ones, 4, 6), "bias": (6,)},
        }
    }
    params = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape).astype(np.float32), shapes["params"])
    matrices = {name: layer["kernel"].reshape(layer["kernel"].shape[-2:]) for name, layer in params.items()}
    squeezed = x.astype(np.float64).mean(axis=tuple(range(1, x.ndim - 1)))  # Eq. 2
    hidden = ACTIVATIONS[activation](squeezed @ matrices["reduce"] + params["reduce"]["bias"])
    excited = GATES[gate](hidden @ matrices["expand"] + params["expand"]["bias"])  # Eq. 3
    expected = x * excited.reshape(2, *ones, 6)  # Eq. 4
    np.testing.assert_allclose(layer.apply({"params": params}, jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_takes_the_mean_in_float32():
    # 300 ones and a hundredth: a sum in bfloat16 would stop at 256.
    x = jnp.ones((1, 300, 1), jnp.bfloat16).at[0, 0, 0].set(0.01)
    layer = SqueezeExcite(1, activation="identity", gate="identity", dtype="bfloat16")
    one = {"kernel": jnp.ones((1, 1, 1)), "bias": jnp.zeros(1)}
    y = layer.apply({"params": {"reduce": one, "expand": one}}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32)[0, 1:], 1.0, rtol=0.01)


def test_unknown_names():
    with pytest.raises(UserError, match="unknown activation 'sigmiod'"):
        SqueezeExcite(2, gate="sigmiod").init(jax.random.key(0), jnp.ones((1, 2, 2, 4)))
