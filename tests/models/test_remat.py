"""Rematerialised stages: the same numbers in less memory."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.nn.conv import Conv
from cnn_jax.nn.norm import BatchNorm
from cnn_jax.nn.pool import MaxPool
from cnn_jax.nn.remat import run_stage

# XLA's CPU backend drops the barriers that keep a second computation apart from the first unless told otherwise.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
CASES = {
    "classic_stack": (
        {"channels": (16, 32), "norm": "batch", "padding": "same", "dense": (8,), "dropout_rate": 0.5},
        ("stage1", "stage2"),
    ),
    "wide_resnet": ({"depth": 10, "widening": 1, "dropout_rate": 0.5}, ("stage1", "stage2", "stage3")),
    "convnext": ({"blocks": (1, 1), "width": 16, "dropout_rate": 0.5}, ("stage1", "stage2")),
    "densenet_cifar": (
        {"depth": 10, "growth_rate": 8, "bottleneck": True, "dropout_rate": 0.5},
        ("stage1", "stage2", "stage3"),
    ),
    "resnet_cifar": ({"depth": 8, "width": 8, "dropout_rate": 0.5}, ("stem", "stage1", "stage2", "stage3")),
}
SLOW = {"convnext", "densenet_cifar"}


def compiled_gradients(model, variables, images):
    """A compiled training pass: gradients, loss and new statistics."""

    def run(params, statistics, images):
        def loss(params):
            logits, updated = model.apply(
                {"params": params, **statistics},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(3)},
            )
            return jnp.sum(logits**2), updated

        return jax.value_and_grad(loss, has_aux=True)(params)

    statistics = dict(variables)
    params = statistics.pop("params")
    compiled = jax.jit(run).lower(params, statistics, images).compile(compiler_options=KEEP_BARRIERS)
    return compiled(params, statistics, images), compiled.memory_analysis().temp_size_in_bytes


def assert_close(a, b, tolerance):
    """Equal structure, and values that differ by at most a part of each leaf's largest."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1e-3, np.abs(y).max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_the_same_values_in_less_memory(name, random_variables):
    arguments, stages = CASES[name]
    plain, remat = (models.create(name, num_classes=5, remat=r, **arguments) for r in ((), stages))
    images = jnp.asarray(np.random.default_rng(0).standard_normal((16, 32, 32, 3), dtype=np.float32))
    variables = random_variables(plain, images)
    (expected, memory), (found, less) = (compiled_gradients(model, variables, images) for model in (plain, remat))
    assert_close(found, expected, 1e-5)
    assert less < 0.9 * memory


@pytest.mark.parametrize("name", ["classic_stack", pytest.param("resnet_cifar", marks=pytest.mark.slow)])
def test_paths_and_initial_values_are_the_same(name):
    arguments, stages = CASES[name]
    image = jnp.zeros((1, 8, 8, 3))
    plain, remat = (
        jax.jit(functools.partial(models.create(name, num_classes=5, remat=r, **arguments).init, train=False))(
            jax.random.key(0), image
        )
        for r in ((), stages)
    )
    assert_close(plain, remat, 0.0)


class Noisy(nn.Module):
    """A stage with everything that a second computation could get wrong."""

    @nn.compact
    def __call__(self, x, *, train):
        x = BatchNorm(name="norm")(Conv(4, 3, name="conv")(x), train=train)
        return nn.Dropout(0.5, name="dropout")(x, deterministic=not train)


class Whole(nn.Module):
    """One such stage with a pool."""

    remat: bool

    @nn.compact
    def __call__(self, x, *, train):
        return run_stage(Noisy(name="stage"), x, MaxPool(2, name="pool"), train=train, remat=self.remat)


def test_statistics_move_once_and_dropout_masks_stay(random_variables):
    images = jax.random.normal(jax.random.key(0), (4, 6, 6, 2))
    variables = random_variables(Whole(remat=False), images)
    start = variables["batch_stats"]["stage"]["norm"]["mean"]
    plain, remat = (compiled_gradients(Whole(remat=r), variables, images)[0] for r in (False, True))
    assert_close(remat, plain, 1e-6)
    mean = remat[0][1]["batch_stats"]["stage"]["norm"]["mean"]
    out = Conv(4, 3).apply({"params": variables["params"]["stage"]["conv"]}, images)
    np.testing.assert_allclose(mean, 0.9 * start + 0.1 * np.asarray(out).mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
