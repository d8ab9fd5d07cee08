"""One training step: a free, pure function; every way of running it is a transformation of it."""

from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from cnn_jax.metrics import Metric
from cnn_jax.ops.random import named_key
from cnn_jax.tasks.task import Output, Task
from cnn_jax.train.state import TrainState
from cnn_jax.types import Batch, Leaf, PyTree


class StepMetrics(flax.struct.PyTreeNode):
    """What one step, or several merged ones, tell; `merge_metrics` is associative. All but `states` are scalars `[]`.

    Attributes:
      states: name to the state of a mergeable metric.
      gradient_norm: of the last step, before clipping.
      learning_rate: of the last step.
      bad_step: the first step, counted from 1, whose loss, gradient or update is not finite; -1 for none.
      bad_loss: the loss of that step.
      bad_gradient_norm: the gradient norm of that step.
      bad_learning_rate: the learning rate of that step.
    """

    states: PyTree
    gradient_norm: Leaf
    learning_rate: Leaf
    bad_step: Leaf
    bad_loss: Leaf
    bad_gradient_norm: Leaf
    bad_learning_rate: Leaf


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    key: Key[Array, ""],
    task: Task,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    batch_transform: Callable[[Key[Array, ""], Batch], Batch],
    accumulate: int = 1,
    ema_decay: float | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Take one optimizer step.

    Args:
      state: before the step.
      batch: arrays with leading axis B, see `cnn_jax.types`.
      key: the run's key; what is random in step s depends on (key, s) or on (key, epoch, example) alone.
      task: gives the loss and the metrics.
      optimizer: gradients to updates, the learning rate included.
      learning_rate: the schedule that the optimizer uses, for the log.
      batch_transform: augmentation and normalisation, on the device.
      accumulate: microbatches whose gradients are averaged; B must be divisible by it.
      ema_decay: decay of the averages in `state.ema`; must be given exactly where those are kept.
      axis_name: of the devices, where each runs this on its own part of the batch (`pmap`, `shard_map`). Layers
        then see that part alone: BatchNorm normalises by its statistics, and dropout has a key for each. Gradients and
        loss are those of the mean over the whole batch, running statistics the mean over devices, and results equal on
        all of them.

    Returns:
      The state after the step, and metrics measured with the parameters before it.
    """
    batch = batch_transform(key, batch)
    dropout_key = jax.random.fold_in(named_key(key, "step"), state.step)
    if axis_name is not None:
        dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
    gradients, loss, output = _gradients(state, batch, dropout_key, task=task, accumulate=accumulate)
    states = {name: metric.update(metric.empty(), output.values) for name, metric in task.training_metrics().items()}
    if axis_name is not None:
        gradients, loss, output, states = _over_devices(gradients, loss, output, states, axis_name)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema_decay is not None:
        ema = _average(ema, {"params": params, "model_state": output.model_state}, state.step, ema_decay)
    gradient_norm = optax.tree.norm(gradients)
    rate = jnp.asarray(learning_rate(state.step), jnp.float32)
    # The update too: the last step of a run is followed by no loss that would tell.
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(gradient_norm) & jnp.isfinite(optax.tree.norm(updates)))
    metrics = StepMetrics(
        states=states,
        gradient_norm=gradient_norm,
        learning_rate=rate,
        bad_step=jnp.where(bad, state.step + 1, -1),
        bad_loss=loss,
        bad_gradient_norm=gradient_norm,
        bad_learning_rate=rate,
    )
    new_state = TrainState(
        step=state.step + 1, params=params, model_state=output.model_state, opt_state=opt_state, ema=ema
    )
    return new_state, metrics


def _gradients(
    state: TrainState, batch: Batch, key: Key[Array, ""], *, task: Task, accumulate: int
) -> tuple[PyTree, Float[Array, ""], Output]:
    """Gradients of the mean loss, that loss, and the output of the whole batch."""

    def loss_and_gradients(model_state: PyTree, batch: Batch, key: Key[Array, ""]):
        def loss(params: PyTree):
            return task.loss(params, model_state, batch, key, train=True)

        (value, output), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        return value, output, gradients

    if accumulate == 1:
        value, output, gradients = loss_and_gradients(state.model_state, batch, key)
        return gradients, value, output

    # [B, ...] -> [B / k, k, ...] -> [k, B / k, ...]: microbatch j holds examples j, j + k, ..., so that a batch that is
    # divided over devices stays where it is.
    micro = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, accumulate, *x.shape[1:]), 0, 1), dict(batch))

    def one(carry, inputs):
        model_state, gradient_sum, loss_sum, weight_sum = carry
        index, microbatch = inputs
        value, output, gradients = loss_and_gradients(model_state, microbatch, jax.random.fold_in(key, index))
        gradient_sum = jax.tree.map(lambda total, g: total + output.weight * g, gradient_sum, gradients)
        carry = output.model_state, gradient_sum, loss_sum + output.weight * value, weight_sum + output.weight
        return carry, output.values

    zero = jnp.zeros((), jnp.float32)
    start = state.model_state, jax.tree.map(jnp.zeros_like, state.params), zero, zero
    (model_state, gradient_sum, loss_sum, weight), values = jax.lax.scan(one, start, (jnp.arange(accumulate), micro))
    weight = jnp.maximum(weight, jnp.finfo(jnp.float32).tiny)
    # [k, B / k, ...] -> [B, ...], in the order of the batch.
    values = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), values)
    output = Output(model_state=model_state, weight=weight, values=values)
    return jax.tree.map(lambda g: g / weight, gradient_sum), loss_sum / weight, output


def _over_devices(
    gradients: PyTree, loss: Float[Array, ""], output: Output, states: PyTree, axis_name: str
) -> tuple[PyTree, Float[Array, ""], Output, PyTree]:
    """What every device found in its part of the batch, as one: weighted means, mean statistics, merged metrics.

    A device's weight is the denominator of its mean loss, so that the mean is exact whatever examples are masked.
    """
    weighted = jax.tree.map(lambda x: output.weight * x, (gradients, loss))
    devices = jax.lax.axis_size(axis_name)
    statistics = jax.tree.map(lambda x: x / devices, output.model_state)
    # The states of metrics are sums over examples, so adding is merging; added together, it is one message.
    summed, weight, statistics, states = jax.lax.psum((weighted, output.weight, statistics, states), axis_name)
    mean_weight = jnp.maximum(weight, jnp.finfo(jnp.float32).tiny)
    gradients, loss = jax.tree.map(lambda x: x / mean_weight, summed)
    return gradients, loss, Output(model_state=statistics, weight=weight, values=output.values), states


def _average(ema: PyTree, new: PyTree, step: Int[Array, ""], decay: float) -> PyTree:
    """Move the averages towards new values: `d * ema + (1 - d) * new`.

    The decay d is `min(decay, (1 + t) / (10 + t))` with t the steps done, so that a short run does not evaluate its
    random start (TensorFlow's ExponentialMovingAverage with num_updates).
    """
    t = step.astype(jnp.float32)
    d = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda old, value: d * old + (1.0 - d) * value, ema, new)


def empty_metrics(task: Task) -> StepMetrics:
    """The metrics of no steps."""
    zero = jnp.zeros((), jnp.float32)
    return StepMetrics(
        states={name: metric.empty() for name, metric in task.training_metrics().items()},
        gradient_norm=zero,
        learning_rate=zero,
        bad_step=jnp.full((), -1, jnp.int32),
        bad_loss=zero,
        bad_gradient_norm=zero,
        bad_learning_rate=zero,
    )


def merge_metrics(metrics: Mapping[str, Metric], earlier: StepMetrics, later: StepMetrics) -> StepMetrics:
    """The metrics of two consecutive stretches of steps."""
    keep = earlier.bad_step >= 0

    def first(a: Array, b: Array) -> Array:
        return jnp.where(keep, a, b)

    return StepMetrics(
        states={name: metric.merge(earlier.states[name], later.states[name]) for name, metric in metrics.items()},
        gradient_norm=later.gradient_norm,
        learning_rate=later.learning_rate,
        bad_step=first(earlier.bad_step, later.bad_step),
        bad_loss=first(earlier.bad_loss, later.bad_loss),
        bad_gradient_norm=first(earlier.bad_gradient_norm, later.bad_gradient_norm),
        bad_learning_rate=first(earlier.bad_learning_rate, later.bad_learning_rate),
    )


def keep_last_finite(metrics: StepMetrics, before: TrainState, after: TrainState) -> TrainState:
    """The state after a step, unless this or an earlier step was not finite: then the state before that one.

    Args:
      metrics: of this step, merged with those since the last line of the log, at which a bad step is found.
      before: this step.
      after: this step.
    """
    good = metrics.bad_step < 0
    return jax.tree.map(lambda new, old: jnp.where(good, new, old), after, before)
