"""Rotation, translation, shear and zoom of images in two dimensions, each with the matrices that move boxes and maps.

Every operation comes with a function of the same draws that returns its matrices, output pixel to input pixel as
`warp.py` states. Lengths are in pixels, angles in degrees, positive ones turn counter-clockwise.
"""

import math
from typing import Annotated, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from pydantic import Field

from cnn_jax.data.augment.draws import Ascending, Probability, between, uniforms
from cnn_jax.data.augment.warp import Border, Interpolation, affine, warp
from cnn_jax.errors import UserError

Degrees: TypeAlias = Annotated[float, Field(ge=0, le=180)]
SteepDegrees: TypeAlias = Annotated[float, Field(ge=0, lt=90)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Factor: TypeAlias = Annotated[float, Field(gt=0)]
Factors: TypeAlias = Annotated[tuple[Factor, Factor], Ascending]


def random_rotation(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    degrees: Degrees = 15.0,
    probability: Probability = 1.0,
    interpolation: Interpolation = "bilinear",
    mode: Border = "zero",
) -> Float[Array, "B *space C"]:
    """Turn each image about its centre by an angle drawn evenly from -`degrees` to `degrees`.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1].
      degrees: the largest angle.
      probability: of being turned at all.
      interpolation: "bilinear" or "nearest".
      mode: what comes in from outside: "zero" is black, "reflect" the mirror image.

    Raises:
      UserError: the images do not have two axes of space.
    """
    size = image_size("random_rotation", images)
    matrices = random_rotation_matrices(keys, size=size, degrees=degrees, probability=probability)
    return warp(images, matrices, interpolation=interpolation, mode=mode)


def random_rotation_matrices(
    keys: Key[Array, "B"], *, size: tuple[int, int], degrees: float, probability: float
) -> Float[Array, "B 3 3"]:
    """What `random_rotation` does to images of this height and width with the same keys."""
    chance, share = uniforms(keys, count=2).T
    return rotation_matrices(jnp.where(chance < probability, between(share, -degrees, degrees), 0), size=size)


def rotation_matrices(degrees: Float[Array, "B"], *, size: tuple[int, int]) -> Float[Array, "B 3 3"]:
    """Turn about the centre, counter-clockwise."""
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    return _about_centre([cosine, sine, -sine, cosine], size)


def random_translation(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    shares: tuple[Share, Share] = (0.1, 0.1),
    probability: Probability = 1.0,
    mode: Border = "zero",
) -> Float[Array, "B *space C"]:
    """Move each image by whole pixels, drawn evenly and rounded, as torchvision's `RandomAffine` does.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1].
      shares: the largest move up or down as a share of the height, and left or right as one of the width.
      probability: of being moved at all.
      mode: what comes in from outside: "zero" is black, "reflect" the mirror image.

    Raises:
      UserError: the images do not have two axes of space.
    """
    size = image_size("random_translation", images)
    matrices = random_translation_matrices(keys, size=size, shares=shares, probability=probability)
    return warp(images, matrices, interpolation="nearest", mode=mode)


def random_translation_matrices(
    keys: Key[Array, "B"], *, size: tuple[int, int], shares: tuple[float, float], probability: float
) -> Float[Array, "B 3 3"]:
    """What `random_translation` does to images of this height and width with the same keys."""
    chance, down, right = uniforms(keys, count=3).T
    largest = [share * length for share, length in zip(shares, size, strict=True)]
    moves = [jnp.round(between(share, -most, most)) for share, most in zip((down, right), largest, strict=True)]
    return translation_matrices(*(jnp.where(chance < probability, move, 0) for move in moves))


def translation_matrices(down: Float[Array, "B"], right: Float[Array, "B"]) -> Float[Array, "B 3 3"]:
    """Move down and to the right, in pixels."""
    one, zero = jnp.ones_like(down), jnp.zeros_like(down)
    return affine([one, zero, -down, zero, one, -right])


def random_shear(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    degrees: tuple[SteepDegrees, SteepDegrees] = (0.0, 15.0),
    probability: Probability = 1.0,
    interpolation: Interpolation = "bilinear",
    mode: Border = "zero",
) -> Float[Array, "B *space C"]:
    """Lean each image by angles drawn evenly from minus to plus `degrees`.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1].
      degrees: the largest angle by which rows lean up or down, and by which columns lean left or right.
      probability: of being sheared at all.
      interpolation: "bilinear" or "nearest".
      mode: what comes in from outside: "zero" is black, "reflect" the mirror image.

    Raises:
      UserError: the images do not have two axes of space.
    """
    size = image_size("random_shear", images)
    matrices = random_shear_matrices(keys, size=size, degrees=degrees, probability=probability)
    return warp(images, matrices, interpolation=interpolation, mode=mode)


def random_shear_matrices(
    keys: Key[Array, "B"], *, size: tuple[int, int], degrees: tuple[float, float], probability: float
) -> Float[Array, "B 3 3"]:
    """What `random_shear` does to images of this height and width with the same keys."""
    chance, vertical, horizontal = uniforms(keys, count=3).T
    angles = [between(share, -most, most) for share, most in zip((vertical, horizontal), degrees, strict=True)]
    return shear_matrices(*(jnp.where(chance < probability, angle, 0) for angle in angles), size=size)


def shear_matrices(
    vertical: Float[Array, "B"], horizontal: Float[Array, "B"], *, size: tuple[int, int]
) -> Float[Array, "B 3 3"]:
    """What is one pixel right of the centre shows what was tan(vertical) lower; one pixel below, tan(horizontal) right.

    Angles in degrees; `size` is the images' height and width.
    """
    one = jnp.ones_like(vertical)
    return _about_centre([one, jnp.tan(jnp.deg2rad(vertical)), jnp.tan(jnp.deg2rad(horizontal)), one], size)


def random_zoom(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    factors: Factors = (0.8, 1.25),
    probability: Probability = 1.0,
    interpolation: Interpolation = "bilinear",
    mode: Border = "zero",
) -> Float[Array, "B *space C"]:
    """Magnify each image about its centre, by a factor drawn evenly on a logarithmic scale.

    So that with (1/2, 2) half of the images shrink; there is no antialiasing, see `random_resized_crop`.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1].
      factors: the smallest and the largest; above 1 magnifies.
      probability: of being zoomed at all.
      interpolation: "bilinear" or "nearest".
      mode: what comes in from outside: "zero" is black, "reflect" the mirror image.

    Raises:
      UserError: the images do not have two axes of space.
    """
    size = image_size("random_zoom", images)
    matrices = random_zoom_matrices(keys, size=size, factors=factors, probability=probability)
    return warp(images, matrices, interpolation=interpolation, mode=mode)


def random_zoom_matrices(
    keys: Key[Array, "B"], *, size: tuple[int, int], factors: tuple[float, float], probability: float
) -> Float[Array, "B 3 3"]:
    """What `random_zoom` does to images of this height and width with the same keys."""
    chance, share = uniforms(keys, count=2).T
    logarithm = between(share, *(math.log(factor) for factor in factors))
    return zoom_matrices(jnp.exp(jnp.where(chance < probability, logarithm, 0)), size=size)


def zoom_matrices(factors: Float[Array, "B"], *, size: tuple[int, int]) -> Float[Array, "B 3 3"]:
    """Magnify about the centre."""
    zero = jnp.zeros_like(factors)
    return _about_centre([1 / factors, zero, zero, 1 / factors], size)


def image_size(name: str, images: Float[Array, "B *space C"]) -> tuple[int, int]:
    """Height and width.

    Raises:
      UserError: the images do not have two axes of space; it names the operation.
    """
    if images.ndim != 4:
        raise UserError(
            f"{name} takes images with two axes of space, [B, H, W, C], got shape {images.shape}; "
            f"leave it out of data.augment"
        )
    return images.shape[1], images.shape[2]


def _about_centre(linear: list[Float[Array, "B"]], size: tuple[int, int]) -> Float[Array, "B 3 3"]:
    """Matrices that keep the centre in place, of the four numbers of their linear part."""
    (a, b, c, d), (y, x) = linear, ((length - 1) / 2 for length in size)
    return affine([a, b, y - (a * y + b * x), c, d, x - (c * y + d * x)])
