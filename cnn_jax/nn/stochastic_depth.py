"""Stochastic depth: residual branches that training leaves out at random (Huang et al. 2016)."""

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.checks import require_rate


class StochasticDepth(nn.Module):
    """Sets a whole example to 0 with probability `rate` and divides the others by 1 - rate; in evaluation, x as it is.

    That keeps the expected value, where the paper's Eq. 5 multiplies in evaluation instead. It draws from the "dropout"
    key.

    Attributes:
      rate: probability that an example's branch is left out.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *space C"]:
        """Maps `[B, *space, C]`, the output of a residual branch, to the same shape."""
        require_rate("stochastic depth rate", self.rate)
        return nn.Dropout(self.rate, broadcast_dims=tuple(range(1, x.ndim)))(x, deterministic=not train)


def linear_rates(rate: float, blocks: int) -> tuple[float, ...]:
    """The rate of every block: from 0 at the first, in equal steps, to `rate` behind the last (torchvision's rule).

    Huang et al. 2016, Eq. 4, begins one step later and ends at `rate` itself.

    Example:
      >>> linear_rates(0.2, 4)
      (0.0, 0.05, 0.1, 0.15000000000000002)
    """
    return tuple(rate * block / blocks for block in range(blocks))
