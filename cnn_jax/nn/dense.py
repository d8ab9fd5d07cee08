"""The dense layer of hidden units, whose bias gets its gradient in float32."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.conv import he_fan_in
from cnn_jax.ops.channels import over_channels


class Dense(nn.Module):
    """A matrix product and a bias, computed in `dtype`; for an image, of every pixel on its own.

    Parameters: `kernel`, float32 `[D, features]`, and `bias`, float32 `[features]`.

    Attributes:
      features: output units.
      dtype: compute type, "float32" or "bfloat16"; parameters are float32.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
    """

    features: int
    dtype: str = "float32"
    kernel_init: Callable[..., Array] = he_fan_in
    bias_init: Callable[..., Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch features"]:
        """Maps `[..., D]` to `[..., features]` of type `dtype`."""
        layer = nn.Dense(self.features, use_bias=False, dtype=self.dtype, kernel_init=self.kernel_init)
        nn.share_scope(self, layer)  # Paths read `dense1/kernel`.
        y = layer(x)
        return y + over_channels(self.param("bias", self.bias_init, (self.features,)), y)
