"""Optimizers as one Optax chain: clip, couple decay, direct, decouple decay, scale by group, scale by the schedule."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from pydantic import Field

from cnn_jax.errors import UserError
from cnn_jax.train.config import NotNegative, ParameterGroup, ShardingRule
from cnn_jax.train.muon import keep_norm, scale_by_muon
from cnn_jax.types import PyTree

Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Small: TypeAlias = Annotated[float, Field(gt=0)]


class Rule(NamedTuple):
    """What tells one optimizer from another.

    Attributes:
      direction: gradients to a step of rate 1, the sign not yet turned.
      weight_decay: decoupled decay, added to the direction as `weight_decay * parameter` (Loshchilov & Hutter 2019).
      after: what follows the decay, such as LAMB's trust ratio.
      last: what follows the learning rate, such as a constraint on the parameters.
    """

    direction: optax.GradientTransformation
    weight_decay: float
    after: optax.GradientTransformation = optax.identity()
    last: optax.GradientTransformation = optax.identity()


class Branch(NamedTuple):
    """An optimizer and its schedule, for all parameters or for a group of them.

    Attributes:
      rule: one of OPTIMIZERS, called.
      learning_rate: step to rate.
      l1: adds `l1 * sign(parameter)` to the gradient.
      l2: adds `l2 * parameter` to the gradient, which is the derivative of `l2 / 2 * |parameter|²`: what torch's SGD
        and He et al. call weight decay. Momentum and adaptive scaling act on it.
    """

    rule: Rule
    learning_rate: optax.Schedule
    l1: float = 0.0
    l2: float = 0.0


def sgd(*, momentum: Share = 0.0, nesterov: bool = False, weight_decay: NotNegative = 0.0) -> Rule:
    """Stochastic gradient descent with (Nesterov's) momentum: `v = momentum * v + g`, as torch without dampening."""
    if nesterov and not momentum:
        raise UserError("config.optimizer.nesterov needs optimizer.momentum above 0")
    direction = optax.trace(decay=momentum, nesterov=nesterov) if momentum else optax.identity()
    return Rule(direction, weight_decay)


def adam(*, beta1: Share = 0.9, beta2: Share = 0.999, epsilon: Small = 1e-8, weight_decay: NotNegative = 0.0) -> Rule:
    """Adam (Kingma & Ba 2015, algorithm 1)."""
    return Rule(optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon), weight_decay)


def adamw(*, beta1: Share = 0.9, beta2: Share = 0.999, epsilon: Small = 1e-8, weight_decay: NotNegative = 1e-2) -> Rule:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2; torch's default decay)."""
    return adam(beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay)


def rmsprop(
    *,
    decay: Share = 0.99,
    epsilon: Small = 1e-8,
    momentum: Share = 0.0,
    centered: bool = False,
    weight_decay: NotNegative = 0.0,
) -> Rule:
    """RMSprop (Tieleman & Hinton 2012), with epsilon outside the root and momentum after it, as torch."""
    options = {"decay": decay, "eps": epsilon, "eps_in_sqrt": False}
    scale = optax.scale_by_stddev(**options) if centered else optax.scale_by_rms(**options)
    return Rule(optax.chain(scale, optax.trace(decay=momentum)) if momentum else scale, weight_decay)


def adagrad(*, initial_accumulator: NotNegative = 0.1, epsilon: Small = 1e-7, weight_decay: NotNegative = 0.0) -> Rule:
    """Adagrad (Duchi et al. 2011): divide by the root of the sum of all squared gradients."""
    return Rule(optax.scale_by_rss(initial_accumulator_value=initial_accumulator, eps=epsilon), weight_decay)


def lion(*, beta1: Share = 0.9, beta2: Share = 0.99, weight_decay: NotNegative = 0.0) -> Rule:
    """Lion (Chen et al. 2023, program 1): the sign of an interpolated momentum."""
    return Rule(optax.scale_by_lion(b1=beta1, b2=beta2), weight_decay)


def lamb(*, beta1: Share = 0.9, beta2: Share = 0.999, epsilon: Small = 1e-6, weight_decay: NotNegative = 0.0) -> Rule:
    """LAMB (You et al. 2020, algorithm 2): Adam with decay, scaled per layer by |parameter| / |update|."""
    return Rule(optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon), weight_decay, optax.scale_by_trust_ratio())


def muon(
    *,
    momentum: Share = 0.95,
    nesterov: bool = True,
    steps: Annotated[int, Field(ge=1)] = 5,
    fixed_norm: bool = False,
    weight_decay: NotNegative = 0.0,
) -> Rule:
    """Muon (Jordan et al. 2024), for kernels: momentum, orthogonalised by `steps` Newton-Schulz steps.

    `fixed_norm` scales every kernel to the Frobenius norm √F before each step, as airbench does; F is its outputs.
    """
    last = keep_norm() if fixed_norm else optax.identity()
    return Rule(scale_by_muon(momentum=momentum, nesterov=nesterov, steps=steps), weight_decay, last=last)


