"""Muon against its formula in NumPy, and optimizers for groups of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import UserError
from cnn_jax.train.config import ParameterGroup
from cnn_jax.train.muon import orthogonalise
from cnn_jax.train.optim import OPTIMIZERS, Branch, assign_groups, make_optimizer
from cnn_jax.train.run import build
from cnn_jax.train.schedule import polynomial, zero_after

RATE = 0.1


def quintic(singular, steps):
    """What one step after the other makes of singular values: a x + b x³ + c x⁵ with the published coefficients."""
    for _ in range(steps):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    return singular


def by_singular_values(matrix, steps):
    """Muon's direction in float64, from the singular value decomposition."""
    u, s, v = np.linalg.svd(matrix / (np.linalg.norm(matrix) + 1e-7), full_matrices=False)
    return u @ np.diag(quintic(s, steps)) @ v


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_newton_schulz_changes_singular_values_by_the_quintic(shape, steps):
    matrix = np.random.default_rng(0).standard_normal(shape)
    found = orthogonalise(jnp.asarray(matrix, jnp.float32), steps=steps)
    np.testing.assert_allclose(found, by_singular_values(matrix, steps), atol=2e-5)
    if steps == 5:
        np.testing.assert_allclose(np.linalg.svd(found, compute_uv=False), 1.0, atol=0.35)


def kernels(seed=0):
    generator = np.random.default_rng(seed)
    shapes = {"conv": {"kernel": (3, 3, 2, 4)}, "wide": {"kernel": (1, 1, 3, 8)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(generator.standard_normal(shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


@pytest.mark.parametrize("fixed_norm", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_follows_the_update_of_airbench(fixed_norm, nesterov):
    params, expected, buffers = kernels(), kernels(), {}
    groups = assign_groups(params, (ParameterGroup(pattern=".*"),))
    rule = OPTIMIZERS["muon"](momentum=0.6, nesterov=nesterov, steps=3, fixed_norm=fixed_norm)
    optimizer = make_optimizer(rule, optax.constant_schedule(RATE), groups)
    state = optimizer.init(params)
    for step in range(3):
        gradients = kernels(seed=step + 1)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name in expected:
            # torch's layout [F, C, y, x], flattened behind the first axis, as airbench94_muon.py does
            g, p = (np.asarray(t[name]["kernel"], np.float64).transpose(3, 2, 0, 1) for t in (gradients, expected))
            buffers[name] = 0.6 * buffers.get(name, 0) + g
            g = g + 0.6 * buffers[name] if nesterov else buffers[name]
            if fixed_norm:
                p = p * len(p) ** 0.5 / np.linalg.norm(p)
            p = p - RATE * by_singular_values(g.reshape(len(g), -1), 3).reshape(g.shape)
            expected[name] = {"kernel": p.transpose(2, 3, 1, 0)}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), params, expected)


def test_muon_refuses_what_is_no_kernel():
    params = {"norm": {"bias": jnp.zeros(3)}}
    optimizer = make_optimizer(
        OPTIMIZERS["muon"](), optax.constant_schedule(RATE), assign_groups(params, (ParameterGroup(pattern=".*"),))
    )
    with pytest.raises(UserError, match=r"kernels only, and 'norm/bias' has the shape \(3,\)"):
        optimizer.init(params)


SGD = Branch(OPTIMIZERS["sgd"](), optax.constant_schedule(0.5), l2=0.1)


def test_a_group_has_its_own_optimizer_and_frozen_parameters_pass_by():
    params = {"a": jnp.array([3.0]), "b": jnp.array([2.0]), "c": jnp.array([[1.0]])}
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0]), "c": jnp.array([[jnp.inf]])}
    table = (
        ParameterGroup(pattern="c", frozen=True),
        ParameterGroup(pattern="b", optimizer={"name": "sgd"}, learning_rate=0.1),
        ParameterGroup(pattern=".*"),
    )
    optimizer = make_optimizer(
        OPTIMIZERS["sgd"](),
        optax.constant_schedule(RATE),
        assign_groups(params, table),
        clip_norm=1.0,
        own={"b": SGD},
    )
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # The norm that is clipped is that of both groups: |(3, 4)| = 5.
    np.testing.assert_allclose(updates["a"], [-RATE * 3 / 5], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [-0.5 * 0.1 * (4 / 5 + 0.1 * 2)], rtol=1e-6)
    np.testing.assert_array_equal(updates["c"], [[0.0]])


def test_a_rate_that_ends_early_is_linear_to_zero_and_stays_there():
    schedule = zero_after(polynomial(0.8, 4, lambda duration: duration.steps), 4)
    np.testing.assert_allclose([schedule(step) for step in range(7)], [0.8, 0.6, 0.4, 0.2, 0, 0, 0], atol=1e-7)


def test_groups_of_a_config_have_optimizers_and_ends_of_their_own(tiny_config):
    tiny_config["model"] = {"name": "classic_stack", "in_channels": 1, "channels": (4,), "dense": ()}
    tiny_config["optimizer"] = {"name": "muon", "learning_rate": 0.1, "steps": 3}
    tiny_config["schedule"] = {"name": "polynomial"}
    tiny_config["parameter_groups"] = (
        {"pattern": "backbone/.*/bias", "optimizer": {"name": "sgd", "learning_rate": 0.5}, "until": {"steps": 2}},
        {"pattern": ".*/bias", "optimizer": {"name": "adam", "learning_rate": 0.01}},
        {"pattern": ".*"},
    )
    experiment = build(tiny_config)
    filled = experiment.config.parameter_groups[1].optimizer
    assert filled is not None
    assert filled["beta1"] == 0.9
    state, gradient = experiment.initial_state(), None
    params, opt_state = state.params, state.opt_state
    biases = []
    for step in range(4):
        gradient = jax.tree.map(jnp.ones_like, params)
        updates, opt_state = experiment.optimizer.update(gradient, opt_state, params)
        biases.append(float(updates["backbone"]["stage1"]["conv"]["bias"][0]))
        if step == 0:
            np.testing.assert_allclose(updates["head"]["output"]["bias"], -0.01, rtol=1e-4)
    np.testing.assert_allclose(biases, [-0.5, -0.25, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (
            {"optimizer": {"name": "mouon", "learning_rate": 0.1}},
            r"groups\.0\.optimizer.name.*'mouon'.*'muon'",
        ),
        ({"optimizer": {"name": "sgd"}}, r"parameter_groups\.0\.optimizer\.learning_rate: missing"),
        ({"until": 3}, r"parameter_groups\.0\.until: should be a duration"),
    ],
)
def test_bad_optimizers_of_a_group_are_one_line(tiny_config, group, message):
    tiny_config["parameter_groups"] = ({"pattern": ".*", **group},)
    with pytest.raises(UserError, match=message) as caught:
        build(tiny_config)
    assert "\n" not in str(caught.value)
