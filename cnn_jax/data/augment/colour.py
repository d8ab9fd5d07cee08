"""Brightness, contrast, saturation, hue and grey, as torchvision defines them on images in [0, 1].

All work on any number of spatial axes, and take one channel (grey) or three (red, green, blue). Saturation and hue
leave grey images as they are.
"""

from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from pydantic import Field

from cnn_jax.data.augment.draws import Probability, between, uniforms, where_chosen
from cnn_jax.errors import UserError

Strength: TypeAlias = Annotated[float, Field(ge=0)]
Turn: TypeAlias = Annotated[float, Field(ge=0, le=0.5)]
LUMA = (0.2989, 0.587, 0.114)
"""The shares of red, green and blue in a grey value: ITU-R 601-2, rounded as torchvision rounds them."""
BRIGHTNESS, CONTRAST, SATURATION = range(3)


def colour_jitter(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    brightness: Strength = 0.4,
    contrast: Strength = 0.4,
    saturation: Strength = 0.4,
    hue: Turn = 0.1,
    probability: Probability = 1.0,
) -> Float[Array, "B *space C"]:
    """Change brightness, contrast, saturation and hue, in an order that is drawn for each example.

    Args:
      keys: one per example.
      images: `[B, *space, C]` in [0, 1], C one or three.
      brightness: the factor is drawn evenly from max(0, 1 - brightness) to 1 + brightness.
      contrast: as brightness.
      saturation: as brightness; not used for one channel.
      hue: the shift is drawn evenly from -hue to hue, in turns of the colour wheel; not used for one channel.
      probability: of being changed at all.

    Raises:
      UserError: neither one channel nor three.
    """
    _check_channels("colour_jitter", images)
    colourful = images.shape[-1] == 3
    strengths = np.array([brightness, contrast, saturation if colourful else 0])
    names = np.flatnonzero(strengths)  # what has no strength costs nothing
    low, high = (jnp.asarray(end[None, names], jnp.float32) for end in (np.maximum(0, 1 - strengths), 1 + strengths))
    draws = uniforms(keys, count=9)
    # The ranks of independent numbers are a random order.
    order = jnp.argsort(draws[:, : len(names)], axis=1)
    factor = jnp.take_along_axis(low + (high - low) * draws[:, 3 + names], order, axis=1)
    name = jnp.asarray(names)[order]
    if colourful and hue:
        # The hue comes before one of the blends or after the last: all of them are gone through before it and after
        # it, with a factor of 1 where it is not their turn. To change the hue in every place would take far longer.
        before = jnp.arange(len(names))[None] < jnp.floor(draws[:, 6:7] * (len(names) + 1))
        planes = _blends(_planes(images), name, jnp.where(before, factor, 1))
        planes = _shift_hue(planes, between(draws[:, 7], -hue, hue))
        planes = _blends(planes, name, jnp.where(before, 1, factor))
    else:
        planes = _blends(_planes(images), name, factor)
    return where_chosen(draws[:, 8] < probability, _images(planes, images.shape), images)


def random_grey(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], *, probability: Probability = 0.1
) -> Float[Array, "B *space C"]:
    """Replace each image by its grey values, in all its channels, with the given probability.

    Raises:
      UserError: neither one channel nor three.
    """
    _check_channels("random_grey", images)
    planes = _planes(images)
    grey = jnp.broadcast_to(_luma(planes)[None], planes.shape)
    return where_chosen(uniforms(keys, count=1)[:, 0] < probability, _images(grey, images.shape), images)


def adjust_brightness(images: Float[Array, "B *space C"], factors: Float[Array, "B"]) -> Float[Array, "B *space C"]:
    """Multiply each image by its factor: 0 is black, 1 the image."""
    return _adjust(images, BRIGHTNESS, factors)


def adjust_contrast(images: Float[Array, "B *space C"], factors: Float[Array, "B"]) -> Float[Array, "B *space C"]:
    """Stretch each image about the mean of its grey values: 0 is even grey, 1 the image."""
    return _adjust(images, CONTRAST, factors)


