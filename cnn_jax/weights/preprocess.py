"""Image files as the input that pretrained weights were trained for: torchvision's steps on PIL images, exactly."""

import dataclasses
import pathlib
import struct
import warnings
import zlib

import numpy as np
from jaxtyping import Float, UInt8

from cnn_jax.errors import UserError

INTERPOLATIONS = ("bilinear", "bicubic")
DAMAGED = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, struct.error, zlib.error),
)
"""What Pillow's decoders raise for damaged files, besides OSError."""
LARGEST_PIXELS = 178_956_970
"""Pixels that an image may have, as PIL has it: a small file can declare more than the memory holds."""
STEPS_OF_16_BITS = 257
"""65535 / 255."""


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
    interpolation: str = "bilinear"
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
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of what is allowed
            opened = Image.open(path)
        with opened as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise UserError(
                    f"{str(path)!r} declares {image.width}×{image.height} pixels; {LARGEST_PIXELS:,} are allowed"
                )
            if image.mode in ("I", "F"):
                raise UserError(f"{str(path)!r} has 32 bits per pixel (mode {image.mode}); save it with 8 or 16")
            turned = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):
                grey = (np.asarray(turned) // STEPS_OF_16_BITS).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            return np.asarray(turned.convert("RGB"))
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"{str(path)!r} declares more than the {LARGEST_PIXELS:,} pixels that are allowed") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"{str(path)!r} is no image, or of an unknown format") from None
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except DAMAGED as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{str(path)!r} is damaged ({reason})") from None


def preprocess(pixels: UInt8[np.ndarray, "h w c"], how: Preprocessing) -> Float[np.ndarray, "H W c"]:
    """The input of a network for one image.

    Raises:
      UserError: an image so long and thin that it would not fit in memory.
    """
    from PIL import Image

    methods = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    height, width = resized(pixels.shape[:2], how.resize)
    if height * width > LARGEST_PIXELS:
        before = "{}×{}".format(*pixels.shape[:2])
        raise UserError(f"an image of {before} pixels would become {height}×{width}; {LARGEST_PIXELS:,} are allowed")
    if (height, width) != pixels.shape[:2]:
        image = Image.fromarray(pixels).resize((width, height), methods[how.interpolation])
        pixels = np.asarray(image)
    if how.crop is not None:
        pixels = central(pixels, how.crop)
    values = pixels.astype(np.float32) / np.float32(255)
    return (values - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)


def resized(space: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) after resizing; the longer side is rounded down, as torchvision does.

    Example:
      >>> resized((300, 201), 100)
      (149, 100)
    """
    if not isinstance(resize, int):
        return resize
    height, width = space
    if height <= width:
        return resize, int(resize * width / height)
    return int(resize * height / width), resize


def central(pixels: UInt8[np.ndarray, "h w c"], crop: tuple[int, int]) -> UInt8[np.ndarray, "H W c"]:
    """The middle of an image; where it is smaller, there is black around it.

    Odd margins are divided as torchvision divides them: padding has the larger part behind, and a cut's start is
    rounded to the nearest even number.
    """
    missing = [max(wanted - size, 0) for wanted, size in zip(crop, pixels.shape[:2], strict=True)]
    if any(missing):
        pixels = np.pad(pixels, (*((gap // 2, (gap + 1) // 2) for gap in missing), (0, 0)))
    top, left = (round((size - wanted) / 2) for wanted, size in zip(crop, pixels.shape[:2], strict=True))
    return pixels[top : top + crop[0], left : left + crop[1]]
