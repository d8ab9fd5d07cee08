"""Squeeze and excitation: channels gated by what the whole image contains (Hu et al. 2018, Section 3)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.nn.activation import activation_layer
from cnn_jax.nn.conv import Conv, he_fan_in


class SqueezeExcite(nn.Module):
    """x times gate(expand(act(reduce(mean of x over space)))): Eq. 2 to 4.

    Parameters lie under `reduce` and `expand`, 1×1 convolutions with biases.

    Attributes:
      reduced: channels between the two convolutions.
      activation: a key of `ACTIVATIONS`, between them.
      gate: a key of `ACTIVATIONS`, "sigmoid" in the paper, "hard_sigmoid" in MobileNetV3.
      kernel_init: initializer of the kernels.
      dtype: compute type, "float32" or "bfloat16"; the mean is taken in float32.
    """

    reduced: int
    activation: str = "relu"
    gate: str = "sigmoid"
    kernel_init: Callable[..., Array] = he_fan_in
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *space C"]:
        """Gates the channels of `[B, *space, C]`."""
        conv = functools.partial(Conv, kernel_size=1, dtype=self.dtype, kernel_init=self.kernel_init)
        mean = jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim - 1)), keepdims=True)
        gate = conv(self.reduced, name="reduce")(mean)
        gate = activation_layer(self.activation, name="act")(gate)
        gate = conv(x.shape[-1], name="expand")(gate)
        gate = activation_layer(self.gate, name="gate")(gate)
        # In float32, so that the gate's gradient, a sum over space, is one too. The gate is [B, 1, ..., 1, C].
        return (x.astype(jnp.float32) * gate.astype(jnp.float32)).astype(x.dtype)
