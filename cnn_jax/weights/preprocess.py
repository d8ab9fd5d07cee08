"""Image files as the input that pretrained weights were trained for: torchvision's steps on PIL images, exactly."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float, UInt8

from cnn_jax.errors import UserError
from cnn_jax.ops.image_files import (
    LARGEST_PIXELS,
    Interpolation,
    central_part,
    decode_image,
    resize_image,
    resized_size,
)
from cnn_jax.untrusted import read_regular


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a network.

    Attributes:
      resize: pixels of the shortest side, or of both (height, width).
      crop: (height, width) of the part in the middle that is taken; None takes all.
      interpolation: of resizing, "bilinear" or "bicubic", both with antialiasing.
      mean: per channel, of values in [0, 1].
      std: deviation per channel.
    """

    resize: int | tuple[int, int] = 256
    crop: tuple[int, int] | None = (224, 224)
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __str__(self) -> str:
        """One line for a report."""
        size = f"shortest side to {self.resize}" if isinstance(self.resize, int) else "{}×{}".format(*self.resize)
        crop = "" if self.crop is None else ", middle {}×{}".format(*self.crop)
        return f"{size} pixels ({self.interpolation}){crop}, mean {self.mean}, deviation {self.std}"


def read_image(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image file in RGB, turned as its EXIF orientation says.

    Raises:
      UserError: the file cannot be read, is no image, or is damaged.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    return decode_image(content, name=str(path), channels=3, largest=LARGEST_PIXELS)


def preprocess(pixels: UInt8[np.ndarray, "h w c"], how: Preprocessing) -> Float[np.ndarray, "H W c"]:
    """The input of a network for one image.

    Raises:
      UserError: an image so long and thin that it would not fit in memory.
    """
    pixels = resize_image(pixels, resized_size(pixels.shape[:2], how.resize), interpolation=how.interpolation)
    if how.crop is not None:
        pixels = central_part(pixels, how.crop)
    values = pixels.astype(np.float32) / np.float32(255)
    return (values - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
