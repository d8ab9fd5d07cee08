"""Where a training step first made a number that is not finite, and by how much rates are reduced because of it.

A step that is not finite changes nothing (`keep_last_finite`), so that the state before it is still there when the next
line of the log tells of it: the step can be taken apart then, and nothing has to be looked at, or waited for, before.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cnn_jax.errors import DivergenceError
from cnn_jax.ops.random import named_key
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.optim import parameter_path
from cnn_jax.train.sharding import fetch
from cnn_jax.train.state import TrainState
from cnn_jax.types import Batch, PyTree

FACTOR = 0.5
"""What `restore_and_reduce` multiplies all learning rates by, each time."""
MOST_REDUCTIONS = 10


class RatesChangedError(Exception):
    """The run has to go on with other learning rates than the experiment that was built has.

    Args:
      reduced_at: steps at which training diverged and the rates were reduced; `run.build` takes them.
      message: why.
    """

    def __init__(self, reduced_at: Sequence[int], message: str):
        super().__init__(message)
        self.reduced_at = tuple(reduced_at)


def reduction(experiment: Experiment, error: DivergenceError) -> RatesChangedError | None:
    """What `train.on_divergence` makes of a divergence; None: the run has ended.

    Args:
      experiment: the run.
      error: of the step that failed.
    """
    reduced_at = (*experiment.reduced_at, error.step)
    if experiment.config.train.on_divergence == "stop" or len(reduced_at) > MOST_REDUCTIONS:
        return None
    what, scale = str(error).partition("; lower")[0], FACTOR ** len(reduced_at)
    return RatesChangedError(reduced_at, f"{what}; going back, with {scale:g} × the learning rates")


def check_rates(experiment: Experiment, reduced_at: Sequence[int]) -> None:
    """Compare the rates of an experiment with those that a checkpoint was trained with.

    Args:
      experiment: the run.
      reduced_at: as the checkpoint has it; a divergence behind it may have reduced them since.

    Raises:
      RatesChangedError: the run was going on with reduced rates.
    """
    if tuple(reduced_at) != experiment.reduced_at[: len(reduced_at)]:
        scale = FACTOR ** len(reduced_at)
        raise RatesChangedError(reduced_at, f"training diverged at steps {list(reduced_at)}: the rates are {scale:g} ×")


def explain(experiment: Experiment, state: TrainState, error: DivergenceError) -> DivergenceError:
    """The same error, whose message also names what was not finite first.

    Args:
      experiment: the run.
      state: before the step that failed.
      error: of that step.
    """
    head, separator, advice = str(error).partition("; ")
    try:
        found = first_not_finite(experiment, state, error.step)
    # Too little memory, data that are gone: the run's end is told whatever comes here.
    except (RuntimeError, ValueError, TypeError, LookupError, OSError, MemoryError) as failure:
        found = f"unknown ({str(failure).strip().partition(chr(10))[0][:100]})"
    return DivergenceError(f"{head}; not finite first: {found}{separator}{advice}", step=error.step)


def first_not_finite(experiment: Experiment, state: TrainState, step: int) -> str:
    """What of a step is not finite first: an input, the output of a layer, the loss, a gradient or an update.

    Layers count in the order in which they finish, so that an inner one is named before those that it is part of. The
    step is computed on one device, whatever the run does.

    Args:
      experiment: the run.
      state: before the step.
      step: counted from 1.
    """
    host = fetch((state.params, state.model_state, state.opt_state), experiment.mesh)
    batch = fetch(experiment.batch(step - 1), experiment.mesh)
    params, model_state, opt_state = jax.tree.map(jnp.asarray, host)
    for what, tree in (("parameter", params), ("statistic", model_state), ("optimizer's", opt_state)):
        if bad := _not_finite(tree):
            return f"the {what} {bad[0]}, before the step"
    batch = jax.jit(experiment.training_transform())(experiment.key, jax.tree.map(jnp.asarray, batch))
    if not np.isfinite(batch["image"]).all():
        return "the augmented images"
    key = jax.random.fold_in(named_key(experiment.key, "step"), step - 1)
    loss = functools.partial(_loss, experiment)
    layers, value = _layers(loss, params, model_state, batch, key)
    bad = next((name for name, finite in layers if not finite), None)
    if bad is not None:
        return f"the output of the layer {bad}"
    if not np.isfinite(value):
        return "the loss"
    gradients = jax.jit(jax.grad(loss))(params, model_state, batch, key)
    if bad := _not_finite(gradients):
        order = [name for name, _ in layers]
        # Gradients are made from the last layer to the first.
        return f"the gradient of {max(bad, key=lambda path: _place(path, order))}"
    if not np.isfinite(jax.jit(_norm)(gradients)):
        return "the gradient's norm, which overflows"
    updates, _ = jax.jit(experiment.optimizer.update)(gradients, opt_state, params)
    if bad := _not_finite(updates):
        return f"the optimizer's update of {bad[0]}"
    return "nothing, when the step was computed again on one device"


def _loss(experiment: Experiment, params: PyTree, model_state: PyTree, batch: Batch, key: Any) -> Float[Array, ""]:
    return experiment.task.loss(params, model_state, batch, key, train=True)[0]


def _layers(
    loss: Any, params: PyTree, model_state: PyTree, batch: Batch, key: Any
) -> tuple[list[tuple[str, bool]], Any]:
    """(layer, whether its output is finite) in the order in which layers finish, and the loss."""
    order: list[str] = []
    seen: dict[str, bool] = {}

    def note(name: str, finite: Bool[Array, ""]) -> None:
        seen[name] = seen.get(name, True) and bool(finite)

    def watch(call: Any, arguments: Any, options: Any, context: Any) -> Any:
        output = call(*arguments, **options)
        if context.method_name == "__call__":
            name = "/".join(context.module.path) or "the whole network"
            order.append(name)
            # A callback, because a layer may be computed inside another transformation, such as rematerialisation.
            jax.debug.callback(functools.partial(note, name), _all_finite(output))
        return output

    with nn.intercept_methods(watch):
        value = jax.jit(loss)(params, model_state, batch, key)
    jax.effects_barrier()
    return [(name, seen.get(name, True)) for name in dict.fromkeys(order)], value


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in leaves])) if leaves else jnp.asarray(True)


def _norm(tree: PyTree) -> Float[Array, ""]:
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def _place(path: str, order: Sequence[str]) -> int:
    """When the layer that has a parameter finishes."""
    layer = path.rpartition("/")[0]
    return order.index(layer) if layer in order else -1


def _not_finite(tree: PyTree) -> Sequence[str]:
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return [parameter_path(path) for path, leaf in leaves if not np.isfinite(leaf).all()]
