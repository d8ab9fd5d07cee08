"""The order of the examples in an epoch: a permutation, a function of (seed, epoch) alone, on device or host."""

import functools
import math

import jax
import numpy as np
from jaxtyping import Array, Int, Key, UInt32

from cnn_jax.ops.random import named_key, purpose_number

ORDER = "order"
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)


def epoch_order(key: Key[Array, ""], epoch: Int[Array, ""], *, examples: int) -> Int[Array, "N"]:
    """The order of the examples in one epoch: a permutation that depends on (key, epoch) alone.

    Args:
      key: the run's key.
      epoch: counted from 0.
      examples: N.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> sorted(epoch_order(jax.random.key(0), jnp.int32(3), examples=5).tolist())
      [0, 1, 2, 3, 4]
    """
    return jax.random.permutation(jax.random.fold_in(named_key(key, ORDER), epoch), examples)


@functools.lru_cache(maxsize=4)
def epoch_order_on_host(seed: int, epoch: int, examples: int) -> Int[np.ndarray, "N"]:
    """`epoch_order` of the key of a seed, in NumPy: processes that only read data must not start a device.

    The generator is JAX's default, Threefry-2x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")
    with counters that can be divided, and the permutation sorts by random numbers, as `jax.random.permutation` does.

    Args:
      seed: in [0, 2³²).
      epoch: counted from 0.
      examples: N, below 2³¹.

    Returns:
      int32, not writeable: the next call gets the same array.
    """
    key = np.array([0, seed], np.uint32)
    for number in (purpose_number(ORDER), epoch):
        key = _threefry(key, np.array([[0], [number]], np.uint32))[:, 0]  # fold_in
    order = np.arange(examples, dtype=np.int32)
    rounds = math.ceil(3 * math.log(max(1, examples)) / math.log(2**32 - 1))
    for _ in range(rounds):
        # Two keys are split off: one for the next round, one for this one.
        key, own = _threefry(key, np.array([[0, 0], [0, 1]], np.uint32)).T
        high, low = _threefry(own, np.stack([np.zeros(examples, np.uint32), np.arange(examples, dtype=np.uint32)]))
        order = order[np.argsort(high ^ low, kind="stable")]
    order.flags.writeable = False
    return order


def _threefry(key: UInt32[np.ndarray, "2"], counters: UInt32[np.ndarray, "2 N"]) -> UInt32[np.ndarray, "2 N"]:
    """Twenty rounds of Threefry-2x32."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    with np.errstate(over="ignore"):  # sums are meant modulo 2^32
        x, y = counters[0] + keys[0], counters[1] + keys[1]
        for group in range(5):
            for rotation in ROTATIONS[group % 2]:
                x = x + y
                y = ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))) ^ x
            x = x + keys[(group + 1) % 3]
            y = y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return np.stack([x, y])
