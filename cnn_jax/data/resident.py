"""A training split that lies on the device: the batches of `batches.training_batch`, gathered inside the program."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from cnn_jax.data.order import epoch_order
from cnn_jax.errors import UserError
from cnn_jax.types import Batch

LARGEST_SPLIT = 2**30


def check_resident(examples: int) -> None:
    """Refuse a split whose positions do not fit the device's 32-bit integers.

    Raises:
      UserError: 2³⁰ examples or more.
    """
    if examples >= LARGEST_SPLIT:
        raise UserError(f"config.data.resident: {examples:,} examples are too many; set data.resident=false")


def position(step: Int[Array, ""], *, batch_size: int, examples: int) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """(epoch, offset in it) of the first example of a step: `divmod(step * batch_size, examples)`.

    The product needs more than 32 bits in a long run, so it is divided digit by digit, like a sum on paper.

    Args:
      step: optimizer steps done before this one, int32.
      batch_size: B.
      examples: N, below 2³⁰.

    Returns:
      Two int32 scalars; the epoch must fit.
    """
    bits = 31 - examples.bit_length()  # of one digit: N * 2^bits stays below 2^31
    whole, rest = (jnp.uint32(value) for value in divmod(batch_size, examples))
    n, digit_mask = jnp.uint32(examples), jnp.uint32(2**bits - 1)
    step = step.astype(jnp.uint32)
    epoch = offset = jnp.uint32(0)
    for place in reversed(range(-(-31 // bits))):
        digit = (step >> jnp.uint32(place * bits)) & digit_mask
        value = (offset << jnp.uint32(bits)) + digit * rest  # both terms are below 2^31
        epoch = (epoch << jnp.uint32(bits)) + digit * whole + value // n
        offset = value % n
    return epoch.astype(jnp.int32), offset.astype(jnp.int32)


def epochs_touched(steps: int, *, batch_size: int, examples: int) -> int:
    """The largest number of epochs that so many steps in a row can take examples from."""
    return -(-(examples - 1 + steps * batch_size) // examples)


def epoch_orders(key: Key[Array, ""], first: Int[Array, ""], *, epochs: int, examples: int) -> Int[Array, "E N"]:
    """The orders of E epochs, beginning with the epoch `first`.

    Args:
      key: the run's key.
      first: counted from 0.
      epochs: E.
      examples: N.
    """
    return jax.vmap(lambda epoch: epoch_order(key, epoch, examples=examples))(first + jnp.arange(epochs))


def resident_batch(
    data: Batch, orders: Int[Array, "E N"], first: Int[Array, ""], step: Int[Array, ""], *, batch_size: int
) -> Batch:
    """The batch of one training step, the same as `training_batch` makes on the host.

    Args:
      data: the whole split: `image` uint8 `[N, *space, C]` and `label` int32 `[N]`.
      orders: of E epochs.
      first: the first of these epochs.
      step: optimizer steps done before this one; its examples must lie in these epochs.
      batch_size: B.

    Returns:
      `image` uint8 `[B, *space, C]`, `label` int32 `[B]`, `mask` float32 `[B]`, `id` int32 `[B]`, `epoch` int32 `[B]`.
    """
    examples = orders.shape[1]
    epoch, offset = position(step, batch_size=batch_size, examples=examples)
    # Unsigned, because N + B may pass 2^31.
    place = offset.astype(jnp.uint32) + jnp.arange(batch_size, dtype=jnp.uint32)
    epochs = epoch + (place // jnp.uint32(examples)).astype(jnp.int32)
    index = orders.at[epochs - first, place % jnp.uint32(examples)].get(mode="promise_in_bounds")
    return {
        "image": data["image"].at[index].get(mode="promise_in_bounds"),
        "label": data["label"].at[index].get(mode="promise_in_bounds"),
        "mask": jnp.ones(batch_size, jnp.float32),
        "id": index,
        "epoch": epochs,
    }
