"""Means over examples, weighted as the loss weighs them."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cnn_jax.metrics.metric import State, Values, add_states, counted, ratio


@dataclasses.dataclass(frozen=True)
class WeightedMean:
    r"""Mean of a per-example value as `torch.nn.CrossEntropyLoss(weight=..., reduction="mean")` takes it.

    $$\frac{\sum_i m_i v_i}{\sum_i m_i w_i}$$
    over examples with mask $m$, values $v$ and weights $w$. The value has been multiplied by its weight already, as the
    losses with class weights return it; without class weights every weight is 1 and this is the plain mean. So the
    result equals the mean loss of the whole set, which the mean of the batches' means does not.

    Results: one number under the name `value`. NaN if no example counts or all weights are 0, and if any counted value
    is NaN: a diverged loss stays visible.

    Attributes:
      value: the key of the values to average, float `[B]`, and the name of the result.

    Example:
      >>> metric = WeightedMean()
      >>> values = {"loss": jnp.array([3.0, 1.0, jnp.nan]), "weight": jnp.array([2.0, 1.0, 1.0])}
      >>> metric.compute(metric.update(metric.empty(), {**values, "mask": jnp.array([1.0, 1.0, 0.0])}))
      {'loss': 1.3333333333333333}
    """

    value: str = "loss"

    def empty(self) -> State:
        """The state of no examples: `total` and `weight`, float32 scalars."""
        return {"total": jnp.zeros((), jnp.float32), "weight": jnp.zeros((), jnp.float32)}

    def update(self, state: State, values: Values) -> State:
        """Adds the masked sums of `values[self.value]` and `values["weight"]`."""
        # Selected, not multiplied: padding may hold NaN, and 0 x NaN is NaN.
        keep = counted(values)
        total = jnp.sum(jnp.where(keep, jnp.asarray(values[self.value], jnp.float32), 0.0))
        weight = jnp.sum(jnp.where(keep, jnp.asarray(values["weight"], jnp.float32), 0.0))
        return add_states(state, {"total": total, "weight": weight})

    def merge(self, a: State, b: State) -> State:
        """The sum of both states."""
        return add_states(a, b)

    def compute(self, state: State) -> dict[str, float | np.ndarray]:
        """The mean, under the name `value`."""
        return {self.value: float(ratio(state["total"], state["weight"], empty=np.nan))}
