"""Which devices hold what: a mesh with the axes `data` and `model`, batches divided over both, parameters over `model`.

One axis of parts is enough for all of it. With `model` = 1 every device holds the whole state: data parallel training.
With `model` = the number of devices each holds its part of every parameter and of the optimizer's state: fully sharded
training (Rajbhandari et al. 2020, ZeRO stage 3 at rest). In between, parameters are divided within groups of `model`
devices, and whole in each group.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_jax.errors import UserError
from cnn_jax.train.config import ShardingRule
from cnn_jax.train.optim import assign_groups
from cnn_jax.train.state import TrainState
from cnn_jax.types import Batch, PyTree

AXES = ("data", "model")


def make_mesh(*, devices: int | None = None, model: int = 1) -> Mesh:
    """A mesh of (devices / model) × model devices, of every process.

    Args:
      devices: how many; all when no number is given.
      model: size of the axis `model`.

    Raises:
      UserError: there are fewer devices than asked for, several processes leave some out, or `model` does not divide
        them.
    """
    known = jax.devices()
    count = len(known) if devices is None else devices
    if count > len(known):
        raise UserError(
            f"config.parallel.devices is {count}, but this machine has {len(known)} {known[0].platform} devices"
        )
    if count < len(known) and jax.process_count() > 1:
        raise UserError(
            f"config.parallel.devices is {count}, but {jax.process_count()} processes have {len(known)} devices, and"
            " each must take part; leave it out"
        )
    if count % model:
        divisors = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise UserError(f"config.parallel.model is {model}, which does not divide {count} device(s); use {divisors}")
    shape = (count // model, model)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=known[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device: metrics, statistics, and what is evaluated."""
    return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over all devices: batches."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def local_rows(size: int, mesh: Mesh) -> np.ndarray:
    """Which of the `size` rows of a batch lie on this process's devices, int64 `[rows]`, ascending."""
    held = divided(mesh).addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[index] for index in held]))


def place_batch(batch: Mapping[str, np.ndarray], rows: np.ndarray, *, size: int, mesh: Mesh) -> Batch:
    """Put a batch on the devices, of which this process has only the rows that its devices hold.

    Args:
      batch: host arrays with leading axis `len(rows)`.
      rows: from `local_rows`.
      size: B, over all processes.
      mesh: the devices.

    Returns:
      Arrays `[B, ...]`, divided over the devices.
    """
    sharding = divided(mesh)
    if len(rows) == size:
        return jax.device_put(dict(batch), sharding)

    def place(values: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            start, stop, _ = (index or (slice(None),))[0].indices(size)
            first = int(np.searchsorted(rows, start))
            return values[first : first + stop - start]

        return jax.make_array_from_callback((size, *values.shape[1:]), sharding, part)

    return {name: place(np.asarray(values)) for name, values in batch.items()}


def fetch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays that may be divided over devices, also of other processes, whole on the host."""
    return jax.device_get(jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree))


def place_whole(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put host arrays, equal in every process, whole on every device; nothing is sent to check that they are equal."""
    whole = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, whole)
    return jax.tree.map(lambda x: jax.make_array_from_callback(np.shape(x), whole, lambda i: np.asarray(x)[i]), tree)


def state_sharding(state: TrainState, mesh: Mesh, rules: Sequence[ShardingRule]) -> TrainState:
    """Where every array of a training state lies.

    Parameters follow the rules. What belongs to a parameter, such as its momentum or its average, lies where it does:
    that is a leaf of the same shape whose path ends with the parameter's. All else is whole on every device.

    Args:
      state: arrays or shapes.
      mesh: the devices.
      rules: the table, see `ShardingRule`.

    Raises:
      UserError: a pattern is no regular expression or matches nothing, or a parameter matches no pattern.
    """
    assigned = assign_groups(state.params, rules, where="config.parallel.sharding")
    parts = mesh.shape["model"]
    specs = jax.tree.map(lambda x, rule: _spec(x.shape, rule, parts), state.params, assigned)
    by_path = {
        _names(path): (x.shape, spec)
        for (path, x), spec in zip(
            jax.tree_util.tree_flatten_with_path(state.params)[0], jax.tree.leaves(specs), strict=True
        )
    }

    def place(path: Sequence[Any], x: Any) -> NamedSharding:
        names = _names(path)
        for start in range(len(names)):
            shape, spec = by_path.get(names[start:], (None, None))
            if shape == x.shape:
                return NamedSharding(mesh, spec)
        return replicated(mesh)

    whole = jax.tree.map(lambda _: replicated(mesh), state)
    follow = {name: jax.tree_util.tree_map_with_path(place, tree) for name, tree in _following(state).items()}
    return whole.replace(**follow)


def _following(state: TrainState) -> dict[str, PyTree]:
    """The parts of a state that lie where the parameters do."""
    return {"params": state.params, "opt_state": state.opt_state, "ema": state.ema}


def _names(path: Sequence[Any]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _spec(shape: tuple[int, ...], rule: ShardingRule, parts: int) -> PartitionSpec:
    """Cut the largest axis that `parts` divides; the last of equal ones."""
    fitting = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or not rule.divided or not fitting or np.prod(shape) < rule.minimum:
        return PartitionSpec()
    largest = max(fitting, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * largest, "model")


def gather(tree: PyTree, mesh: Mesh) -> PyTree:
    """Inside jit: whole on every device from here on, so that what is divided is gathered once and not at every use."""
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def divide_updates(optimizer: optax.GradientTransformation, sharding: PyTree) -> optax.GradientTransformation:
    """An optimizer that works on each device's part of gradients and parameters alone.

    Args:
      optimizer: gradients to updates; leaf by leaf, or with sums over leaves, which XLA then makes collective.
      sharding: where every parameter lies.
    """
    place: Any = functools.partial(jax.lax.with_sharding_constraint, shardings=sharding)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return optimizer.update(place(updates), state, place(params))

    return optax.GradientTransformation(optimizer.init, update)


def per_device(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """A step `(state, batch, *, key)` that each device runs on its own part of the batch, with its axis named `data`.

    This is what `jax.pmap(step, axis_name="data", in_axes=(None, 0), out_axes=None)` does, bit for bit: pmap has become
    jit of `shard_map`. With several processes pmap returns a copy for each of them; this returns arrays of the mesh, as
    jit does, and takes the batch as `[B, ...]`, not as `[devices, B / devices, ...]`.

    Args:
      step: its results must be equal on all devices, by `lax.psum` over `data`.
      mesh: the devices; its axis `model` has size 1.
    """
    whole, parts = PartitionSpec(), divided(mesh).spec
    # Without the check of replication a gradient for whole parameters is the device's own, as in pmap, and not a sum.
    mapped = jax.shard_map(
        lambda state, batch, key: step(state, batch, key=key),
        mesh=mesh,
        in_specs=(whole, parts, whole),
        out_specs=whole,
        check_vma=False,
    )
    return lambda state, batch, *, key: mapped(state, batch, key)


def check_batch_size(batch_size: int, *, devices: int, accumulate: int) -> None:
    """Refuse a batch that cannot be divided evenly over devices and microbatches.

    Raises:
      UserError: names the nearest batch sizes that can.
    """
    unit = devices * accumulate
    if batch_size % unit:
        below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
        near = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"config.data.batch_size {batch_size} cannot be divided over {devices} device(s) × {accumulate}"
            f" microbatch(es); use {near}"
        )
