"""JPEG files without peculiarities, which most are, decoded to an array at once; all others are left to Pillow.

simplejpeg gives the pixels that Pillow gives, to the bit: both decode with libjpeg-turbo's accurate transform and
smooth upsampling. It writes them in the order of the array, where Pillow has four bytes a pixel and copies them, and
runs in one call without Python's lock, so that threads decode side by side.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

START = b"\xff\xd8\xff"
TURNED_BY = (b"Exif\0", b"ns.adobe.com/xap")
"""What files have that may say that the image is to be turned."""
START_OF_SCAN, END_OF_IMAGE, STUFFED, RESTARTS = 0xDA, 0xD9, 0x00, range(0xD0, 0xD9)
"""Second bytes of markers; STUFFED follows a 255 that is none, and RESTARTS, like the start of a file, stand alone."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
"""Starts of frames, and those whose scans refine each other."""
FEW_SCANS, MOST_SCANNED = 16, 2**31
"""Scans that any file may have, and pixels in all scans of one that has more.

A progressive file has about ten. Each goes over the whole image, and some bytes are enough for one: 500 kB of a file of
88 million pixels take two minutes.
"""
SPACES = {"Gray": (1, "GRAY"), "YCbCr": (3, "RGB")}
"""Colours of a file to the channels of its pixels, and what these are called."""


def decode_plain_jpeg(content: bytes, *, channels: int | None, largest: int) -> UInt8[np.ndarray, "H W C"] | None:
    """The pixels of a JPEG file; None where it is another file, may be turned, has damaged pixels or is too large.

    Of what else stands in a file nothing is read: Pillow refuses some whose description of colours is cut short.

    Args:
      content: of the file.
      channels: C that is wanted: 1 is grey, 3 RGB; None is what the file has. Conversions are not done here.
      largest: pixels that a file may declare.
    """
    if not content.startswith(START) or any(mark in content for mark in TURNED_BY):
        return None
    import simplejpeg

    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
        has, name = SPACES.get(space, (0, ""))
        pixels = int(height) * int(width)
        if not has or channels not in (None, has) or pixels > largest or has_too_many_scans(content, pixels):
            return None
        return simplejpeg.decode_jpeg(content, name)
    except (KeyError, MemoryError, ValueError):
        # KeyError: a sampling of colours that has no name. ValueError: also where libjpeg would only warn. What is
        # shown of a damaged file, and how the error is told, is Pillow's to decide.
        return None


def has_too_many_scans(content: bytes, pixels: int) -> bool:
    """Whether a JPEG file goes over its image more often than any that is meant to be seen.

    Args:
      content: of the file.
      pixels: that it declares.
    """
    components, scans = 0, 0
    for marker, at in _markers(content):
        if marker in FRAMES and at + 9 < len(content):
            components = 0 if marker in PROGRESSIVE else content[at + 9]
        if marker != START_OF_SCAN:
            continue
        if scans == 0:
            # One scan of all components is the only one that is read. The count is quick, and too large at worst.
            single = components > 0 and content[at + 4 : at + 5] == bytes([components])
            if single or content.count(bytes([255, START_OF_SCAN])) <= FEW_SCANS:
                return False
        scans += 1
    return scans > FEW_SCANS and scans * pixels > MOST_SCANNED


def _markers(content: bytes) -> Iterator[tuple[int, int]]:
    """(second byte, place) of the markers of a JPEG file, up to the end of its image."""
    at = 2
    while (at := content.find(b"\xff", at)) >= 0 and at + 3 < len(content):
        marker = content[at + 1]
        if marker == END_OF_IMAGE:
            return
        if marker == 255:  # fills up
            at += 1
        elif marker == STUFFED or marker in RESTARTS:
            at += 2
        else:
            yield marker, at
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
