"""Which devices hold what: a mesh with the axes `data` and `model`, batches divided over `data`, state on all."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_jax.errors import UserError


def make_mesh(*, devices: int | None = None) -> Mesh:
    """A mesh of `devices` × 1 local devices; all of them when no number is given.

    Raises:
      UserError: there are fewer devices than asked for.
    """
    local = jax.local_devices()
    count = len(local) if devices is None else devices
    if count > len(local):
        raise UserError(
            f"config.parallel.devices is {count}, but this machine has {len(local)} {local[0].platform} devices"
        )
    return jax.make_mesh((count, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=local[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device: parameters, optimizer state, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over `data`: batches."""
    return NamedSharding(mesh, PartitionSpec("data"))


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