OPTIMIZERS: dict[str, Callable[..., Rule]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "lion": lion,
    "lamb": lamb,
    "muon": muon,
}


def parameter_path(path: Sequence) -> str:
    """The path of a leaf as the group table sees it, for example `backbone/stage1/block1/conv1/kernel`."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def assign_groups(
    params: PyTree,
    groups: Sequence[ParameterGroup] | Sequence[ShardingRule],
    *,
    where: str = "config.parameter_groups",
) -> PyTree:
    """For every parameter, the first group whose pattern matches its whole path.

    Args:
      params: of the model; only the paths count.
      groups: the table.
      where: its place in the config, for errors.

    Raises:
      UserError: a pattern is no regular expression or matches nothing, or a parameter matches no pattern.
    """
    try:
        patterns = [re.compile(group.pattern) for group in groups]
    except re.error as error:
        raise UserError(f"{where}: {error.pattern!r} is no regular expression: {error}") from None
    used = set()

    def assign(path: Sequence, leaf: Any) -> ParameterGroup | ShardingRule:
        del leaf
        name = parameter_path(path)
        matches = [index for index, pattern in enumerate(patterns) if pattern.fullmatch(name)]
        if not matches:
            raise UserError(f"{where}: no pattern matches {name!r}; end the table with the pattern '.*'")
        used.update(matches)
        return groups[matches[0]]

    assigned = jax.tree_util.tree_map_with_path(assign, params)
    for index, group in enumerate(groups):
        if index not in used:
            raise UserError(f"{where}: pattern {group.pattern!r} matches no parameter of this model")
    return assigned


def make_optimizer(
    rule: Rule,
    learning_rate: optax.Schedule,
    groups: PyTree,
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    clip_norm: float | None = None,
    own: Mapping[str, Branch] | None = None,
) -> optax.GradientTransformation:
    """The whole gradient transformation.

    Args:
      rule: one of OPTIMIZERS, called.
      learning_rate: step to rate.
      groups: for every parameter its group, from `assign_groups`.
      l1: as in `Branch`.
      l2: as in `Branch`.
      clip_norm: scale the gradient of all parameters down to this global norm, before any decay is added.
      own: the pattern of a group to its own optimizer; the other groups share the first arguments.
    """
    parts = []
    if any(group.frozen for group in jax.tree.leaves(groups)):
        # A frozen gradient must not count towards the norm that is clipped, nor reach a moment.
        parts.append(_scale(jax.tree.map(lambda group: 0.0 if group.frozen else 1.0, groups)))
    if clip_norm is not None:
        parts.append(optax.clip_by_global_norm(clip_norm))
    shared = Branch(rule, learning_rate, l1, l2)
    if not own:
        return optax.chain(*parts, *_branch(shared, groups))
    # A frozen parameter goes past every rule, which could move it without a gradient or not take its shape.
    frozen, rest = "frozen", "rest"
    labels = jax.tree.map(lambda g: frozen if g.frozen else g.pattern if g.pattern in own else rest, groups)

    def among(label: str) -> PyTree:
        return jax.tree.map(lambda group, its: group if its == label else optax.MaskedNode(), groups, labels)

    branches = {label: optax.chain(*_branch(branch, among(label))) for label, branch in {rest: shared, **own}.items()}
    return optax.chain(*parts, optax.partition({frozen: optax.set_to_zero(), **branches}, labels))


def _branch(branch: Branch, groups: PyTree) -> list[optax.GradientTransformation]:
    """The links of the chain from the clipped gradient to the update, for parameters with these groups."""
    rule, learning_rate, l1, l2 = branch
    decay = jax.tree.map(lambda group: group.decay, groups)
    rate = jax.tree.map(lambda group: 0.0 if group.frozen else group.learning_rate, groups)
    parts = []
    if l2:
        parts.append(_add(lambda p, factor: l2 * factor * p, decay))
    if l1:
        parts.append(_add(lambda p, factor: l1 * factor * jnp.sign(p), decay))
    parts.append(rule.direction)
    if rule.weight_decay:
        parts.append(_add(lambda p, factor: rule.weight_decay * factor * p, decay))
    parts.append(rule.after)
    if any(factor != 1.0 for factor in jax.tree.leaves(rate)):
        parts.append(_scale(rate))
    return [*parts, optax.scale_by_learning_rate(learning_rate), rule.last]


def _add(term: Callable[[Array, float], Array], factors: PyTree) -> optax.GradientTransformation:
    """Add `term(parameter, factor)` to every update."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(lambda u, p, factor: u + term(p, factor), updates, params, factors)

    return optax.stateless(update)


def _scale(factors: PyTree) -> optax.GradientTransformation:
    """Multiply every update by its factor; a factor of zero gives zero even where the update is not finite."""

    def scaled(update: Array, factor: float) -> Array:
        return factor * update if factor else jnp.zeros_like(update)

    return optax.stateless(lambda updates, _: jax.tree.map(scaled, updates, factors))
