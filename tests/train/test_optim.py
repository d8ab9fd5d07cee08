"""Optimizers against their papers' update rules in NumPy, and parameter groups that must cover every leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import UserError
from cnn_jax.train.config import ParameterGroup
from cnn_jax.train.optim import OPTIMIZERS, assign_groups, make_optimizer

RATE = 0.1
EVERYTHING = (ParameterGroup(pattern=".*"),)


def start():
    return {"layer": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.3, -0.7])}}


def gradient(params, step):
    """Any smooth function of parameters and step."""
    return jax.tree.map(lambda p: jnp.sin(p + step) + 0.1 * p, params)


def run(optimizer, steps=5):
    params = start()
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(gradient(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params


def reference(rule, steps=5, l1=0.0, l2=0.0, clip=None):
    """The same in float64, with `rule(memory, gradient, parameter, t) -> step of rate 1` for each leaf."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), start())
    memory = {name: {} for name in params["layer"]}
    for step in range(steps):
        gradients = {name: np.sin(p + step) + 0.1 * p for name, p in params["layer"].items()}
        if clip is not None:
            norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
            gradients = {name: g * min(1.0, clip / norm) for name, g in gradients.items()}
        for name in ("kernel", "bias"):
            p, g = params["layer"][name], gradients[name]
            g = g + l2 * p + l1 * np.sign(p)
            params["layer"][name] = p - RATE * rule(memory[name], g, p, step + 1)
    return params


def sgd(momentum=0.0, nesterov=False, decay=0.0):
    def rule(m, g, p, t):
        if momentum:
            m["v"] = momentum * m.get("v", 0) + g
            g = g + momentum * m["v"] if nesterov else m["v"]
        return g + decay * p

    return rule


def adam(decay=0.0, trust=False, eps=1e-8):
    def rule(m, g, p, t):
        m["m"] = 0.9 * m.get("m", 0) + 0.1 * g
        m["v"] = 0.999 * m.get("v", 0) + 0.001 * g**2
        step = (m["m"] / (1 - 0.9**t)) / (np.sqrt(m["v"] / (1 - 0.999**t)) + eps) + decay * p
        if trust:
            step = step * np.linalg.norm(p) / np.linalg.norm(step)
        return step

    return rule


def rmsprop(momentum=0.0, centered=False):
    def rule(m, g, p, t):
        m["s"] = 0.99 * m.get("s", 0) + 0.01 * g**2
        m["a"] = 0.99 * m.get("a", 0) + 0.01 * g
        step = g / (np.sqrt(m["s"] - (m["a"] ** 2 if centered else 0)) + 1e-8)
        if momentum:
            m["v"] = momentum * m.get("v", 0) + step
            step = m["v"]
        return step

    return rule


def adagrad(m, g, p, t):
    m["s"] = m.get("s", 0.1) + g**2
    return g / (np.sqrt(m["s"]) + 1e-7)


def lion(m, g, p, t):
    step = np.sign(0.9 * m.get("m", 0) + 0.1 * g)
    m["m"] = 0.99 * m.get("m", 0) + 0.01 * g
    return step + 0.02 * p


CASES = {
    "sgd": ("sgd", {}, {}, sgd()),
    "sgd, momentum": ("sgd", {"momentum": 0.9}, {}, sgd(0.9)),
    "sgd, Nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}, {}, sgd(0.9, True)),
    "sgd, L2": ("sgd", {"momentum": 0.9}, {"l2": 0.05}, sgd(0.9)),
    "sgd, L1": ("sgd", {"momentum": 0.9}, {"l1": 0.05}, sgd(0.9)),
    "sgd, decoupled": ("sgd", {"momentum": 0.9, "weight_decay": 0.05}, {}, sgd(0.9, decay=0.05)),
    "sgd, clipped": ("sgd", {}, {"clip_norm": 0.7}, sgd()),
    "sgd, clipped before decay": ("sgd", {}, {"clip_norm": 0.7, "l2": 0.05}, sgd()),
    "adam": ("adam", {}, {}, adam()),
    "adam, L2": ("adam", {}, {"l2": 0.05}, adam()),
    "adamw": ("adamw", {}, {}, adam(0.01)),
    "rmsprop": ("rmsprop", {}, {}, rmsprop()),
    "rmsprop, centered": ("rmsprop", {"centered": True}, {}, rmsprop(centered=True)),
    "rmsprop, momentum": ("rmsprop", {"momentum": 0.9}, {}, rmsprop(0.9)),
    "adagrad": ("adagrad", {}, {}, adagrad),
    "lion": ("lion", {"weight_decay": 0.02}, {}, lion),
    "lamb": ("lamb", {"weight_decay": 0.02}, {}, adam(0.02, trust=True, eps=1e-6)),
}


