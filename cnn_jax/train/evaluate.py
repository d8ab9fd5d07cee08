"""Exact evaluation: every example counts once, whatever the batch size and the number of devices."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from cnn_jax.metrics import Metric
from cnn_jax.tasks.task import Task
from cnn_jax.types import Batch, PyTree

EvaluationStep = Callable[[PyTree, PyTree, Batch], PyTree]


def evaluation_step(
    params: PyTree, model_state: PyTree, batch: Batch, *, task: Task, batch_transform: Callable[[Batch], Batch]
) -> PyTree:
    """The metric states of one batch; a pure function.

    Args:
      params: of the model.
      model_state: of the model.
      batch: padded and masked, see `data.batches.evaluation_batches`.
      task: gives the loss and the metrics.
      batch_transform: normalisation, on the device.
    """
    # Nothing in evaluation is random: the key is a constant that no task may depend on.
    _, output = task.loss(params, model_state, batch_transform(batch), jax.random.key(0), train=False)
    return {name: metric.update(metric.empty(), output.values) for name, metric in task.metrics().items()}


def evaluate(step: EvaluationStep, params: PyTree, model_state: PyTree, batches: Iterable[Batch]) -> list[PyTree]:
    """The metric states of all batches, on the host.

    Args:
      step: `evaluation_step`, compiled.
      params: of the model.
      model_state: of the model.
      batches: on the device, or to be put there by `step`.
    """
    # Fetched after the last batch is under way, so that the device never waits for the host.
    return jax.device_get([step(params, model_state, batch) for batch in batches])


def nan_where_masked(values: Num[Array, "B *_"], mask: Float[Array, "B"]) -> Num[Array, "B *_"]:
    """Predictions, NaN for examples whose mask is 0; whole numbers stay as they are."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return values
    return jnp.where(jnp.expand_dims(mask, range(1, values.ndim)) > 0, values, jnp.nan)


def summarize(metrics: Mapping[str, Metric], states: Iterable[PyTree]) -> dict[str, Any]:
    """Merge states in 64 bits and compute: names to numbers, and to arrays where a metric gives one.

    Args:
      metrics: name to metric.
      states: one per batch; merging in 64 bits makes the totals independent of the batch size.
    """
    total: dict[str, PyTree] = {}
    for state in states:
        for name, metric in metrics.items():
            wide = jax.tree.map(_widen, state[name])
            total[name] = metric.merge(total[name], wide) if name in total else wide
    result: dict[str, Any] = {}
    for name, metric in metrics.items():
        result |= metric.compute(total[name])
    return result


def scalars(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The plain numbers among computed metrics, under `prefix/`."""
    return {f"{prefix}/{name}": float(value) for name, value in values.items() if np.ndim(value) == 0}


def _widen(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.int64 if np.issubdtype(np.asarray(x).dtype, np.integer) else np.float64)
