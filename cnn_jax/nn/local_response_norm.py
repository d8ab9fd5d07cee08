"""Local response normalisation: neighbouring channels inhibit each other (Krizhevsky et al. 2012, Section 3.3)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class LocalResponseNorm(nn.Module):
    """x / (offset + alpha × the sum of squares of the `size` channels around each) ** beta, computed in float32.

    `alpha` multiplies the sum, as in the paper; torch's alpha is `size` times as large, because it takes the mean.

    Attributes:
      size: channels that are summed, half of them before; where there are fewer, the sum has fewer.
      alpha: see above.
      beta: exponent.
      offset: k in the paper.
      dtype: type of the output.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    offset: float = 2.0
    dtype: str = "float32"

    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *space C"]:
        """Normalises `[B, *space, C]`."""
        x = x.astype(jnp.float32)
        window, ones = (*(1,) * (x.ndim - 1), self.size), (1,) * x.ndim
        pads = (*((0, 0),) * (x.ndim - 1), (self.size // 2, (self.size - 1) // 2))
        sums = jax.lax.reduce_window(jnp.square(x), np.float32(0), jax.lax.add, window, ones, pads)
        return (x / (self.offset + self.alpha * sums) ** self.beta).astype(self.dtype)
