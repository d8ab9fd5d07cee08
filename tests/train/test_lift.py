"""Functions that differ in numbers only, as one function of the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.train.lift import NotLiftableError, lift, trace

X = np.linspace(-1, 1, 7, dtype=np.float32)


def dropout(x, *, rate, key):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def adam(x, *, rate, beta2):
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, 10), b2=beta2)
    updates, _ = optimizer.update(jax.grad(lambda x: jnp.sum(jax.nn.relu(x) ** 3))(x), optimizer.init(x), x)
    return x + updates


TABLE = {
    "a number": [lambda x, r=r: r * x + 1 for r in (2.0, 3.0)],
    "an array": [lambda x, r=r: x * np.arange(7, dtype=np.float32) * r for r in (2.0, 3.0)],
    "below jit, in a derivative": [lambda x, r=r: dropout(x, rate=r, key=jax.random.key(0)) for r in (0.1, 0.5, 0.9)],
    "computed in 64 bits before": [lambda x, r=r, b=b: adam(x, rate=r, beta2=b) for r, b in ((0.1, 0.9), (0.3, 0.999))],
    "a whole number": [lambda x, n=n: jnp.where(jnp.arange(7) < n, x, 0) for n in (2, 5)],
    "nothing differs in a loop": [
        lambda x, r=r: r * jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(y), x) for r in (2.0, 3.0)
    ],
}


@pytest.mark.parametrize("functions", TABLE.values(), ids=TABLE)
def test_each_function_is_the_lifted_one_at_its_own_values(functions):
    function, values = lift([trace(function, X) for function in functions])
    assert values
    expected = [jax.jit(alone)(X) for alone in functions]
    for index, alone in enumerate(expected):
        # Alone XLA knows the number, and may divide by it with a multiplication.
        np.testing.assert_allclose(jax.jit(function)([v[index] for v in values], X), alone, rtol=3e-7, atol=1e-7)
    assert any(not np.array_equal(expected[0], other) for other in expected[1:])
    together = jax.jit(jax.vmap(function, in_axes=(0, None)))(values, X)
    np.testing.assert_allclose(together, expected, rtol=3e-7, atol=1e-7)


REFUSED = {
    "another operation": [lambda x: x * 2, lambda x: x + 2],
    "one operation more": [lambda x: x * 2, lambda x: x * 2 + 1],
    "other operands": [lambda x: x - jnp.sin(x), lambda x: jnp.sin(x) - x],
    "a number in a loop": [lambda x, r=r: jax.lax.fori_loop(0, 3, lambda _, y: r * y, x) for r in (2.0, 3.0)],
    "an option of an operation": [lambda x, r=r: jax.lax.cumsum(x, reverse=r) for r in (True, False)],
    "a shape": [lambda x, n=n: jnp.sum(jnp.zeros(n)) + x for n in (2, 3)],
    "another result": [lambda x: (x, x), lambda x: [x, x]],
    "a number for an array": [lambda x: 2 * x, lambda x: x * x],
}


@pytest.mark.parametrize("functions", REFUSED.values(), ids=REFUSED)
def test_functions_that_differ_in_more_than_numbers_are_refused(functions):
    traced = [trace(function, X) for function in functions]
    with pytest.raises(NotLiftableError):
        lift(traced)


def test_one_function_has_nothing_to_lift():
    function, values = lift([trace(TABLE["a number"][0], X)])
    assert values == []
    np.testing.assert_array_equal(function([], X), 2 * X + 1)
