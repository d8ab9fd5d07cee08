"""Random keys as a function of (seed, purpose, step or example): folded in, never stored, never drawn from a global."""

import zlib

import jax
from jaxtyping import Array, Int, Key


def named_key(key: Key[Array, ""], purpose: str) -> Key[Array, ""]:
    """The key of one purpose, for example "dropout": a different stream for every name.

    Args:
      key: the run's key, `jax.random.key(seed)`.
      purpose: a fixed word; its CRC-32 is folded in, so the stream does not depend on the order of calls.

    Example:
      >>> import jax
      >>> a, b = (named_key(jax.random.key(0), name) for name in ("dropout", "augment"))
      >>> bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
      False
    """
    return jax.random.fold_in(key, purpose_number(purpose))


def purpose_number(purpose: str) -> int:
    """What `named_key` folds in, for generators outside JAX."""
    return zlib.crc32(purpose.encode())


def example_keys(key: Key[Array, ""], epoch: Int[Array, "B"], example: Int[Array, "B"]) -> Key[Array, "B"]:
    """One key per example, a function of (key, epoch, example) alone: equal for every batch size and device count."""

    def fold(epoch, example):
        return jax.random.fold_in(jax.random.fold_in(key, epoch), example)

    return jax.vmap(fold)(epoch, example)
