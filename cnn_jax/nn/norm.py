"""Normalisation layers with one signature, `norm(x, *, train)`, looked up by name in `NORMS`.

All compute mean and variance in float32 and in two passes: the mean first, then the mean squared distance from it. The
one-pass form E[x²] - E[x]² that Flax prefers cancels: for mean 100 and deviation 0.01 it returns 0 instead of 1e-4.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.nn.checks import require_known
from cnn_jax.ops.channels import over_channels


class BatchNorm(nn.Module):
    """Normalises every channel over the batch and space (Ioffe & Szegedy 2015, Algorithm 1).

    In training it uses the batch's statistics and moves the running ones, `batch_stats/{mean,var}`; in evaluation it
    uses the running ones. The running variance is the biased one (divided by n); torch's is the unbiased one, which
    `unbiased` gives: a recipe of torch's is then reproduced, in training too, at momentum 1 - torch's.

    Attributes:
      momentum: the share of the running statistics that stays at each step. This is Flax's sense: 0.9 here is 0.1 in
        torch.
      epsilon: added to the variance.
      dtype: type of the output; parameters and statistics are float32.
      scale_init: initializer of the scale; zeros makes a residual branch start as nothing.
      use_scale: multiply with a trained number per channel.
      unbiased: the running variance moves towards n / (n - 1) times the batch's, n being batch times space.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    unbiased: bool = False
    dtype: str = "float32"
    scale_init: Callable[..., Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *space C"]:
        """Normalises `[B, *space, C]`; `train` chooses batch (and moves running) or running statistics."""
        channels = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        x = x.astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels)
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(x, axis=axes)
            # Values are those of two passes, `offset` being 0. That the mean depends on x is told by `offset` alone: a
            # gradient by way of every pixel would need one more sum over the batch, and over all devices.
            constant = jax.lax.stop_gradient(mean)
            offset = mean - constant
            centred = x - over_channels(constant, x)
            variance = jnp.mean(jnp.square(centred), axis=axes) - jnp.square(offset)
            if not self.is_initializing():
                stored = variance
                if self.unbiased:
                    count = math.prod(x.shape[:-1])
                    if count < 2:
                        raise UserError(
                            f"an unbiased variance needs two values per channel, but the batch {x.shape} has {count};"
                            " use a larger batch, or norm='batch'"
                        )
                    stored = variance * (count / (count - 1))
                for running, value in ((running_mean, mean), (running_variance, stored)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * value
        else:
            centred, variance = x - over_channels(running_mean.value, x), running_variance.value
            offset = jnp.zeros(channels, jnp.float32)
        factor = jax.lax.rsqrt(variance + self.epsilon)
        if self.use_scale:
            factor = factor * self.param("scale", self.scale_init, channels)
        return (centred * over_channels(factor, x) + over_channels(bias - offset * factor, x)).astype(self.dtype)


class GroupNorm(nn.Module):
    """Normalises groups of channels of one example over space (Wu & He 2018, Eq. 7).

    There are 32 groups, as in the paper, wherever C is a multiple of 64. Fewer channels get fewer groups, of at least
    two channels each, because a group of one would be instance normalisation: gcd(32, C / 2) groups, or one if C is
    odd.

    Attributes:
      epsilon: added to the variance.
      dtype: type of the output; parameters and statistics are float32.
      scale_init: initializer of the scale.
    """

    epsilon: float = 1e-5
    dtype: str = "float32"
    scale_init: Callable[..., Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *space C"]:
        """Normalises `[B, *space, C]`; equal for both values of `train`."""
        del train  # One signature for all norms.
        channels = x.shape[-1]
        layer = nn.GroupNorm(
            num_groups=math.gcd(32, channels // 2) if channels % 2 == 0 else 1,
            epsilon=self.epsilon,
            dtype=self.dtype,
            scale_init=self.scale_init,
            use_fast_variance=False,
        )
        nn.share_scope(self, layer)
        return layer(x)


class LayerNorm(nn.Module):
    """Normalises the channels of each position on its own (Ba et al. 2016, Eq. 3; for images as in Liu et al. 2022).

    Attributes:
      epsilon: added to the variance.
      dtype: type of the output; parameters and statistics are float32.
      scale_init: initializer of the scale.
    """

    epsilon: float = 1e-5
    dtype: str = "float32"
    scale_init: Callable[..., Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *space C"]:
        """Normalises `[B, *space, C]`; equal for both values of `train`."""
        del train  # One signature for all norms.
        layer = nn.LayerNorm(
            epsilon=self.epsilon, dtype=self.dtype, scale_init=self.scale_init, use_fast_variance=False
        )
        nn.share_scope(self, layer)
        return layer(x)


class NoNorm(nn.Module):
    """Returns its input: the baseline of a study about normalisation. It has no parameters.

    Attributes:
      epsilon: ignored, as is `scale_init`; every norm is built with the same arguments.
      dtype: type of the output.
      scale_init: ignored.
    """

    epsilon: float = 1e-5
    dtype: str = "float32"
    scale_init: Callable[..., Array] = nn.initializers.ones

    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *space C"]:
        """Returns `[B, *space, C]` as it came, in `dtype`."""
        del train  # One signature for all norms.
        return x.astype(self.dtype)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": BatchNorm,
    "batch_unbiased": functools.partial(BatchNorm, unbiased=True),
    "group": GroupNorm,
    "layer": LayerNorm,
    "none": NoNorm,
}
"""Normalisation layers by the name that configs use; "batch_unbiased" keeps running variances as torch does."""

BATCH_NORMS = ("batch", "batch_unbiased")
"""Those that subtract the batch's mean, and with it any bias of the layer before them."""


def norm_layer(
    kind: str,
    *,
    dtype: str,
    name: str,
    scale_init: Callable[..., Array] = nn.initializers.ones,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
) -> nn.Module:
    """The normalisation layer of this kind.

    Args:
      kind: a key of `NORMS`.
      dtype: type of the output.
      name: the module's name in its parent.
      scale_init: initializer of the scale.
      epsilon: added to the variance, of whatever kind.
      momentum: of the running statistics, in Flax's sense; kinds that have none ignore it.

    Raises:
      UserError: unknown kind.
    """
    require_known("norm", kind, NORMS)
    running = {"momentum": momentum} if kind in BATCH_NORMS else {}
    return NORMS[kind](dtype=dtype, scale_init=scale_init, epsilon=epsilon, name=name, **running)
