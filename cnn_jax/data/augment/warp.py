"""Images, segmentation maps and boxes moved by one affine matrix per example.

A matrix `[3, 3]` takes a pixel `(y, x, 1)` of the output to the place in the input that it shows. Centres of pixels are
at integer y and x, so that the top left pixel is at (0, 0) and the edges of an image at -1/2 and height - 1/2. The last
row is (0, 0, 1). `geometry.py` makes such matrices.
"""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

Interpolation: TypeAlias = Literal["bilinear", "nearest"]
"""How a value between pixels is found."""

Border: TypeAlias = Literal["zero", "reflect"]
"""What lies outside of an image: black, or its mirror image about the centres of the border's pixels."""


def warp(
    images: Float[Array, "B H W C"],
    matrices: Float[Array, "B 3 3"],
    *,
    interpolation: Interpolation = "bilinear",
    mode: Border = "zero",
    size: tuple[int, int] | None = None,
) -> Float[Array, "B height width C"]:
    """Resample each image so that output pixel p shows what is at `matrix @ p` in the input.

    No antialiasing: for a much smaller scale see `resized_crop.py`.

    Args:
      images: in [0, 1].
      matrices: output pixel to input pixel, `(y, x, 1)` columns.
      interpolation: "bilinear", or "nearest", where a place half way between two pixels takes the later one.
      mode: "zero" fades to black over the last half pixel outside (SciPy's "grid-constant"); "reflect" mirrors the
        image without repeating its border (SciPy's "mirror", NumPy's "reflect").
      size: height and width of the output; the input's where it is None.

    Returns:
      Images in [0, 1] of the given size.
    """
    y, x = _places(matrices, size or images.shape[1:3])
    if mode == "reflect":
        y, x = _reflected(y, images.shape[1]), _reflected(x, images.shape[2])
    if interpolation == "nearest":
        return _pixels(images, _nearest(y), _nearest(x), fill=0)
    # One pixel outside is enough: all that is further away is zero too, and the indices stay small.
    y, x = jnp.clip(y, -1, images.shape[1]), jnp.clip(x, -1, images.shape[2])
    top, left = jnp.floor(y), jnp.floor(x)
    below, right = (y - top)[..., None], (x - left)[..., None]
    row, column = top.astype(jnp.int32), left.astype(jnp.int32)
    first = _between(
        _pixels(images, row, column, fill=0),
        _pixels(images, row, column + 1, fill=0),
        right,
    )
    second = _between(
        _pixels(images, row + 1, column, fill=0),
        _pixels(images, row + 1, column + 1, fill=0),
        right,
    )
    # Rounding may leave [0, 1] by one unit in the last place.
    return jnp.clip(_between(first, second, below), 0, 1)


def warp_segmentation(
    maps: Int[Array, "B H W"],
    matrices: Float[Array, "B 3 3"],
    *,
    mode: Border = "zero",
    fill: int = 255,
    size: tuple[int, int] | None = None,
) -> Int[Array, "B height width"]:
    """Move maps of class indices as `warp` moves pixels, by the nearest neighbour.

    Args:
      maps: class indices.
      matrices: output pixel to input pixel, `(y, x, 1)` columns.
      mode: "zero" puts `fill` where the image is black; "reflect" mirrors the map with the image.
      fill: the class of what is outside; 255 is ignored by the usual losses and metrics.
      size: height and width of the output; the input's where it is None.
    """
    y, x = _places(matrices, size or maps.shape[1:3])
    if mode == "reflect":
        y, x = _reflected(y, maps.shape[1]), _reflected(x, maps.shape[2])
    return _pixels(maps[..., None], _nearest(y), _nearest(x), fill=fill)[..., 0]


