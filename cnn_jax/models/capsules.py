"""Capsules: vectors for what an image may contain, and the routing between layers of them (Sabour et al. 2017)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

TINY = 1e-20
"""Added to a squared length before its root, whose gradient at 0 would be infinite; 1e-10 is no length that matters."""


def squash(s: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """The vector with its direction, and the length |s|² / (1 + |s|²), which is below 1: Eq. 1.

    Example:
      >>> print(squash(jnp.array([3.0, 4.0])) * 26)
      [15. 20.]
    """
    squared = jnp.sum(jnp.square(s), axis=-1, keepdims=True)
    return s * (squared / (1 + squared) * jax.lax.rsqrt(squared + TINY))


def lengths(v: Float[Array, "... D"]) -> Float[Array, "..."]:
    """The lengths of vectors: how probable it is that what a capsule stands for is there."""
    return jnp.sqrt(jnp.sum(jnp.square(v), axis=-1) + TINY)


def route(predictions: Float[Array, "B N K D"], *, iterations: int) -> Float[Array, "B K D"]:
    """Dynamic routing: capsules send their predictions to those that agree with them (Procedure 1, Eq. 2 and 3).

    Args:
      predictions: û, what each of N capsules predicts for each of K capsules above.
      iterations: how often coupling coefficients are computed, 1 or more; 1 gives every capsule above an equal share.

    Returns:
      The squashed outputs v of the capsules above.
    """

    def outputs(logits: Array) -> Array:
        coupling = jax.nn.softmax(logits, axis=-1)  # Over the capsules above.
        return squash(jnp.einsum("bnk,bnkd->bkd", coupling, predictions))

    logits = jnp.zeros(predictions.shape[:-1], predictions.dtype)
    for _ in range(iterations - 1):
        logits = logits + jnp.einsum("bnkd,bkd->bnk", predictions, outputs(logits))
    return outputs(logits)


def keep_one(capsules: Float[Array, "B K D"], *, labels: Int[Array, "B"] | None = None) -> Float[Array, "B K D"]:
    """The capsules with all but one of each example set to 0: that of the label, or without labels the longest."""
    if labels is None:
        labels = jnp.argmax(lengths(capsules), axis=-1)
    return capsules * jax.nn.one_hot(labels, capsules.shape[1], dtype=capsules.dtype)[:, :, None]  # [B, K, 1]


class RoutedCapsules(nn.Module):
    """A layer of capsules, each of which sees all capsules below it by way of the routing.

    Parameter: `transform`, float32 `[N, K, d, D]`, the matrices W of Eq. 2, N being the capsules below; no bias.

    Attributes:
      capsules: K.
      size: D, numbers in a capsule's vector.
      iterations: of the routing.
    """

    capsules: int
    size: int
    iterations: int

    @nn.compact
    def __call__(self, u: Float[Array, "B N d"]) -> Float[Array, "B K D"]:
        """Maps `[B, N, d]` to `[B, K, D]`, in float32."""
        shape = (u.shape[1], self.capsules, u.shape[2], self.size)
        transform = self.param("transform", nn.initializers.normal(0.1), shape)
        predictions = jnp.einsum("bni,nkio->bnko", u.astype(jnp.float32), transform)
        return route(predictions, iterations=self.iterations)


def routed_macs(layer: RoutedCapsules) -> int:
    """Multiply-accumulates of a layer for one example: predictions, weighted sums and agreements (Procedure 1)."""
    transform = layer.variables["params"]["transform"]
    _, _, below, _ = transform.shape
    # The last iteration needs no agreement.
    return transform.size + (2 * layer.iterations - 1) * transform.size // below
