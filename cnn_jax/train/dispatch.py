"""Many steps in one dispatch: a scan over the step, whose batches are gathered from a split that lies on the device."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from cnn_jax.data.resident import epoch_orders, epochs_touched, resident_batch
from cnn_jax.data.sources import LabelledImages
from cnn_jax.train.sharding import divided, replicated
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import StepMetrics
from cnn_jax.types import Batch

Step: TypeAlias = Callable[[TrainState, StepMetrics, Batch, Key[Array, ""]], tuple[TrainState, StepMetrics]]
"""`(state, pending metrics, batch, key)` to state and metrics after one step."""

Advance: TypeAlias = Callable[[TrainState, StepMetrics, int, int], tuple[TrainState, StepMetrics]]
"""`(state, pending metrics, steps done, steps to take)` to state and metrics after them; may donate both."""


def several_steps(
    state: TrainState,
    pending: StepMetrics,
    step: Callable[[TrainState, StepMetrics, Batch], tuple[TrainState, StepMetrics]],
    batch: Callable[[Int[Array, ""]], Batch],
    *,
    steps: int | Int[Array, ""],
) -> tuple[TrainState, StepMetrics]:
    """Take steps one after the other, inside one program.

    Args:
      state: before the first step; its counter says which batch is next.
      pending: metrics so far.
      step: one step.
      batch: step number to batch.
      steps: how many; a device scalar makes a loop of any length, a number one whose length the compiler knows, which
        lets a GPU run ahead of the host.
    """

    def one(state: TrainState, pending: StepMetrics) -> tuple[TrainState, StepMetrics]:
        return step(state, pending, batch(state.step))

    if isinstance(steps, int):
        return jax.lax.scan(lambda carry, _: (one(*carry), None), (state, pending), length=steps)[0]
    return jax.lax.fori_loop(0, steps, lambda _, carry: one(*carry), (state, pending))


def resident_advance(
    step: Step,
    split: LabelledImages,
    key: Key[Array, ""],
    *,
    batch_size: int,
    steps_per_dispatch: int,
    mesh: jax.sharding.Mesh,
) -> Advance:
    """Steps over a split that is put on every device; batches are divided over the mesh, as those from the host are.

    Orders of epochs are computed on the device when a dispatch begins in another epoch than the last one did. There
    are two programs, compiled when they are first needed: `steps_per_dispatch` steps, and any smaller number.

    Args:
      step: not compiled.
      split: the training split.
      key: the run's key.
      batch_size: B.
      steps_per_dispatch: the most that one call takes.
      mesh: the devices.
    """
    whole, parts = replicated(mesh), divided(mesh)
    examples = len(split)
    epochs = epochs_touched(steps_per_dispatch, batch_size=batch_size, examples=examples)
    data, key = jax.device_put(({"image": split.images, "label": split.labels}, key), whole)
    orders_from = jax.jit(functools.partial(epoch_orders, epochs=epochs, examples=examples), out_shardings=whole)

    def program(
        state: TrainState,
        pending: StepMetrics,
        data: Batch,
        orders: Int[Array, "E N"],
        first: Int[Array, ""],
        key: Key[Array, ""],
        steps: int | Int[Array, ""],
    ) -> tuple[TrainState, StepMetrics]:
        def batch(index: Int[Array, ""]) -> Batch:
            made = resident_batch(data, orders, first, index, batch_size=batch_size)
            return jax.lax.with_sharding_constraint(made, parts)

        def one(state: TrainState, pending: StepMetrics, batch: Batch) -> tuple[TrainState, StepMetrics]:
            return step(state, pending, batch, key)

        return several_steps(state, pending, one, batch, steps=steps)

    full = jax.jit(
        functools.partial(program, steps=steps_per_dispatch), donate_argnums=(0, 1), out_shardings=(whole, whole)
    )
    shorter = jax.jit(program, donate_argnums=(0, 1), out_shardings=(whole, whole))

    @functools.lru_cache(maxsize=1)
    def orders(first: int) -> tuple[jax.Array, jax.Array]:
        on_device = jax.device_put(np.int32(first), whole)
        return orders_from(key, on_device), on_device

    def advance(state: TrainState, pending: StepMetrics, done: int, steps: int) -> tuple[TrainState, StepMetrics]:
        inputs = (state, pending, data, *orders(done * batch_size // examples), key)
        if steps == steps_per_dispatch:
            return full(*inputs)
        return shorter(*inputs, jax.device_put(np.int32(steps), whole))

    return advance
