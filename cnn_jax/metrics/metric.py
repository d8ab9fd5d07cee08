"""What a metric is: four pure methods around a state that holds sums.

Every state is a dictionary of sums over examples, so merging is addition, and how the examples were divided into
batches, devices or hosts, padded and ordered cannot matter. What that promises, to the bit and in numbers:

* Counts are integers: equal for every split and order, exactly. (On the device int32: up to 2,147,483,647 examples.)
* Sums of real numbers: `update` adds one batch in float32, so two splits of the same examples agree to float32
  rounding, a relative 1e-6 where no terms cancel. From there on the caller decides: states that are merged on the host
  with float64 leaves agree to a relative 1e-12 for every order and grouping, while a float32 state that is carried over
  thousands of batches on the device adds a rounding error with each.
* An example whose mask is 0 never counts, whatever its label, and whatever NaN its logits and loss hold.

A metric is a frozen dataclass, so it is hashable and can be a static argument of `jax.jit`.
"""

import operator
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from cnn_jax.types import Array

State: TypeAlias = dict[str, Any]
"""Sums over examples by name: device arrays, host arrays or NumPy scalars."""

Values: TypeAlias = Mapping[str, Array]
"""What one batch offers to the metrics, all with leading axis B:

* `logits`, float `[B K]`; `label`, int32 `[B]`;
* `mask`, float32 `[B]`: 1 for an example that counts, 0 for padding;
* `loss`, float32 `[B]`: per example, already multiplied by its class weight;
* `weight`, float32 `[B]`: the example's weight in the mean loss, 1 without class weights.
"""


@runtime_checkable
class Metric(Protocol):
    """A quantity over a set of examples that can be computed in parts.

    `merge` is associative and commutative with `empty()` as its neutral element, exactly for counts and up to rounding
    for sums of real numbers (see the module); `update(state, values)` equals `merge(state, update(empty(), values))`.
    """

    def empty(self) -> State:
        """The state of no examples."""
        ...

    def update(self, state: State, values: Values) -> State:
        """The state with one batch more; pure and traceable, so it can run under `jit`, `vmap` and `scan`."""
        ...

    def merge(self, a: State, b: State) -> State:
        """The state of the examples of both; takes device arrays (also inside `jit`) and host arrays."""
        ...

    def compute(self, state: State) -> dict[str, float | np.ndarray]:
        """The results by name, on the host in float64; NaN where there were no examples."""
        ...


def add_states(a: State, b: State) -> State:
    """Leaf by leaf the sum of two states of one metric, in the leaves' own types.

    Example:
      >>> int(add_states({"count": np.int64(2)}, {"count": np.int64(3)})["count"])
      5
    """
    return jax.tree.map(operator.add, a, b)


def counted(values: Values) -> Bool[jax.Array, "B"]:
    """Which examples of a batch count: those whose mask is not 0."""
    return jnp.asarray(values["mask"]) > 0


def ratio(numerator: Array | np.generic, denominator: Array | np.generic, *, empty: float) -> np.ndarray:
    """The quotient in float64, elementwise, with `empty` where the denominator is 0, and no NumPy warning.

    Example:
      >>> ratio(np.array([1, 1]), np.array([4, 0]), empty=0.0)
      array([0.25, 0.  ])
    """
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    defined = denominator != 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), empty)
