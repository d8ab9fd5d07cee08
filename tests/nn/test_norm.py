"""Normalisation against NumPy in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.nn.norm import NORMS, BatchNorm, GroupNorm, LayerNorm, norm_layer


def test_batch_norm_variance_of_a_large_mean():
    # DESIGN.md: for mean 100 and deviation 0.01 the variance is 1e-4, not 0
    x = (100 + 0.01 * np.random.default_rng(0).standard_normal((64, 8, 8, 3))).astype(np.float32)
    layer = BatchNorm(momentum=0.0)  # the running statistics are the batch's
    variables = layer.init(jax.random.key(0), jnp.asarray(x), train=True)
    y, updated = layer.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
    expected = x.astype(np.float64).var(axis=(0, 1, 2))
    np.testing.assert_allclose(expected, 1e-4, rtol=0.1)
    np.testing.assert_allclose(updated["batch_stats"]["var"], expected, rtol=1e-2)
    np.testing.assert_allclose(np.asarray(y).std(axis=(0, 1, 2)), np.sqrt(expected / (expected + 1e-5)), rtol=1e-2)


def test_batch_norm_momentum_is_the_share_that_stays():
    x = 5 + 2 * jax.random.normal(jax.random.key(0), (32, 4, 4, 2))
    variables = BatchNorm().init(jax.random.key(1), x, train=True)
    _, updated = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    batch = np.asarray(x, np.float64)
    mean, var = batch.mean(axis=(0, 1, 2)), batch.var(axis=(0, 1, 2))
    # Started from mean 0 and variance 1.
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)
    y = BatchNorm().apply({**variables, **updated}, x, train=False)
    expected = (batch - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_has_the_derivatives_of_flaxs():
    x = 2 + jax.random.normal(jax.random.key(0), (6, 3, 5, 4))
    weight = jax.random.normal(jax.random.key(1), x.shape)
    params = {"scale": jnp.array([1.0, 0.5, -2.0, 0.0]), "bias": jnp.arange(4.0)}
    statistics = {"mean": jnp.zeros(4), "var": jnp.ones(4)}

    def derivatives(layer, **train):
        def loss(x, params):
            variables = {"params": params, "batch_stats": statistics}
            y, updated = layer.apply(variables, x, mutable=["batch_stats"], **train)
            # The running statistics too: a task may use them.
            return jnp.sum(weight * jnp.sin(y)) + jnp.sum(updated["batch_stats"]["var"] ** 2)

        gradient = jax.grad(loss, argnums=(0, 1))
        tangents = (jnp.cos(x), params)
        return loss(x, params), gradient(x, params), jax.jvp(gradient, (x, params), tangents)[1]

    ours = derivatives(BatchNorm(), train=True)
    theirs = derivatives(nn.BatchNorm(momentum=0.9, use_fast_variance=False), use_running_average=False)
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("space", [(5,), (3, 4), (2, 1, 3)])
def test_batch_unbiased_keeps_running_variances_as_torch_does(space):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, *space, 4))
    layer, biased = (norm_layer(kind, dtype="float32", name="norm") for kind in ("batch_unbiased", "batch"))
    variables = layer.init(jax.random.key(1), x, train=True)
    y, updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    axes = tuple(range(x.ndim - 1))
    # torch: divided by n in the output, by n - 1 in what is kept; started from variance 1, torch's momentum 0.1.
    variance = np.asarray(x, np.float64).var(axis=axes, ddof=1)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * variance, rtol=1e-5)
    expected, with_n = biased.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(updated["batch_stats"]["mean"], with_n["batch_stats"]["mean"])
    assert np.all(updated["batch_stats"]["var"] > with_n["batch_stats"]["var"])


def test_batch_unbiased_refuses_one_value_per_channel():
    layer = norm_layer("batch_unbiased", dtype="float32", name="norm")
    one, two = jnp.ones((1, 1, 1, 3)), jnp.ones((2, 1, 1, 3))
    variables = layer.init(jax.random.key(0), one, train=True)
    with pytest.raises(UserError, match=r"needs two values per channel, but the batch \(1, 1, 1, 3\) has 1"):
        layer.apply(variables, one, train=True, mutable=["batch_stats"])
    _, updated = layer.apply(variables, two, train=True, mutable=["batch_stats"])
    assert np.isfinite(updated["batch_stats"]["var"]).all()
    assert np.isfinite(layer.apply(variables, one, train=False)).all()


# Channels and groups by the rule "gcd(32, C / 2), or 1 if C is odd".
@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (256, 32), (6, 1), (7, 1)])
def test_group_norm(channels, groups):
    x = 3 + jax.random.normal(jax.random.key(0), (2, 5, 4, channels))
    y = GroupNorm().apply(GroupNorm().init(jax.random.key(0), x, train=True), x, train=True)
    grouped = np.asarray(x, np.float64).reshape(2, 20, groups, channels // groups)
    mean, var = grouped.mean(axis=(1, 3), keepdims=True), grouped.var(axis=(1, 3), keepdims=True)
    np.testing.assert_allclose(y, ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape), atol=1e-4)


def test_layer_norm():
    x = 3 + jax.random.normal(jax.random.key(0), (2, 5, 4, 6))
    y = LayerNorm().apply(LayerNorm().init(jax.random.key(0), x, train=True), x, train=True)
    values = np.asarray(x, np.float64)
    mean, var = values.mean(axis=-1, keepdims=True), values.var(axis=-1, keepdims=True)
    np.testing.assert_allclose(y, (values - mean) / np.sqrt(var + 1e-5), atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", NORMS)
def test_every_norm_at_every_rank_keeps_float32_statistics(kind, rank):
    x = jnp.ones((2, *(3,) * rank, 4), jnp.bfloat16)
    y, variables = norm_layer(kind, dtype="bfloat16", name="norm").init_with_output(jax.random.key(0), x, train=True)
    assert y.shape == x.shape
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    leaves = {name: leaf.shape for name, leaf in variables.get("params", {}).items()}
    assert leaves == ({} if kind == "none" else {"scale": (4,), "bias": (4,)})


def test_unknown_norm():
    with pytest.raises(UserError, match="unknown norm 'bacth'; did you mean 'batch'"):
        norm_layer("bacth", dtype="float32", name="norm")
