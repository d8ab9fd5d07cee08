"""An experiment: the parts that a config stands for, and the compiled functions made of them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from cnn_jax.data.ahead import InTurn
from cnn_jax.data.batches import evaluation_batches, training_batch
from cnn_jax.data.resident import epoch_orders
from cnn_jax.data.stream import StreamedImages
from cnn_jax.data.transform import evaluation_transform, training_transform
from cnn_jax.tasks.task import Task
from cnn_jax.train.compiler import compiler_options, creation_options
from cnn_jax.train.config import Config
from cnn_jax.train.dispatch import Advance, Program, Step, resident_advance, resident_batches, resident_steps
from cnn_jax.train.evaluate import EvaluationStep, evaluate, evaluation_step, scalars, summarize
from cnn_jax.train.lift import Traced, trace
from cnn_jax.train.plan import Plan
from cnn_jax.train.sharding import (
    divide_updates,
    divided,
    gather,
    local_rows,
    per_device,
    place_batch,
    place_whole,
    replicated,
    state_sharding,
)
from cnn_jax.train.splits import Split
from cnn_jax.train.state import TrainState, create_state, evaluation_variables
from cnn_jax.train.step import StepMetrics, empty_metrics, keep_last_finite, merge_metrics, train_step
from cnn_jax.types import Batch, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a config stands for, built and checked; nothing has been trained.

    Attributes:
      config: with every default filled in.
      splits: split name to examples.
      model: the network.
      task: what a batch means.
      optimizer: gradients to updates.
      schedule: step to learning rate.
      plan: when things happen.
      mesh: the devices.
      mean: per channel, in units of [0, 1].
      std: per channel, in units of [0, 1].
      initial_values: parameter path to the values that it starts with instead of the task's.
      reduced_at: steps at which training diverged, each of which halved all learning rates, see `divergence`.
    """

    config: Config
    splits: Mapping[str, Split]
    model: nn.Module
    task: Task
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    plan: Plan
    mesh: jax.sharding.Mesh
    mean: tuple[float, ...]
    std: tuple[float, ...]
    initial_values: Mapping[str, np.ndarray]
    reduced_at: tuple[int, ...] = ()

    @property
    def key(self) -> Key[Array, ""]:
        """The run's key: a function of the seed alone."""
        return jax.random.key(self.config.seed)

    def batch(self, step: int) -> Batch:
        """The training batch of a step, on the devices; each process gathers the rows that its devices hold."""
        train, seed, size = self.splits["train"], self.config.seed, self.config.data.batch_size
        rows = local_rows(size, self.mesh)
        if isinstance(train, StreamedImages):
            local = train.training_batch(seed=seed, step=step, batch_size=size, rows=rows)
        else:
            local = training_batch(train, seed=seed, step=step, batch_size=size, rows=rows)
        return place_batch(local, rows, size=size, mesh=self.mesh)

    def evaluation_batches(self, split: str) -> Iterator[Batch]:
        """Every example of a split once, on the devices."""
        options = {"batch_size": self.config.data.evaluation_batch_size, "multiple_of": self.mesh.devices.size}
        data, mesh = self.splits[split], self.mesh
        if isinstance(data, StreamedImages):
            size = data.evaluation_batch_size(**options)
            rows = local_rows(size, mesh)
            for local in data.evaluation_batches(rows=rows, **options):
                yield place_batch(local, rows, size=size, mesh=mesh)
            return
        for batch in evaluation_batches(data, **options):
            count = len(batch["mask"])
            rows = local_rows(count, mesh)
            local = batch if len(rows) == count else {name: values[rows] for name, values in batch.items()}
            yield place_batch(local, rows, size=count, mesh=mesh)

    def initial_state(self) -> TrainState:
        """The state before the first step, on the devices."""
        return self.compiled_creation()(self.key)

    def compiled_creation(self) -> Callable[[Key[Array, ""]], TrainState]:
        """A run's key to the state before its first step, under jit over the mesh."""
        return jax.jit(self._create_state, out_shardings=self.state_sharding, compiler_options=creation_options())

    def abstract_state(self) -> TrainState:
        """Shapes, types and shardings of the state, without computing it."""
        shapes, places = self._shapes, self.state_sharding
        return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, places)

    @functools.cached_property
    def _shapes(self) -> TrainState:
        return jax.eval_shape(self._create_state, self.key)

    @functools.cached_property
    def state_sharding(self) -> TrainState:
        """Where every array of the state lies."""
        return state_sharding(self._shapes, self.mesh, self.config.parallel.sharding)

    @functools.cached_property
    def compiler_options(self) -> dict[str, str]:
        """For the programs of this run that train."""
        return compiler_options(self._shapes.params, gradients=True)

    @functools.cached_property
    def evaluation_options(self) -> dict[str, str]:
        """For the programs of this run that evaluate or predict."""
        return compiler_options(self._shapes.params, gradients=False)

    def _create_state(self, key: Key[Array, ""]) -> TrainState:
        # One image gives the shapes: parameters do not depend on the batch size.
        batch = {"image": jnp.zeros((1, *self.splits["train"].image_shape), jnp.float32)}
        ema = self.config.train.ema is not None
        return create_state(key, batch, task=self.task, optimizer=self.optimizer, ema=ema, values=self.initial_values)

    def empty_metrics(self) -> StepMetrics:
        """The metrics of no steps, on every device."""
        return place_whole(jax.device_get(empty_metrics(self.task)), self.mesh)

    def training_transform(self) -> Callable[[Key[Array, ""], Batch], Batch]:
        """Augmentation and normalisation of a training batch: `(key, batch)`."""
        return functools.partial(
            training_transform,
            augmentations=self.config.data.augment,
            num_classes=self.config.model["num_classes"],
            mean=self.mean,
            std=self.std,
        )

    def bare_step(self) -> Callable[..., tuple[TrainState, StepMetrics]]:
        """`train_step` with this experiment's parts: `(state, batch, *, key)`."""
        train = self.config.train
        sharded = self.mesh.shape["model"] > 1
        return functools.partial(
            train_step,
            task=self.task,
            optimizer=divide_updates(self.optimizer, self.state_sharding.params) if sharded else self.optimizer,
            learning_rate=self.schedule,
            batch_transform=self.training_transform(),
            accumulate=train.accumulate,
            ema_decay=train.ema.decay if train.ema else None,
            axis_name="data" if self.config.parallel.mode == "pmap" else None,
        )

    def step(self) -> Step:
        """`bare_step` in the config's mode, merging its metrics into the pending ones; not compiled.

        After a step that is not finite the state stays as it was before that step.
        """
        mesh, step = self.mesh, self.bare_step()
        if self.config.parallel.mode == "pmap":
            step = per_device(step, mesh)
        metrics = self.task.training_metrics()

        def step_and_merge(
            key: Key[Array, ""], state: TrainState, pending: StepMetrics, batch: Batch
        ) -> tuple[TrainState, StepMetrics]:
            whole = state.replace(params=gather(state.params, mesh)) if mesh.shape["model"] > 1 else state
            after, new = step(whole, batch, key=key)
            merged = merge_metrics(metrics, pending, new)
            return keep_last_finite(merged, state, after), merged

        return step_and_merge

    @functools.cached_property
    def traced_step(self) -> Traced:
        """What `step` computes, for `lift`; the run's key and arrays are its arguments, so all seeds have the same."""
        arguments = self.key, self.abstract_state(), self.empty_metrics(), self.batch(0)
        return trace(self.step(), *jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments))

    def compiled_step(self) -> functools.partial[tuple[TrainState, StepMetrics]]:
        """`(state, pending, batch)` to `(state, pending)`: the step under jit over the mesh; donates both.

        Its `func` is the jitted function, which takes the key first.
        """
        whole, placed = replicated(self.mesh), self.state_sharding
        # The key is an argument, not a constant, so that every seed runs the same program.
        compiled = jax.jit(
            self.step(),
            in_shardings=(whole, placed, whole, divided(self.mesh)),
            out_shardings=(placed, whole),
            donate_argnums=(1, 2),
            compiler_options=self.compiler_options,
        )
        return functools.partial(compiled, self._key_on_devices())

    def _key_on_devices(self) -> Key[Array, ""]:
        return jax.random.wrap_key_data(place_whole(jax.random.key_data(self.key), self.mesh))

    def compiled_advance(self, *, batch: Callable[[int], Batch] | None = None) -> Advance:
        """How the loop takes steps: with batches from the host, or many at once with the split on the device.

        Args:
          batch: step to batch on the devices; `self.batch` unless given.
        """
        train, size, over = self.splits["train"], {"batch_size": self.plan.batch_size}, divided(self.mesh)
        resident = self.config.data.resident and not isinstance(train, StreamedImages)  # `build` refuses both
        if resident and self.plan.steps_per_dispatch == 1:
            batch = resident_batches(self._key_on_devices(), train, **size, sharding=over, mesh=self.mesh)
        elif resident:
            with_key = resident_advance(
                functools.partial(resident_steps, step=self.step(), **size, sharding=over),
                epoch_orders,
                train,
                **size,
                steps_per_dispatch=self.plan.steps_per_dispatch,
                state_sharding=self.state_sharding,
                sharding=replicated(self.mesh),
                mesh=self.mesh,
                compiler_options=self.compiler_options,
            )
            return with_key(self._key_on_devices())
        step, batch = self.compiled_step(), batch or self.batch

        def advance(state: TrainState, pending: StepMetrics, done: int, steps: int) -> tuple[TrainState, StepMetrics]:
            for index in range(done, done + steps):
                state, pending = step(state, pending, batch(index))
            return state, pending

        return advance

    def program(self) -> Program:
        """This run alone."""
        train, seed, size = self.splits["train"], self.config.seed, self.config.data.batch_size
        stack, split = (lambda trees: trees[0]), (lambda tree: [tree])
        if not isinstance(train, StreamedImages):
            return Program(advance=self.compiled_advance(), stack=stack, split=split)
        rows = local_rows(size, self.mesh)
        ahead = InTurn(lambda step: train.training_batches(seed=seed, start=step, batch_size=size, rows=rows))
        advance = self.compiled_advance(batch=lambda step: place_batch(ahead(step), rows, size=size, mesh=self.mesh))
        return Program(advance=advance, stack=stack, split=split, close=ahead.close)

    def compiled_evaluation(self) -> jax.stages.Wrapped:
        """`evaluation_step` under jit over the mesh."""
        transform = functools.partial(evaluation_transform, mean=self.mean, std=self.std)

        def step(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
            params = gather(params, self.mesh)
            return evaluation_step(params, model_state, batch, task=self.task, batch_transform=transform)

        where = (*evaluation_variables(self.state_sharding), divided(self.mesh))
        whole = replicated(self.mesh)
        return jax.jit(step, in_shardings=where, out_shardings=whole, compiler_options=self.evaluation_options)

    def evaluate(
        self,
        step: EvaluationStep,
        state: TrainState,
        split: str,
        *,
        watch: Callable[[Iterator[Batch]], Iterator[Batch]] = iter,
    ) -> dict[str, Any]:
        """All metrics of one split, exactly: numbers, and arrays where a metric gives one; `watch` may leave early."""
        states = evaluate(step, *evaluation_variables(state), watch(self.evaluation_batches(split)))
        return summarize(self.task.metrics(), states)

    @property
    def evaluation_splits(self) -> tuple[str, ...]:
        """The splits that a finished run is evaluated on; the last one is what figures show."""
        first = ("train",) if self.config.train.evaluate_training else ()
        return (*first, *(split for split in ("validation", "test") if split in self.splits))

    def evaluate_validation(self, step: EvaluationStep, state: TrainState, **options: Any) -> dict[str, float]:
        """The numbers that the loop logs: those of the validation split, where there is one."""
        there = "validation" in self.splits
        return scalars(self.evaluate(step, state, "validation", **options), "validation") if there else {}