@pytest.mark.parametrize("name", CASES)
def test_an_optimizer_follows_its_papers_rule(name):
    key, options, common, rule = CASES[name]
    optimizer = make_optimizer(
        OPTIMIZERS[key](**options), optax.constant_schedule(RATE), assign_groups(start(), EVERYTHING), **common
    )
    expected = reference(rule, l1=common.get("l1", 0.0), l2=common.get("l2", 0.0), clip=common.get("clip_norm"))
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=3e-5, atol=3e-6), run(optimizer), expected
    )


def test_the_cases_cover_the_table():
    # Muon takes kernels only: tests/train/test_muon.py.
    assert {case[0] for case in CASES.values()} == set(OPTIMIZERS) - {"muon"}


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(UserError, match=r"optimizer.nesterov needs optimizer.momentum"):
        OPTIMIZERS["sgd"](nesterov=True)


def grouped(*groups, **common):
    table = tuple(ParameterGroup(**group) for group in groups)
    return make_optimizer(
        OPTIMIZERS["sgd"](momentum=0.9), optax.constant_schedule(RATE), assign_groups(start(), table), **common
    )


def test_groups_scale_rate_and_decay_and_freeze():
    plain = run(grouped({"pattern": ".*"}))
    frozen = run(grouped({"pattern": "layer/bias", "frozen": True}, {"pattern": ".*"}, l2=0.1))
    np.testing.assert_array_equal(frozen["layer"]["bias"], start()["layer"]["bias"])
    undecayed = run(grouped({"pattern": ".*bias", "decay": 0.0}, {"pattern": ".*"}, l2=0.1))
    np.testing.assert_array_equal(undecayed["layer"]["bias"], plain["layer"]["bias"])
    assert not np.array_equal(undecayed["layer"]["kernel"], plain["layer"]["kernel"])
    slow = run(grouped({"pattern": ".*bias", "learning_rate": 0.5}, {"pattern": ".*"}), steps=1)
    full = run(grouped({"pattern": ".*"}), steps=1)
    moved = [np.asarray(r["layer"]["bias"]) - np.asarray(start()["layer"]["bias"]) for r in (slow, full)]
    np.testing.assert_allclose(moved[0], 0.5 * moved[1], rtol=1e-5)


def test_a_frozen_gradient_does_not_count_towards_the_clipped_norm():
    optimizer = grouped({"pattern": ".*bias", "frozen": True}, {"pattern": ".*"}, clip_norm=1.0)
    params = start()
    gradients = {"layer": {"kernel": jnp.full((2, 2), 0.1), "bias": jnp.full((2,), 1e6)}}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["layer"]["kernel"], -RATE * 0.1 * np.ones((2, 2)), rtol=1e-6)
    np.testing.assert_array_equal(updates["layer"]["bias"], np.zeros(2))


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((".*kernel",), "no pattern matches 'layer/bias'"),
        ((".*", "layer/gamma"), "'layer/gamma' matches no parameter"),
        (("(",), "no regular expression"),
    ],
)
def test_groups_must_match_something_and_cover_everything(patterns, message):
    with pytest.raises(UserError, match=message):
        assign_groups(start(), tuple(ParameterGroup(pattern=pattern) for pattern in patterns))
