"""Random windows of an image, resized: the crop of the ImageNet recipes."""

import math
from typing import Annotated, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field

from cnn_jax.data.augment.draws import Ascending, between, uniforms
from cnn_jax.data.augment.geometry import image_size
from cnn_jax.data.augment.warp import affine

Area: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Ratio: TypeAlias = Annotated[float, Field(gt=0)]
Areas: TypeAlias = Annotated[tuple[Area, Area], Ascending]
Ratios: TypeAlias = Annotated[tuple[Ratio, Ratio], Ascending]
Length: TypeAlias = Annotated[int, Field(ge=1)]
ATTEMPTS = 10


def random_resized_crop(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    scale: Areas = (0.08, 1.0),
    ratio: Ratios = (3 / 4, 4 / 3),
    size: tuple[Length, Length] | None = None,
) -> Float[Array, "B *out C"]:
    """Crop a window of random area and shape, and resize it bilinearly with antialiasing (Szegedy et al. 2015, sec. 6).

    The windows are drawn as torchvision's `RandomResizedCrop` draws them: of 10 attempts the first that fits, else the
    largest central window whose shape is allowed. A window is resized as Pillow resizes it: nothing outside of the
    window takes part.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1].
      scale: the smallest and the largest area, as shares of the image's; drawn evenly.
      ratio: the smallest and the largest width over height; drawn evenly on a logarithmic scale.
      size: height and width of the result; the input's where it is None.

    Raises:
      UserError: the images do not have two axes of space.
    """
    source = image_size("random_resized_crop", images)
    windows = _crop_windows(keys, source, scale, ratio)
    height, width = size or source
    rows = _resizing(windows[:, 0], windows[:, 2], source=source[0], target=height)
    columns = _resizing(windows[:, 1], windows[:, 3], source=source[1], target=width)
    # A product in fewer bits than float32, the default of some accelerators, would shift levels of pixels.
    narrow = jnp.einsum("bpw,bhwc->bhpc", columns, images, precision="highest")
    return jnp.clip(jnp.einsum("boh,bhpc->bopc", rows, narrow, precision="highest"), 0, 1)


def random_resized_crop_matrices(
    keys: Key[Array, "B"],
    *,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    target: tuple[int, int],
) -> Float[Array, "B 3 3"]:
    """What `random_resized_crop` does to images of height and width `size`, which become `target`, with these keys."""
    y0, x0, y1, x1 = _crop_windows(keys, size, scale, ratio).astype(jnp.float32).T
    zero, (down, right) = jnp.zeros_like(y0), ((y1 - y0) / target[0], (x1 - x0) / target[1])
    return affine([down, zero, y0 + (down - 1) / 2, zero, right, x0 + (right - 1) / 2])


def random_windows(
    keys: Key[Array, "B"], *, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Int[Array, "B 4"], Bool[Array, "B"]]:
    """Windows of random area, shape and place, of whole pixels inside an image.

    Args:
      keys: one per example.
      size: the image's height and width.
      scale: the smallest and the largest area, as shares of the image's; drawn evenly.
      ratio: the smallest and the largest width over height; drawn evenly on a logarithmic scale.

    Returns:
      Windows `(y0, x0, y1, x1)`, and whether one of 10 attempts was a window inside the image, of one pixel at least;
      where none was the window means nothing.
    """
    height, width = size
    draws = uniforms(keys, count=2 * ATTEMPTS + 2)
    area = between(draws[:, :ATTEMPTS], *scale) * height * width
    shape = jnp.exp(between(draws[:, ATTEMPTS:-2], *(math.log(end) for end in ratio)))
    heights, widths = jnp.round(jnp.sqrt(area / shape)), jnp.round(jnp.sqrt(area * shape))
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = jnp.argmax(fits, axis=1)[:, None]
    tall, wide = (jnp.take_along_axis(lengths, first, axis=1)[:, 0] for lengths in (heights, widths))
    top, left = jnp.floor(draws[:, -2] * (height - tall + 1)), jnp.floor(draws[:, -1] * (width - wide + 1))
    return jnp.stack([top, left, top + tall, left + wide], axis=-1).astype(jnp.int32), fits.any(axis=1)


def _crop_windows(
    keys: Key[Array, "B"], size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> Int[Array, "B 4"]:
    """Random windows, and the largest central one of an allowed shape where no attempt fitted."""
    windows, found = random_windows(keys, size=size, scale=scale, ratio=ratio)
    height, width = size
    tall = min(height, max(1, round(width / ratio[0])))
    wide = min(width, max(1, round(height * ratio[1])))
    top, left = (height - tall) // 2, (width - wide) // 2
    return jnp.where(found[:, None], windows, jnp.array([[top, left, top + tall, left + wide]], jnp.int32))


def _resizing(
    start: Int[Array, "B"], stop: Int[Array, "B"], *, source: int, target: int
) -> Float[Array, "B target source"]:
    """The weights of the input's pixels in each output pixel along one axis: a triangle about its centre.

    Magnifying, the triangle is two input pixels wide; shrinking, two output pixels.
    """
    start, stop = (edge.astype(jnp.float32)[:, None, None] for edge in (start, stop))
    step = (stop - start) / target
    centre = start + (jnp.arange(target, dtype=jnp.float32)[None, :, None] + 0.5) * step
    pixel = jnp.arange(source, dtype=jnp.float32)[None, None, :] + 0.5
    weights = jnp.maximum(0, 1 - jnp.abs(pixel - centre) / jnp.maximum(step, 1))
    weights = jnp.where((start < pixel) & (pixel < stop), weights, 0)
    return weights / weights.sum(axis=-1, keepdims=True)