def warp_boxes(
    boxes: Float[Array, "B N 4"], matrices: Float[Array, "B 3 3"], *, size: tuple[int, int]
) -> Float[Array, "B N 4"]:
    """Move boxes with the pixels: the box that encloses the moved corners, clipped to the image.

    Args:
      boxes: `(y0, x0, y1, x1)` in pixels, edges: the box of the top left pixel alone is (0, 0, 1, 1), that of the
        whole image (0, 0, height, width).
      matrices: output pixel to input pixel, `(y, x, 1)` columns; they must have an inverse.
      size: height and width of the output image.

    Returns:
      Boxes in pixels of the output. One that has no area, before (padding) or after (moved out of the image), becomes
      (0, 0, 0, 0).
    """
    y0, x0, y1, x1 = jnp.moveaxis(boxes, -1, 0)
    # [4, B, N] -> [B, N, 4]; pixel centres are half a pixel from the edges that boxes count in.
    y = jnp.moveaxis(jnp.stack([y0, y0, y1, y1]), 0, -1) - 0.5
    x = jnp.moveaxis(jnp.stack([x0, x1, x0, x1]), 0, -1) - 0.5
    y, x = _transform(inverse(matrices), y, x)
    edges = [y.min(-1), x.min(-1), y.max(-1), x.max(-1)]
    limits = [size[0], size[1], size[0], size[1]]
    moved = jnp.stack([jnp.clip(edge + 0.5, 0, limit) for edge, limit in zip(edges, limits, strict=True)], axis=-1)
    return jnp.where((_has_area(boxes) & _has_area(moved))[..., None], moved, 0)


def inverse(matrices: Float[Array, "B 3 3"]) -> Float[Array, "B 3 3"]:
    """The inverse of affine matrices, in closed form: exact for flips and for moves by whole pixels."""
    (a, b, c), (d, e, f) = (tuple(matrices[:, row, column] for column in range(3)) for row in range(2))
    determinant = a * e - b * d
    rows = [e, -b, b * f - c * e, -d, a, c * d - a * f]
    return affine([row / determinant for row in rows])


def affine(rows: list[Float[Array, "B"]]) -> Float[Array, "B 3 3"]:
    """Matrices of the six numbers of their first two rows, each `[B]`; the last row is (0, 0, 1)."""
    zero = jnp.zeros_like(rows[0])
    # [B, 9] -> [B, 3, 3]
    return jnp.stack([*rows, zero, zero, zero + 1], axis=-1).reshape(-1, 3, 3)


def _places(
    matrices: Float[Array, "B 3 3"], size: tuple[int, ...]
) -> tuple[Float[Array, "B height width"], Float[Array, "B height width"]]:
    """Where in the input each output pixel lies."""
    y, x = jnp.meshgrid(*(jnp.arange(length, dtype=jnp.float32) for length in size), indexing="ij")
    return _transform(matrices, y[None], x[None])


def _transform(matrices: Float[Array, "B 3 3"], y: Array, x: Array) -> tuple[Array, Array]:
    """The matrices' products with points `(y, x, 1)`, as sums: a matrix product may round to fewer bits."""
    # [B] -> [B, 1, 1]
    entries = matrices[:, :2].transpose(1, 2, 0)[..., None, None]
    (a, b, c), (d, e, f) = entries
    return a * y + b * x + c, d * y + e * x + f


def _reflected(place: Array, length: int) -> Array:
    """The place in [0, length - 1] that a place outside mirrors."""
    if length == 1:
        return jnp.zeros_like(place)
    # Mirrored and mirrored again the image repeats: what counts is how far the nearest of its first pixels is.
    period = 2 * (length - 1)
    return jnp.abs(place - period * jnp.floor(place / period + 0.5))


def _nearest(place: Array) -> Array:
    """The index of the nearest pixel; half way it is the later one everywhere, where rounding would alternate."""
    return jnp.floor(place + 0.5).astype(jnp.int32)


def _pixels(
    images: Num[Array, "B H W C"],
    row: Int[Array, "B height width"],
    column: Int[Array, "B height width"],
    *,
    fill: int,
) -> Num[Array, "B height width C"]:
    """The pixels at (row, column), `fill` outside."""
    height, width = images.shape[1:3]
    # A border of the fill value costs less than a test for each pixel.
    padded = jnp.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=fill)
    row, column = jnp.clip(row, -1, height + 1) + 1, jnp.clip(column, -1, width + 1) + 1
    # [B, H + 3, W + 3, C] -> [B, (H + 3) (W + 3), C]
    pixels = padded.reshape(images.shape[0], -1, images.shape[-1])
    return jax.vmap(lambda pixel, index: pixel.at[index].get(mode="promise_in_bounds"))(
        pixels, row * (width + 3) + column
    )


def _between(first: Array, second: Array, share: Array) -> Array:
    """First at a share of 0, second at 1."""
    return first + (second - first) * share


def _has_area(boxes: Float[Array, "B N 4"]) -> Array:
    """Which boxes are more than a line or a point."""
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
