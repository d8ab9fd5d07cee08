"""Activation functions by name, elementwise on any shape; PReLU has a parameter and is a module."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.checks import require_known
from cnn_jax.ops.channels import over_channels


class PReLU(nn.Module):
    """x where positive, slope × x elsewhere, with one learned slope per channel (He et al. 2015, Eq. 1).

    Parameter: `slope`, float32 `[C]`.

    Attributes:
      initial: the slopes' initial value; 0.25 as in He et al. 2015, Section 2.1.
    """

    initial: float = 0.25

    @nn.compact
    def __call__(self, x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        """Applies the function to `[..., C]`."""
        slope = self.param("slope", nn.initializers.constant(self.initial), (x.shape[-1],))
        return jnp.where(x > 0, x, over_channels(slope, x) * x)


def scaled_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1.7159 tanh(2x/3): f(1) = 1 and f(-1) = -1 (LeCun et al. 1998, Eq. 6 and Appendix A).

    Example:
      >>> import jax.numpy as jnp
      >>> print(round(float(scaled_tanh(jnp.float32(1.0))), 4))
      1.0
    """
    return 1.7159 * jnp.tanh(x * (2 / 3))


def identity(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns x: what is left of a network without a nonlinearity."""
    return x


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=0.01),
    "prelu": PReLU,
    "elu": nn.elu,
    # The exact form with erf, torch's default; Flax's own default is the tanh approximation.
    "gelu": functools.partial(nn.gelu, approximate=False),
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "scaled_tanh": scaled_tanh,
    "silu": nn.silu,
    # relu6(x + 3) / 6, and x times that (Howard et al. 2019, Section 5.2).
    "hard_sigmoid": nn.hard_sigmoid,
    "hard_swish": nn.hard_swish,
    "identity": identity,
}
"""Activations by the name that configs use: functions of an array, and the module class `PReLU`."""


def activation_layer(kind: str, *, name: str, negative_slope: float | None = None) -> Callable[[Array], Array]:
    """The activation of this kind, as a function of an array; call it inside a module's compact method.

    Args:
      kind: a key of `ACTIVATIONS`.
      name: the module's name in its parent, if the kind has parameters.
      negative_slope: slope of "leaky_relu" (None: 0.01) or initial slope of "prelu" (None: 0.25).

    Raises:
      UserError: unknown kind, or a slope for a kind that has none.

    Example:
      >>> import jax.numpy as jnp
      >>> print(activation_layer("leaky_relu", name="act", negative_slope=0.5)(jnp.array([-2.0, 2.0])))
      [-1.  2.]
    """
    require_activation(kind, negative_slope=negative_slope)
    if kind == "prelu":
        return PReLU(name=name) if negative_slope is None else PReLU(initial=negative_slope, name=name)
    if negative_slope is not None:
        return functools.partial(nn.leaky_relu, negative_slope=negative_slope)
    return ACTIVATIONS[kind]


def require_activation(kind: str, *, negative_slope: float | None = None) -> None:
    """Checks an activation's name and slope.

    Raises:
      UserError: unknown kind, or a slope for a kind that has none.
    """
    require_known("activation", kind, ACTIVATIONS)
    if negative_slope is not None and kind not in ("leaky_relu", "prelu"):
        raise UserError(
            f"negative_slope={negative_slope} has no effect on activation {kind!r}; leave it out, or use 'leaky_relu'"
            " or 'prelu'"
        )
