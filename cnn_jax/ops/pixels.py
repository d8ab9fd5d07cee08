"""Arrays of pixels to Pillow's images and back, and to other channels."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8

from cnn_jax.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Channels = Literal[1, 3, 4]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels to what Pillow calls such an image."""


def to_pixels(image: "PILImage") -> UInt8[np.ndarray, "H W C"]:
    """The pixels of an image of mode L, RGB or RGBA; they may be read-only."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels  # [H, W] -> [H, W, 1]


def from_pixels(pixels: UInt8[np.ndarray, "H W C"]) -> "PILImage":
    """Pillow's image of pixels.

    Raises:
      UserError: not 1, 3 or 4 channels, which are L, RGB and RGBA.
    """
    from PIL import Image

    check_channels(pixels)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def check_channels(pixels: np.ndarray) -> None:
    """Refuse pixels that no image of Pillow's can have.

    Raises:
      UserError: not `[H, W, C]` with 1, 3 or 4 channels.
    """
    if pixels.ndim != 3 or pixels.shape[-1] not in MODES:
        raise UserError(
            f"images of shape {pixels.shape} cannot be transformed on the host; those of 1, 3 or 4 channels can"
        )


def to_channels(pixels: UInt8[np.ndarray, "H W C"], channels: Channels | None) -> UInt8[np.ndarray, "H W D"]:
    """Grey, RGB or RGBA pixels as another of these: equal colours, luma (ITU-R 601-2), opaque, without transparency.

    Args:
      pixels: uint8, C is 1, 3 or 4 if it is to change.
      channels: D: 1, 3 or 4; None leaves them.

    Raises:
      UserError: there is no rule for C channels.
    """
    if channels is None or channels == pixels.shape[-1]:
        return pixels
    if pixels.shape[-1] not in MODES:
        raise UserError(
            f"images of {pixels.shape[-1]} channels cannot become {channels}; only 1, 3 and 4 are converted"
        )
    return to_pixels(from_pixels(pixels).convert(MODES[channels]))
