"""The operations that automatic policies choose from, one per example, on levels 0 to 255 as Pillow defines them.

A `lax.switch` under `vmap` would compute all fourteen for every example. Instead each operation is a row of parameters
of three stages that every example goes through: an affine warp, a look-up table of 256 levels per channel, and a blend
with a degenerate image. The stages that an operation does not need leave the levels as they are.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from cnn_jax.data.augment.operation_stages import (
    BLEND_BITS,
    DEGENERATE,
    Operations,
    enhance,
    map_levels,
    warp_levels,
)
from cnn_jax.data.augment.warp import Interpolation
from cnn_jax.errors import UserError

OperationName: TypeAlias = Literal[
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
]
"""As the papers' tables write them."""

OPERATIONS: tuple[OperationName, ...] = get_args(OperationName)


def operation_table(choices: Sequence[tuple[OperationName, float | int]], *, size: tuple[int, ...]) -> Operations:
    """The parameters of each of N operations, computed once with NumPy, from which examples gather their rows.

    Args:
      choices: name and magnitude: the slope of a shear (positive: lower rows, or right columns, show what lies further
        right, or down), pixels to translate by (cut to whole ones; positive to the right or down), degrees to rotate by
        (counter-clockwise), for Brightness, Color, Contrast and Sharpness the blend's factor less one, bits kept by
        Posterize, the level from which Solarize inverts; Identity, AutoContrast, Equalize and Invert ignore it.
      size: height and width of the images.

    Returns:
      NumPy arrays with leading axis N.
    """
    names = np.array([name for name, _ in choices])
    enhance = np.isin(names, list(DEGENERATE))
    magnitudes = np.array([magnitude for _, magnitude in choices], np.float64)
    return Operations(
        inverse=np.stack([_inverse(name, float(magnitude), size) for name, magnitude in choices]),
        look_up=np.stack([_look_up(name, float(magnitude)) for name, magnitude in choices]),
        stretch=names == "AutoContrast",
        equalise=names == "Equalize",
        degenerate=np.array([DEGENERATE.get(name, 0) for name in names], np.int32),
        factor=np.round(np.where(enhance, 1 + magnitudes, 1) * 2**BLEND_BITS).astype(np.int32),
    )


def _inverse(name: OperationName, magnitude: float, size: tuple[int, ...]) -> Int[np.ndarray, "6"]:
    """The affine map from output to input pixels, in the fixed-point numbers of Pillow's `Image.transform`."""
    a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0
    if name == "ShearX":
        b = magnitude
    elif name == "ShearY":
        d = magnitude
    elif name == "TranslateX":
        c = -math.trunc(magnitude)
    elif name == "TranslateY":
        f = -math.trunc(magnitude)
    elif name == "Rotate":
        angle = -math.radians(magnitude)
        # Without rounding, a quarter turn would be off by 1e-16, on the border between two pixels.
        a, b = round(math.cos(angle), 15), round(math.sin(angle), 15)
        d, e = -b, a
        y, x = size[0] / 2, size[1] / 2
        c, f = x - a * x - b * y, y - d * x - e * y
    # The centre of pixel 0 lies at 1/2.
    numbers = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2])
    return np.floor(numbers * 65536 + 0.5).astype(np.int32)


def _look_up(name: OperationName, magnitude: float) -> UInt8[np.ndarray, "256"]:
    """The new level of each level, for operations that need to know nothing of the image."""
    levels = np.arange(256)
    if name == "Invert":
        levels = 255 - levels
    elif name == "Brightness":
        levels = np.minimum(np.float32(1 + magnitude) * levels.astype(np.float32), 255)
    elif name == "Posterize":
        levels = levels & -(2 ** (8 - int(magnitude)))
    elif name == "Solarize":
        levels = np.where(levels < magnitude, levels, 255 - levels)
    return levels.astype(np.uint8)


def to_levels(images: Float[Array, "B *space C"]) -> Int[Array, "B *space C"]:
    """[0, 1] to levels 0 to 255, the nearest.

    Raises:
      UserError: the images are not two-dimensional, or neither grey nor of three channels.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"automatic policies take images [B, height, width, 1 or 3 channels], not {list(images.shape)}; "
            "augment others with the operations of AUGMENTATIONS that take any shape, such as random_flip"
        )
    return jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.int32)


def from_levels(levels: Int[Array, "B *space C"]) -> Float[Array, "B *space C"]:
    """Levels 0 to 255 to float32 multiples of 1/255."""
    return levels.astype(jnp.float32) / 255


def apply_choices(
    levels: Int[Array, "B H W C"],
    rows: Int[Array, "B N"],
    *,
    choices: Sequence[tuple[OperationName, float | int]],
    interpolation: Interpolation,
) -> Int[Array, "B H W C"]:
    """Apply N operations in turn to each example, each its own.

    Levels equal those of Pillow (`Image.transform`, `Image.rotate`, `ImageOps`, `ImageEnhance`), with which
    torchvision's policies work on Pillow images; bilinear interpolation may differ from it by one level, and
    AutoContrast where a result is whole, which Pillow's floating-point numbers may bring just below itself.

    Args:
      levels: 0 to 255, with one channel or three (red, green, blue).
      rows: the operations of each example, as places in `choices`.
      choices: name and magnitude, see `operation_table`.
      interpolation: between pixels of the input. Outside of it is black.
    """
    table = operation_table(choices, size=levels.shape[1:3])

    def apply(levels: Int[Array, "B H W C"], row: Int[Array, "B"]) -> tuple[Int[Array, "B H W C"], None]:
        operations = Operations(*(jnp.asarray(column)[row] for column in table))
        levels = warp_levels(levels, operations.inverse, interpolation=interpolation)
        return enhance(map_levels(levels, operations), operations), None

    # [B, N] -> [N, B]
    return jax.lax.scan(apply, levels, rows.T)[0]


def choice_matrices(
    rows: Int[Array, "B N"], *, choices: Sequence[tuple[OperationName, float | int]], size: tuple[int, ...]
) -> Float[Array, "B 3 3"]:
    """How `apply_choices` moves pixels, all operations together; output pixel to input pixel as `warp.py` states.

    Args:
      rows: the operations of each example, as places in `choices`.
      choices: name and magnitude, see `operation_table`.
      size: height and width of the images.
    """
    # [N, 6] -> [6, N]
    a, b, c, d, e, f = operation_table(choices, size=size).inverse.T / np.float32(65536)
    zero, one = np.zeros_like(a), np.ones_like(a)
    # [9, N] -> [N, 3, 3]; places there count from the edge, half a pixel before the first centre.
    matrices = np.stack([e, d, f - 0.5, b, a, c - 0.5, zero, zero, one], axis=-1).reshape(-1, 3, 3)
    each = jnp.asarray(matrices, jnp.float32)[rows]
    total = each[:, 0]
    for place in range(1, rows.shape[1]):
        total = jnp.matmul(total, each[:, place], precision="highest")
    return total
