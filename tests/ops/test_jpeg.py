"""Plain JPEG files give Pillow's pixels to the bit, and every other file is left to Pillow."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from cnn_jax.errors import CorruptImageError
from cnn_jax.ops.image_files import LARGEST_PIXELS, decode_image
from cnn_jax.ops.jpeg import decode_plain_jpeg


@pytest.fixture(scope="module")
def photograph():
    return Image.fromarray(load_sample_image("china.jpg"))


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def plain(content, *, channels=None, largest=LARGEST_PIXELS):
    return decode_plain_jpeg(content, channels=channels, largest=largest)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 9), (333, 251), (640, 427)])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 5},
        {"quality": 100, "subsampling": "4:4:4"},
        {"quality": 90, "subsampling": "4:2:2"},
        {"quality": 75, "subsampling": "4:2:0"},
        {"quality": 75, "progressive": True},
        {"quality": 75, "optimize": True, "dpi": (300, 300), "comment": "a comment", "icc_profile": b"no profile"},
    ],
)
def test_plain_files_have_pillows_pixels(photograph, size, options):
    for image, channels in ((photograph, 3), (photograph.convert("L"), 1)):
        grey = {name: value for name, value in options.items() if name != "subsampling"}
        content = encoded(image.resize(size), **(options if channels == 3 else grey))
        expected = np.asarray(Image.open(io.BytesIO(content))).reshape(size[1], size[0], channels)  # grey has no axis
        for wanted in (None, channels):
            found = plain(content, channels=wanted)
            assert found is not None
            np.testing.assert_array_equal(found, expected)
        assert plain(content, channels={3: 1, 1: 3}[channels]) is None
        np.testing.assert_array_equal(decode_image(content, name="x", channels=None), expected)


def test_a_file_that_says_how_it_is_held_is_turned(photograph):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photograph.resize((30, 20)), exif=exif)
    assert plain(content) is None
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert turned.size == (20, 30)
    np.testing.assert_array_equal(decode_image(content, name="x"), np.asarray(turned))


def test_what_is_no_plain_file_is_left_to_pillow(photograph):
    small = photograph.resize((40, 30))
    for content in (
        encoded(small, "PNG"),
        encoded(small.convert("CMYK")),
        encoded(small, keep_rgb=True),
        b"",
        b"\xff\xd8\xff",
    ):
        assert plain(content) is None
    content = encoded(small)
    assert plain(content, largest=1199) is None
    assert plain(content, largest=1200) is not None
    for content in (encoded(small.convert("CMYK")), encoded(small, keep_rgb=True)):
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(decode_image(content, name="x"), expected)


@pytest.mark.parametrize("sampling", [(h << 4) | v for h in (1, 2, 3, 4) for v in (1, 2, 4)])
def test_any_sampling_of_colours_is_decoded_as_pillow_does(photograph, sampling):
    content = bytearray(encoded(photograph.resize((64, 48)), subsampling="4:2:0"))
    frame = content.index(b"\xff\xc0")
    assert content[frame + 11] == 0x22  # of the first component: twice as many across and down
    content[frame + 11] = sampling
    try:
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except OSError:
        with pytest.raises(CorruptImageError, match="'x'"):
            decode_image(bytes(content), name="x")
    else:
        np.testing.assert_array_equal(decode_image(bytes(content), name="x"), expected)


def test_too_little_memory_is_named(photograph, monkeypatch):
    def fail(*_):
        raise MemoryError

    content = encoded(photograph.resize((64, 48)))
    monkeypatch.setattr("simplejpeg.decode_jpeg", fail)
    assert plain(content) is None
    assert decode_image(content, name="x").shape == (48, 64, 3)  # Pillow had enough


def test_a_damaged_file_is_never_decoded_by_half(photograph):
    content = encoded(photograph.resize((160, 120)), quality=90)
    generator = np.random.default_rng(0)
    for cut in (*generator.integers(4, len(content) - 3, 40).tolist(), len(content) - 2):
        assert plain(content[:cut]) is None
    with pytest.raises(CorruptImageError, match=r"'half\.jpg' cannot be read: image file is truncated"):
        decode_image(content[: len(content) // 2], name="half.jpg")
    # One byte changed: whatever is accepted is what Pillow makes of it.
    for place in generator.integers(2, len(content), 300).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << int(generator.integers(8))
        found = plain(bytes(changed))
        if found is not None and found.shape[-1] == 3:
            np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(changed)).convert("RGB")))
