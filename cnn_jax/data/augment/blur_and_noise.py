"""Gaussian blur and Gaussian noise, for any number of spatial axes and channels."""

import functools
import math
from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from pydantic import AfterValidator, Field

from cnn_jax.data.augment.draws import Ascending, Probability, between, uniforms, where_chosen
from cnn_jax.errors import UserError


def _odd(kernel_size: int) -> int:
    if kernel_size % 2 == 0:
        raise UserError(f"gaussian_blur's kernel_size must be odd, got {kernel_size}; try {kernel_size + 1}")
    return kernel_size


Sigma: TypeAlias = Annotated[float, Field(gt=0)]
Sigmas: TypeAlias = Annotated[tuple[Sigma, Sigma], Ascending]
OddLength: TypeAlias = Annotated[int, Field(ge=1), AfterValidator(_odd)]


def gaussian_blur(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    sigma: Sigmas = (0.1, 2.0),
    kernel_size: OddLength = 9,
    probability: Probability = 1.0,
) -> Float[Array, "B *space C"]:
    """Blur each image along every spatial axis, with a deviation drawn evenly from `sigma`, in pixels.

    Outside is the mirror image, without repeating the border. The defaults of sigma are SimCLR's (Chen et al. 2020,
    appendix A), where the kernel is a tenth of the image.

    Args:
      keys: one per example.
      images: `[B, *space, C]` in [0, 1].
      sigma: the smallest and the largest deviation.
      kernel_size: pixels of the kernel along each axis, odd; its weights are rescaled to sum to one.
      probability: of being blurred at all.

    Raises:
      UserError: an even kernel size.
    """
    chance, share = uniforms(keys, count=2).T
    blurred = blur(images, between(share, *sigma), kernel_size=_odd(kernel_size))
    return where_chosen(chance < probability, blurred, images)


def blur(
    images: Float[Array, "B *space C"], sigma: Float[Array, "B"], *, kernel_size: int
) -> Float[Array, "B *space C"]:
    """The images convolved with a Gaussian of each example's deviation along every spatial axis, `kernel_size` odd."""
    offsets = jnp.arange(kernel_size, dtype=jnp.float32)[None] - kernel_size // 2
    weights = jnp.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    weights = weights / weights.sum(axis=1, keepdims=True)
    blurred = images
    for axis in range(1, images.ndim - 1):
        blurred = _along(blurred, weights, axis)
    return jnp.clip(blurred, 0, 1)


def _along(images: Float[Array, "B *space C"], weights: Float[Array, "B taps"], axis: int) -> Array:
    """One axis of the convolution, as a sum of shifted images."""
    length, taps = images.shape[axis], weights.shape[1]
    width = [(0, 0)] * images.ndim
    width[axis] = (taps // 2, taps // 2)
    padded = jnp.pad(images, width, mode="reflect")
    # [B, *space, C] -> [B, before, length, after]: long rows of memory, whatever the rank.
    rows = padded.reshape(images.shape[0], -1, length + taps - 1, math.prod(images.shape[axis + 1 :]))
    shifted = (weights[:, tap, None, None, None] * rows[:, :, tap : tap + length] for tap in range(taps))
    # [B, before, length, after] -> [B, *space, C]
    return functools.reduce(jnp.add, shifted).reshape(images.shape)


def gaussian_noise(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    deviation: Annotated[float, Field(ge=0)] = 0.05,
    probability: Probability = 1.0,
) -> Float[Array, "B *space C"]:
    """Add independent normal noise to every value, then clip to [0, 1].

    Args:
      keys: one per example.
      images: `[B, *space, C]` in [0, 1].
      deviation: of the noise, in units of [0, 1].
      probability: of being changed at all.
    """
    chance = uniforms(keys, count=1)[:, 0]
    noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), images.shape[1:]))(keys)
    return where_chosen(chance < probability, jnp.clip(images + deviation * noise, 0, 1), images)
