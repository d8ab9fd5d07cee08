"""The three stages that make up every operation of the automatic policies; see `operations.py`.

Whole numbers throughout, but for shares of pixels in bilinear interpolation: the same levels on every device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from cnn_jax.data.augment.warp import Interpolation
from cnn_jax.types import Leaf

DEGENERATE = {"Contrast": 0, "Color": 1, "Sharpness": 2}
"""Blended with: the mean grey level, the grey image, the smoothed image; Pillow's `ImageEnhance`."""


BLEND_BITS = 22
"""Of the blend's factor after the point: with a factor below 2 and levels below 256, products fit into 32 bits."""


class Operations(NamedTuple):
    """N operations as parameters of the three stages.

    Attributes:
      inverse: int32 `[N, 6]`, (a, b, c, d, e, f) in units of 1/65536: output pixel (x, y) shows the input at
        (a x + b y + c, d x + e y + f), whose integer part is the index of the pixel.
      look_up: uint8 `[N, 256]`, the new level of each level.
      stretch: bool `[N]`, whether to stretch each channel to the full range instead (AutoContrast).
      equalise: bool `[N]`, whether to equalise each channel's histogram instead.
      degenerate: int32 `[N]`, see `DEGENERATE`.
      factor: int32 `[N]`, the image's share of the blend in units of 2⁻²²; 1 is the image itself, more extrapolates.
    """

    inverse: Leaf
    look_up: Leaf
    stretch: Leaf
    equalise: Leaf
    degenerate: Leaf
    factor: Leaf


def warp_levels(
    levels: Int[Array, "B H W C"], inverse: Int[Array, "B 6"], *, interpolation: Interpolation
) -> Int[Array, "B H W C"]:
    """Resample by affine maps in fixed-point numbers, with black outside of the image."""
    batch, height, width, channels = levels.shape
    y, x = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    a, b, c, d, e, f = (number[:, None, None] for number in inverse.T)
    across, down = a * x + b * y + c, d * x + e * y + f
    inside = (across >= 0) & (across < width << 16) & (down >= 0) & (down < height << 16)

    def pixels(row: Int[Array, "B H W"], column: Int[Array, "B H W"]) -> Int[Array, "B H W C"]:
        place = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        # [B, H, W, C] -> [B, H W, C]
        return _gather(levels.reshape(batch, height * width, channels), place)

    if interpolation == "nearest":
        result = pixels(down >> 16, across >> 16)
    else:
        across, down = across - (1 << 15), down - (1 << 15)
        row, column = down >> 16, across >> 16
        v, u = ((number & 0xFFFF)[..., None] / 65536 for number in (down, across))

        def between(start: Num[Array, "B H W C"], end: Num[Array, "B H W C"], share: Float[Array, "B H W 1"]):
            return start + share * (end - start)

        upper = between(pixels(row, column), pixels(row, column + 1), u)
        lower = between(pixels(row + 1, column), pixels(row + 1, column + 1), u)
        # As Pillow cuts, but no whole level that rounding errors have brought below itself.
        result = jnp.floor(between(upper, lower, v) + 1e-3).astype(jnp.int32)
    return jnp.where(inside[..., None], result, 0)


def map_levels(levels: Int[Array, "B H W C"], operations: Operations) -> Int[Array, "B H W C"]:
    """Give each level of each channel its new one."""
    batch, _, _, channels = levels.shape
    # Of all channels side by side: [B, C, 256] -> [B, C 256].
    index = levels + 256 * jnp.arange(channels)[None, None, None, :]
    shape = (batch, channels, 256)
    fixed = jnp.broadcast_to(operations.look_up[:, None, :], shape).astype(jnp.int32)

    def from_histograms() -> Int[Array, "B C 256"]:
        counts = jax.vmap(lambda index: jnp.zeros(256 * channels, jnp.int32).at[index].add(1))(index)
        counts = counts.reshape(shape)  # [B, C 256] -> [B, C, 256]
        table = jnp.where(operations.stretch[:, None, None], _stretching(counts), fixed)
        return jnp.where(operations.equalise[:, None, None], _equalising(counts), table)

    # Beside saving work, a branch is what keeps XLA from computing the tables' entries anew for each pixel's look-up.
    table = jax.lax.cond(jnp.any(operations.stretch | operations.equalise), from_histograms, lambda: fixed)
    # [B, C, 256] -> [B, C 256]
    return _gather(table.reshape(batch, channels * 256), index)


def _stretching(counts: Int[Array, "B C 256"]) -> Int[Array, "B C 256"]:
    """Tables that map the darkest level present to 0 and the lightest to 255: Pillow's `autocontrast`."""
    level = jnp.arange(256)[None, None, :]
    present = counts > 0
    low = jnp.argmax(present, axis=-1)[..., None]
    high = 255 - jnp.argmax(present[..., ::-1], axis=-1)[..., None]
    stretched = jnp.clip((level - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, level)


def _equalising(counts: Int[Array, "B C 256"]) -> Int[Array, "B C 256"]:
    """Tables that make the cumulative histogram as straight as it gets: Pillow's `equalize`."""
    level = jnp.arange(256)[None, None, :]
    below = jnp.cumsum(counts, axis=-1) - counts
    # All but those of the lightest level present.
    step = jnp.max(jnp.where(counts > 0, below, 0), axis=-1)[..., None] // 255
    equal = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, equal, level)


def _gather(values: Int[Array, "B N *C"], index: Int[Array, "B *I"]) -> Int[Array, "B *IC"]:
    """`values[b, index[b]]` of each example; a batched gather, which stays local where the batch is sharded."""
    return jax.vmap(lambda values, index: values.at[index].get(mode="promise_in_bounds"))(values, index)


def enhance(levels: Int[Array, "B H W C"], operations: Operations) -> Int[Array, "B H W C"]:
    """Blend with each example's degenerate image, and cut to whole levels."""
    grey, smooth = _grey(levels), _smooth(levels)
    pixels = grey[0].size
    # Half up, in whole numbers.
    mean = (2 * jnp.sum(grey, axis=(1, 2, 3), keepdims=True) + pixels) // (2 * pixels)
    kind = operations.degenerate[:, None, None, None]
    degenerate = jnp.where(kind == DEGENERATE["Color"], grey, mean)
    degenerate = jnp.where(kind == DEGENERATE["Sharpness"], smooth, degenerate)
    factor = operations.factor[:, None, None, None]
    # The shift cuts as Pillow does. 255 keeps a sum that is whole in decimals, such as 100 + 1.09 * 100, from being cut
    # a level lower because the factor has been rounded.
    blend = (degenerate << BLEND_BITS) + 255 + factor * (levels - degenerate)
    return jnp.clip(blend >> BLEND_BITS, 0, 255)


def _grey(levels: Int[Array, "B H W C"]) -> Int[Array, "B H W 1"]:
    """The luma of ITU-R 601-2, as Pillow rounds it; of one channel, the channel."""
    if levels.shape[-1] == 1:
        return levels
    red, green, blue = levels[..., 0:1], levels[..., 1:2], levels[..., 2:3]
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def _smooth(levels: Int[Array, "B H W C"]) -> Int[Array, "B H W C"]:
    """Each pixel's mean with its eight neighbours, itself with weight 5 of 13; border pixels stay."""
    if min(levels.shape[1:3]) < 3:
        return levels
    rows = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * levels[:, 1:-1, 1:-1]
    return levels.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)
