"""The training state: arrays only, so that it can be vmapped, sharded and checkpointed as it is."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from cnn_jax.ops.random import named_key
from cnn_jax.tasks.task import Task
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
    key: Key[Array, ""], batch: Batch, *, task: Task, optimizer: optax.GradientTransformation, ema: bool
) -> TrainState:
    """The state before the first step.

    Args:
      key: the run's key.
      batch: one batch, for its shapes.
      task: gives parameters.
      optimizer: gives its own state.
      ema: whether to keep averages; they start as copies.
    """
    params, model_state = task.init(named_key(key, "init"), batch)
    averages = jax.tree.map(jnp.copy, {"params": params, "model_state": model_state}) if ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        ema=averages,
    )


def evaluation_variables(state: TrainState) -> tuple[PyTree, PyTree]:
    """(params, model_state) to evaluate with: the averages where they are kept."""
    if state.ema is None:
        return state.params, state.model_state
    return state.ema["params"], state.ema["model_state"]
