"""Our max pool against XLA's own: value, gradient, forward mode, second derivatives, ties, NaN and vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.ops.pool import max_pool

# Each: size of the image, the window, the stride and the padding, per axis of space.
GEOMETRIES = {
    "1-D": ((9,), (3,), (2,), ((1, 1),)),
    "blocks": ((6, 8), (2, 2), (2, 2), ((0, 0), (0, 0))),
    "blocks, odd size": ((7, 5), (2, 2), (2, 2), ((0, 0), (0, 0))),
    "blocks, padded": ((7, 5), (3, 2), (3, 2), ((1, 1), (0, 1))),
    "overlapping": ((9, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "stride 1": ((5, 6), (2, 3), (1, 1), ((0, 1), (1, 1))),
    "stride beyond the window": ((9, 11), (2, 1), (3, 4), ((0, 0), (0, 0))),
    "one window": ((3, 3), (3, 3), (3, 3), ((0, 0), (0, 0))),
    "3-D": ((4, 5, 6), (2, 2, 3), (2, 1, 2), ((0, 0), (0, 1), (1, 1))),
}


def stock(x, *, window, stride, padding):
    pads = ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, *window, 1), (1, *stride, 1), pads)


def derivatives(pool, x):
    def loss(x):
        out = pool(x)
        return jnp.sum(jnp.sin(out) * jnp.arange(out.size, dtype=x.dtype).reshape(out.shape))

    gradient = jax.grad(loss)
    return {
        "value": pool(x),
        "gradient": gradient(x),
        "forward mode": jax.jvp(pool, (x,), (jnp.cos(x),))[1],
        "forward over reverse": jax.jvp(gradient, (x,), (jnp.cos(x),))[1],
        "reverse over reverse": jax.grad(lambda x: jnp.sum(gradient(x) ** 2))(x),
    }


@pytest.mark.parametrize("ties", [False, True], ids=["all differ", "ties"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_values_and_derivatives_equal_those_of_xla(name, ties):
    space, window, stride, padding = GEOMETRIES[name]
    geometry = {"window": window, "stride": stride, "padding": padding}
    x = jax.random.normal(jax.random.key(0), (3, *space, 4))
    x = jnp.round(x) if ties else x  # the first of equal values gets the gradient
    ours = jax.jit(functools.partial(derivatives, functools.partial(max_pool, **geometry)))(x)
    theirs = jax.jit(functools.partial(derivatives, functools.partial(stock, **geometry)))(x)
    if ties:
        # Where windows overlap, XLA's second derivative in reverse mode takes another of equal values than its first.
        del theirs["reverse over reverse"]
    for key, expected in theirs.items():
        np.testing.assert_allclose(ours[key], expected, rtol=1e-5, atol=1e-5, err_msg=key)


def test_a_nan_stays_one_and_half_precision_keeps_its_type():
    x = jnp.zeros((1, 4, 4, 1), jnp.bfloat16).at[0, 1, 2, 0].set(jnp.nan)
    out = max_pool(x, window=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)))
    assert out.dtype == jnp.bfloat16
    assert np.isnan(np.float32(out[0, :, :, 0])).tolist() == [[False, True], [False, False]]


def test_vmap_equals_a_loop():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 6, 4))
    pool = functools.partial(max_pool, window=(3, 2), stride=(2, 2), padding=((1, 1), (0, 0)))
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))
    expected = jnp.stack([gradient(x[:, i]) for i in range(5)])
    np.testing.assert_allclose(jax.vmap(gradient, in_axes=1)(x), expected, rtol=1e-5)


def test_a_cpu_picks_from_slices_and_others_scatter():
    x = jnp.zeros((2, 6, 6, 3))
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, window=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0))) ** 2))
    text = {p: jax.jit(gradient).trace(x).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")}
    assert "select_and_scatter" not in text["cpu"]
    assert "select_and_scatter" in text["cuda"]