def adjust_saturation(images: Float[Array, "B *space 3"], factors: Float[Array, "B"]) -> Float[Array, "B *space 3"]:
    """Stretch each pixel about its grey value: 0 is grey, 1 the image."""
    return _adjust(images, SATURATION, factors)


def adjust_hue(images: Float[Array, "B *space 3"], shifts: Float[Array, "B"]) -> Float[Array, "B *space 3"]:
    """Shift the hue in HSV: 1/3 makes red green and green blue, 1 is the whole wheel."""
    return _images(_shift_hue(_planes(images), shifts), images.shape)


def _adjust(images: Array, name: int, factors: Float[Array, "B"]) -> Array:
    """One kind of blend for all images."""
    names = jnp.full((images.shape[0], 1), name)
    return _images(_blends(_planes(images), names, factors[:, None]), images.shape)


def _blends(
    planes: Float[Array, "C B N"], names: Int[Array, "B places"], factors: Float[Array, "B places"]
) -> Float[Array, "C B N"]:
    """Blend each image with black, its mean grey or its grey values, one after the other in the image's own order.

    A factor of 1 is the image, of 0 the other, above 1 goes away from the other.
    """

    def blend(planes, step):
        name, factor = (values[:, None] for values in step)
        grey = _luma(planes)
        other = jnp.where(name == SATURATION, grey, 0)
        other = jnp.where(name == CONTRAST, grey.mean(axis=1, keepdims=True), other)
        return jnp.clip(factor[None] * planes + ((1 - factor) * other)[None], 0, 1), None

    # A loop in the program: unrolled, XLA computes values anew for each of their uses on CPUs and takes three times
    # as long.
    return jax.lax.scan(blend, planes, (names.T, factors.T))[0]


def _shift_hue(planes: Float[Array, "3 B N"], shifts: Float[Array, "B"]) -> Float[Array, "3 B N"]:
    """The hue moved on in HSV, value and saturation kept."""
    red, green, blue = planes
    largest = planes.max(axis=0)
    spread = largest - planes.min(axis=0)
    scale = 1 / jnp.where(spread > 0, spread, 1)
    # In sixths of the wheel.
    hue = jnp.where(
        largest == red,
        (green - blue) * scale,
        jnp.where(largest == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    hue = hue + 6 * shifts[:, None]
    # A channel is at the largest value within a sixth of its own hue, at the smallest beyond two, on a line between.
    channels = []
    for own in (0, 2, 4):
        # The floor instead of a remainder, which XLA computes one number at a time on CPUs.
        distance = jnp.abs(hue - own - 6 * jnp.floor((hue - own) / 6 + 0.5))
        channels.append(largest - spread * jnp.clip(distance - 1, 0, 1))
    return jnp.clip(jnp.stack(channels), 0, 1)


def _luma(planes: Float[Array, "C B N"]) -> Float[Array, "B N"]:
    """Grey values of planes."""
    if planes.shape[0] == 1:
        return planes[0]
    return LUMA[0] * planes[0] + LUMA[1] * planes[1] + LUMA[2] * planes[2]


def _planes(images: Float[Array, "B *space C"]) -> Float[Array, "C B N"]:
    """One plane per channel: arithmetic between channels is several times faster on CPUs than side by side."""
    # [B, *space, C] -> [B, N, C] -> [C, B, N]
    return jnp.moveaxis(images.reshape(images.shape[0], -1, images.shape[-1]), -1, 0)


def _images(planes: Float[Array, "C B N"], shape: tuple[int, ...]) -> Float[Array, "B *space C"]:
    """Back to channels last."""
    # [C, B, N] -> [B, N, C] -> [B, *space, C]
    return jnp.moveaxis(planes, 0, -1).reshape(shape)


def _check_channels(name: str, images: Float[Array, "B *space C"]) -> None:
    """Refuse what is neither grey nor red, green and blue."""
    if images.shape[-1] not in (1, 3):
        raise UserError(f"{name} takes images of 1 or 3 channels, got {images.shape[-1]}; leave it out of data.augment")
