"""The training state: arrays only, so that it can be vmapped, sharded and checkpointed as it is."""

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from cnn_jax.ops.random import named_key
from cnn_jax.tasks.task import Task
from cnn_jax.train.optim import parameter_path
from cnn_jax.types import Batch, Leaf, PyTree


class TrainState(flax.struct.PyTreeNode):
    """Everything that training changes.

    Attributes:
      step: optimizer steps done, int32 `[]`.
      params: what the optimizer changes.
      model_state: what the forward pass changes, such as BatchNorm statistics.
      opt_state: the optimizer's own.
      ema: `{"params", "model_state"}` averaged over steps, or None.
    """

    step: Leaf
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    ema: PyTree


def create_state(
    key: Key[Array, ""],
    batch: Batch,
    *,
    task: Task,
    optimizer: optax.GradientTransformation,
    ema: bool,
    values: Mapping[str, np.ndarray] | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      key: the run's key.
      batch: one batch, for its shapes.
      task: gives parameters.
      optimizer: gives its own state.
      ema: whether to keep averages; they start as copies.
      values: parameter path to the values that it starts with instead of the task's.
    """
    params, model_state = task.init(named_key(key, "init"), batch)
    if values:

        def start(path: Sequence, leaf: Array) -> Array:
            name = parameter_path(path)
            return jnp.asarray(values[name], leaf.dtype) if name in values else leaf

        params = jax.tree_util.tree_map_with_path(start, params)
    averages = jax.tree.map(jnp.copy, {"params": params, "model_state": model_state}) if ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        ema=averages,
    )


def is_finite(state: TrainState) -> bool:
    """Whether all numbers of a state are finite: one that is not is worth no checkpoint.

    Arrays that are divided over several processes are not looked at, as all of these must come to the same answer.
    """
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    whole = [leaf for leaf in leaves if leaf.is_fully_replicated or leaf.is_fully_addressable]
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in whole)


def evaluation_variables(state: TrainState) -> tuple[PyTree, PyTree]:
    """(params, model_state) to evaluate with: the averages where they are kept."""
    if state.ema is None:
        return state.params, state.model_state
    return state.ema["params"], state.ema["model_state"]
