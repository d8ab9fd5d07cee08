"""Contents of image files to pixels and back to another size, by Pillow: damaged and hostile files get one line."""

import io
import pathlib
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8

from cnn_jax.errors import CorruptImageError, UserError
from cnn_jax.ops.jpeg import decode_plain_jpeg, has_too_many_scans
from cnn_jax.ops.pixels import MODES, Channels, to_pixels

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageFile import ImageFile

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is decoded: pixels only. Pillow would hand others, such as EPS, to programs that run what is in them."""
EXTENSIONS = {
    **{".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP"},
    **{".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM", ".jp2": "JPEG2000", ".avif": "AVIF"},
}
"""What the extensions of file names say."""
DAMAGED = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, struct.error, zlib.error),
)
"""What Pillow's decoders raise for damaged files, besides OSError."""
LARGEST_PIXELS = 89_478_485
"""Pixels that an image may have, those that PIL warns of: 34 bytes of WebP can declare more than the memory holds."""
PLAIN, MOST_COMMENTS = (b"P1", b"P2", b"P3"), 100
"""Files that write their pixels as text, from which Pillow takes 30,000 comments a second."""
STEPS_OF_16_BITS = 257
"""65535 / 255."""
ORIENTED_BY = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
"""Where Pillow finds the orientation of an image, besides a TIFF file's tags."""


def decode_image(
    content: bytes,
    *,
    name: str,
    channels: Channels | None = 3,
    draft: int | None = None,
    largest: int = LARGEST_PIXELS,
) -> UInt8[np.ndarray, "H W C"]:
    """The pixels of an image file as `open_image` opens it; arguments and errors are its own.

    Returns:
      `[H, W, C]`, which may be read-only.
    """
    plain = decode_plain_jpeg(content, channels=channels, largest=largest) if draft is None else None
    if plain is not None:
        return plain
    return to_pixels(open_image(content, name=name, channels=channels, draft=draft, largest=largest))


def open_image(
    content: bytes,
    *,
    name: str,
    channels: Channels | None = 3,
    draft: int | None = None,
    largest: int = LARGEST_PIXELS,
) -> "PILImage":
    """An image file, decoded and turned as its EXIF orientation says; of several frames the first.

    Colours become grey by the luma of ITU-R 601-2, grey becomes equal colours, palettes and CMYK become colours as
    Pillow converts them. Transparency is dropped, not blended, or kept with 4 channels (255 where there was none).
    16-bit grey is divided by 257 and rounded down: 65535 becomes 255. The format is that of the content, whatever the
    file's name says.

    Args:
      content: of the file; its format is one of FORMATS.
      name: of the file, for errors.
      channels: C: 1 is grey, 3 RGB, 4 RGBA; None is what the file has (1, 3 or 4).
      draft: a JPEG file may be decoded at 1/2, 1/4 or 1/8 of its size, so long as its shortest side keeps this many
        pixels, which takes less than half of the time. The pixels are about means of blocks of the full image, so
        resizing after it gives nearly, not exactly, what it gives of the full image. None: full size.
      largest: pixels that a file may declare.

    Returns:
      Pillow's image, of mode L, RGB or RGBA.

    Raises:
      CorruptImageError: no image, an unknown format, damaged or cut short, too many pixels, 32 bits a pixel, or 16
        bits in more than one channel.
    """
    from PIL import Image, ImageOps

    shown = repr(name)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of what is large, or odd but readable
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > largest:
                raise CorruptImageError(
                    f"{shown} declares {image.width}×{image.height} pixels; {largest:,} are allowed, make it smaller"
                )
            if image.format in ("JPEG", "MPO") and has_too_many_scans(content, image.width * image.height):
                raise CorruptImageError(f"{shown} has more scans than a JPEG file of its size needs; save it again")
            if image.format == "PPM" and content[:2] in PLAIN and content.count(b"#") > MOST_COMMENTS:
                raise CorruptImageError(f"{shown} has more than {MOST_COMMENTS} comments; save it again")
            if image.mode in ("I", "F"):
                raise CorruptImageError(f"{shown} has 32 bits per pixel (mode {image.mode}); save it with 8 or 16")
            if _is_cut_to_8_bits(image):
                raise CorruptImageError(f"{shown} has 16 bits per channel (mode {image.mode}); save it with 8")
            if draft is not None:
                image.draft(None, (draft, draft))
            image.load()
            if image.format == "TIFF" or not ORIENTED_BY.isdisjoint(image.info):  # to look for it takes 30 µs
                ImageOps.exif_transpose(image, in_place=True)
            return _converted(image, channels)
    except CorruptImageError:
        raise
    except Image.DecompressionBombError:
        raise CorruptImageError(
            f"{shown} declares more than the {largest:,} pixels that are allowed; make it smaller"
        ) from None
    except Image.UnidentifiedImageError:
        raise CorruptImageError(f"{shown} is no image, or of an unknown format") from None
    except OSError as error:
        raise CorruptImageError(f"{shown} cannot be read: {_first_line(error.strerror or error)}") from None
    except DAMAGED as error:
        reason = _first_line(f"{type(error).__name__}: {error}")
        raise CorruptImageError(f"{shown} is damaged ({reason})") from None


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0]


