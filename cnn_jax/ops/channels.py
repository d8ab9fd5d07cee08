"""A parameter per channel, spread over an image so that its gradient is summed in float32."""

import jax
from jaxtyping import Float

from cnn_jax.types import Array


def over_channels(parameter: Float[Array, "C"], x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
    """A number per channel in the shape and type of an array, to be added to it or multiplied with it.

    A gradient of type bfloat16 would be summed over all pixels of the batch in bfloat16, whose eight bits are full
    after a few hundred terms: the bias of a convolution then gets a small part of its gradient. Here the sum is in
    float32 whatever the type of `x`, and XLA fuses the conversion into it.

    Args:
      parameter: float32, `[C]`.
      x: gives shape and type, `[..., C]`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> x = jnp.zeros((5000, 1), jnp.bfloat16)
      >>> total = lambda bias: jnp.sum(x + over_channels(bias, x), dtype=jnp.float32)
      >>> jax.grad(total)(jnp.zeros(1)).tolist()
      [5000.0]
    """
    # [C] -> [..., C] at once: by way of [1, ..., 1, C] XLA's CPU backend writes the whole array to memory.
    return jax.lax.broadcast_in_dim(parameter, x.shape, (x.ndim - 1,)).astype(x.dtype)
