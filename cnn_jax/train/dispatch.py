"""Many steps in one dispatch: a scan over the step, whose batches are gathered from a split that lies on the device."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int, Key

from cnn_jax.data.resident import epoch_orders, epochs_touched, resident_batch
from cnn_jax.data.sources import LabelledImages
from cnn_jax.train.sharding import place_whole
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import StepMetrics
from cnn_jax.types import Batch, PyTree

Step: TypeAlias = Callable[[Key[Array, ""], TrainState, StepMetrics, Batch], tuple[TrainState, StepMetrics]]
"""`(key, state, pending metrics, batch)` to state and metrics after one step."""

Advance: TypeAlias = Callable[[PyTree, PyTree, int, int], tuple[PyTree, PyTree]]
"""`(state, pending metrics, steps done, steps to take)` to state and metrics after them; may donate both.

Those of one run are a TrainState and a StepMetrics; those of many are what `Program.stack` makes of them.
"""


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
    # Each batch is made one step ahead and carried: what a loop carries is written to memory once, while XLA would fuse
    # the gathering into every consumer of the batch, and a convolution reads each pixel many times.
    last = state.step + steps - 1

    def one(carry: tuple[TrainState, StepMetrics, Batch]) -> tuple[TrainState, StepMetrics, Batch]:
        state, pending, now = carry
        following = batch(jnp.minimum(state.step + 1, last))
        return *step(state, pending, now), following

    start = state, pending, batch(state.step)
    if isinstance(steps, int):
        return jax.lax.scan(lambda carry, _: (one(carry), None), start, length=steps)[0][:2]
    return jax.lax.fori_loop(0, steps, lambda _, carry: one(carry), start)[:2]


def resident_steps(
    key: Key[Array, ""],
    state: TrainState,
    pending: StepMetrics,
    orders: Int[Array, "E N"],
    data: Batch,
    first: Int[Array, ""],
    steps: int | Int[Array, ""],
    *,
    step: Step,
    batch_size: int,
    sharding: NamedSharding | None,
) -> tuple[TrainState, StepMetrics]:
    """Steps of one run over a split on the device.

    Args:
      key: the run's key.
      state: before the first step.
      pending: metrics so far.
      orders: of all epochs that these steps touch.
      data: the split, see `resident_batch`.
      first: the first of the epochs.
      steps: as in `several_steps`.
      step: one step.
      batch_size: B.
      sharding: how batches are divided over devices, or None where each device has runs of its own.
    """

    def batch(index: Int[Array, ""]) -> Batch:
        made = resident_batch(data, orders, first, index, batch_size=batch_size)
        return made if sharding is None else jax.lax.with_sharding_constraint(made, sharding)

    def one(state: TrainState, pending: StepMetrics, batch: Batch) -> tuple[TrainState, StepMetrics]:
        return step(key, state, pending, batch)

    return several_steps(state, pending, one, batch, steps=steps)


def resident_advance(
    program: Callable[..., tuple[TrainState, StepMetrics]],
    orders: Callable[..., Array],
    split: LabelledImages,
    *,
    batch_size: int,
    steps_per_dispatch: int,
    state_sharding: PyTree,
    sharding: NamedSharding,
    mesh: Mesh,
    compiler_options: Mapping[str, str],
) -> Callable[[PyTree], Advance]:
    """Steps over a split that is put on every device, for any context: what else the program needs, on the devices.

    Orders of epochs are computed on the device when a dispatch begins in another epoch than the last one did. There
    are two programs, compiled when they are first needed: `steps_per_dispatch` steps, and any smaller number. On a CPU,
    which gains nothing by knowing how many steps there are, one program takes any number of several steps.

    Args:
      program: `(context, state, pending, orders, data, first epoch, steps)` to state and metrics after the steps.
      orders: `(context, first epoch, *, epochs, examples)` to the orders of so many epochs.
      split: the training split.
      batch_size: B.
      steps_per_dispatch: the most that one call takes.
      state_sharding: of the state.
      sharding: of metrics and orders.
      mesh: the devices, each of which gets the split whole.
      compiler_options: of the program, for XLA.
    """
    examples = len(split)
    epochs = epochs_touched(steps_per_dispatch, batch_size=batch_size, examples=examples)
    data = place_whole({"image": split.images, "label": split.labels}, mesh)
    compiled_orders = jax.jit(functools.partial(orders, epochs=epochs, examples=examples), out_shardings=sharding)
    settings: dict[str, Any] = {
        "donate_argnums": (1, 2),
        "out_shardings": (state_sharding, sharding),
        "compiler_options": dict(compiler_options),
    }
    any_number = jax.jit(program, **settings)
    runs_ahead = steps_per_dispatch == 1 or mesh.devices.flat[0].platform != "cpu"
    full = jax.jit(functools.partial(program, steps=steps_per_dispatch), **settings) if runs_ahead else None

    def with_context(context: PyTree) -> Advance:
        @functools.lru_cache(maxsize=1)
        def orders_from(first: int) -> tuple[jax.Array, jax.Array]:
            on_device = place_whole(np.int32(first), mesh)
            return compiled_orders(context, on_device), on_device

        def advance(state: TrainState, pending: StepMetrics, done: int, steps: int) -> tuple[TrainState, StepMetrics]:
            made, first = orders_from(done * batch_size // examples)
            inputs = (context, state, pending, made, data, first)
            if full is not None and steps == steps_per_dispatch:
                return full(*inputs)
            return any_number(*inputs, place_whole(np.int32(steps), mesh))

        return advance

    return with_context


def resident_batches(
    key: Key[Array, ""], split: LabelledImages, *, batch_size: int, sharding: NamedSharding, mesh: Mesh
) -> Callable[[int], Batch]:
    """Steps done to the next batch of a split that is put on every device, gathered by a program of its own.

    For one step in a dispatch: a program of step and gathering would gather again in every consumer of the batch.

    Args:
      key: the run's key.
      split: the training split.
      batch_size: B.
      sharding: how batches are divided over devices.
      mesh: the devices, each of which gets the split whole.
    """
    examples = len(split)
    epochs = epochs_touched(1, batch_size=batch_size, examples=examples)
    data = place_whole({"image": split.images, "label": split.labels}, mesh)
    orders = jax.jit(functools.partial(epoch_orders, epochs=epochs, examples=examples))
    gather = jax.jit(functools.partial(resident_batch, batch_size=batch_size), out_shardings=sharding)

    @functools.lru_cache(maxsize=1)
    def orders_from(first: int) -> tuple[jax.Array, jax.Array]:
        on_device = place_whole(np.int32(first), mesh)
        return orders(key, on_device), on_device

    def batch(done: int) -> Batch:
        return gather(data, *orders_from(done * batch_size // examples), place_whole(np.int32(done), mesh))

    return batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """How one run, or many together, are computed.

    Attributes:
      advance: takes steps of all runs.
      stack: the states, or metrics, of the runs to what `advance` takes.
      split: and back.
      close: ends what reads ahead, if anything does.
      record: of many runs, the number of one to what its passport says of the program, see `program_record`.
    """

    advance: Advance
    stack: Callable[[Sequence[PyTree]], PyTree]
    split: Callable[[PyTree], Sequence[PyTree]]
    close: Callable[[], None] = lambda: None
    record: Callable[[int], dict[str, Any]] | None = None