def _is_cut_to_8_bits(image: "ImageFile") -> bool:
    """Whether the decoder will drop the low bytes of 16-bit channels, as Pillow does without a word."""
    if image.mode.startswith("I;16"):
        return False
    for tile in image.tile:
        arguments = tile[3] if isinstance(tile[3], Sequence) and not isinstance(tile[3], str) else (tile[3],)
        if any(isinstance(argument, str) and ";16" in argument for argument in arguments):
            return True
    return False


def _converted(image: "PILImage", channels: Channels | None) -> "PILImage":
    """A decoded image with as many channels as are asked for."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        grey = Image.fromarray((np.asarray(image) // STEPS_OF_16_BITS).astype(np.uint8))
        return grey.convert(MODES[channels or 1])
    if channels is None:
        channels = 1 if image.mode in ("1", "L") else 4 if image.has_transparency_data else 3
    if image.mode == MODES[channels]:
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # to anything else at once drops the transparency with a warning
    elif image.mode == "LAB":
        image = image.convert("RGB")  # the only way that Pillow knows to grey
    return image.convert(MODES[channels])


def content_format(content: bytes) -> str | None:
    """The format that an image file has by its content, such as "JPEG"; None where it is none of FORMATS."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            found = Image.open(io.BytesIO(content), formats=FORMATS).format
    except (OSError, Image.DecompressionBombError, *DAMAGED):
        return None
    return "JPEG" if found == "MPO" else found  # cameras put several pictures into one JPEG file


def misnamed_format(content: bytes, *, name: str) -> str | None:
    """The format of an image file's content where its name says another; None where they agree or it is no image.

    Args:
      content: of the file.
      name: its path or name; one without a known extension says nothing.
    """
    said, found = EXTENSIONS.get(pathlib.PurePath(name).suffix.lower()), content_format(content)
    return found if said is not None and found != said else None


def resize_image(
    pixels: UInt8[np.ndarray, "h w C"], size: tuple[int, int], *, interpolation: Interpolation
) -> UInt8[np.ndarray, "H W C"]:
    """Resize as Pillow does: bilinear, bicubic and Lanczos filters are widened where the image shrinks (antialiasing).

    With four channels the last one is transparency, by which the colours are weighted.

    Args:
      pixels: uint8, any number of channels.
      size: (height, width) in pixels; the image's own size returns it as it is.
      interpolation: the filter.

    Raises:
      UserError: more pixels than LARGEST_PIXELS, such as of an image that is long and thin.
    """
    from PIL import Image

    height, width = size
    check_pixels(height, width, before=(pixels.shape[0], pixels.shape[1]))
    if size == pixels.shape[:2]:
        return pixels
    method = Image.Resampling[interpolation.upper()]

    def resize(part: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        return np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize((width, height), method))

    if pixels.shape[-1] in (3, 4):
        return resize(pixels)
    return np.stack([resize(pixels[..., channel]) for channel in range(pixels.shape[-1])], axis=-1)


def check_pixels(height: int, width: int, *, before: tuple[int, int]) -> None:
    """Refuse to make an image of more pixels than LARGEST_PIXELS.

    Raises:
      UserError: names the size before, and after.
    """
    if height * width > LARGEST_PIXELS:
        shown = "{}×{}".format(*before)
        raise UserError(f"an image of {shown} pixels would become {height}×{width}; {LARGEST_PIXELS:,} are allowed")


def resized_size(size: tuple[int, int], wanted: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) after resizing; the longer side is rounded down, as torchvision does.

    Args:
      size: (height, width) before.
      wanted: pixels of the shortest side, or (height, width).

    Example:
      >>> resized_size((300, 201), 100)
      (149, 100)
    """
    if not isinstance(wanted, int):
        return wanted
    height, width = size
    if height <= width:
        return wanted, int(wanted * width / height)
    return int(wanted * height / width), wanted


def central_part(pixels: UInt8[np.ndarray, "h w C"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W C"]:
    """The middle of an image, see `middle`; where it is smaller, there is black around it."""
    starts = [middle(have, wanted) for have, wanted in zip(pixels.shape[:2], size, strict=True)]
    ends = [start + wanted - have for start, wanted, have in zip(starts, size, pixels.shape[:2], strict=True)]
    if min(starts) < 0 or max(ends) > 0:
        pixels = np.pad(pixels, (*((max(-s, 0), max(e, 0)) for s, e in zip(starts, ends, strict=True)), (0, 0)))
    top, left = (max(start, 0) for start in starts)
    return pixels[top : top + size[0], left : left + size[1]]


def middle(have: int, wanted: int) -> int:
    """Where so many pixels in the middle of others begin; below 0 where these are fewer.

    Odd margins are divided as torchvision's CenterCrop divides them: padding has the larger part behind, and a cut's
    start is rounded to the nearest even number.
    """
    return round((have - wanted) / 2) if have >= wanted else -((wanted - have) // 2)
