"""Image files become the pixels that Pillow's own conversions give; damaged and hostile ones become one line."""

import io
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from cnn_jax.errors import CorruptImageError, UserError
from cnn_jax.ops.image_files import EXTENSIONS, FORMATS, content_format, decode_image, misnamed_format, resize_image
from cnn_jax.ops.pixels import to_channels


@pytest.fixture(scope="module")
def china():
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize((96, 64))


def encoded(image, kind, **arguments):
    file = io.BytesIO()
    image.save(file, kind, **arguments)
    return file.getvalue()


# Where the mode can be stored as it is.
MODES = {"L": "PNG", "LA": "PNG", "P": "PNG", "RGBA": "PNG", "CMYK": "TIFF", "1": "PNG", "RGB": "WEBP", "YCbCr": "JPEG"}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", MODES)
def test_modes_are_converted_as_pillow_does(china, mode, channels):
    content = encoded(china.convert(mode), MODES[mode], **({"lossless": True} if mode == "RGB" else {}))
    stored = Image.open(io.BytesIO(content))
    assert stored.mode == mode.replace("YCbCr", "RGB")
    pixels = decode_image(content, name="x", channels=channels)
    assert (pixels.shape, pixels.dtype) == ((64, 96, channels), np.uint8)
    expected = np.asarray(stored.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    np.testing.assert_array_equal(pixels.squeeze(), expected)


def test_a_palette_with_transparency_keeps_its_colours():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    content = encoded(image, "PNG", transparency=bytes([0, 128, 255]))
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert decode_image(content, name="x")[0].tolist() == colours
    assert decode_image(content, name="x", channels=4)[0].tolist() == [
        [*colour, alpha] for colour, alpha in zip(colours, [0, 128, 255])
    ]
    assert decode_image(content, name="x", channels=None).shape[-1] == 4


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("RGB", 3), ("RGBA", 4), ("CMYK", 3)])
def test_none_keeps_the_channels_of_the_file(china, mode, channels):
    assert decode_image(encoded(china.convert(mode), "TIFF"), name="x", channels=None).shape[-1] == channels


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257(kind):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decode_image(encoded(Image.fromarray(values), kind), name="x", channels=1)
    np.testing.assert_array_equal(pixels[..., 0], values // 257)
    assert pixels.min() == 0
    assert pixels.max() == 255


def png(width, height, *, depth=8, colour=2, data=b""):
    """A PNG file from its parts."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_in_several_channels_are_refused(colour, channels):
    content = png(3, 2, depth=16, colour=colour, data=(bytes(1) + bytes(3 * channels * 2)) * 2)
    with pytest.raises(CorruptImageError, match=r"'a\.png' has 16 bits per channel"):
        decode_image(content, name="a.png")
    assert decode_image(png(3, 2, data=bytes(20)), name="a.png").shape == (2, 3, 3)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_are_refused(mode):
    with pytest.raises(CorruptImageError, match=rf"'a' has 32 bits per pixel \(mode {mode}\)"):
        decode_image(encoded(Image.new(mode, (5, 4)), "TIFF"), name="a")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_exif_orientations(china, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(china, kind, exif=exif)
    pixels = decode_image(content, name="x")
    plain = np.asarray(Image.open(io.BytesIO(encoded(china, kind))).convert("RGB"))
    turns = {
        1: plain,
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: plain.transpose(1, 0, 2)[:, ::-1],
        7: plain.transpose(1, 0, 2)[::-1, ::-1],
        8: plain.transpose(1, 0, 2)[::-1],
    }
    np.testing.assert_array_equal(pixels, turns[orientation])
    np.testing.assert_array_equal(pixels, ImageOps.exif_transpose(Image.open(io.BytesIO(content))))


def attempt(content, **options):
    """Pixels and no problem, or none and the problem."""
    try:
        return decode_image(content, **options), ""
    except CorruptImageError as error:
        return None, str(error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_file_cut_anywhere_is_an_error_or_whole(china, kind, recwarn):
    content = encoded(china, kind)
    whole = decode_image(content, name="cut")
    refused = 0
    for length in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 2, len(content) - 1]:
        pixels, problem = attempt(content[:length], name="cut")
        if pixels is None:
            refused += 1
            assert problem.startswith("'cut' ")
            assert "\n" not in problem
        else:
            np.testing.assert_array_equal(pixels, whole)
    assert refused >= 55
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_bytes_raise_nothing_else(china, kind, recwarn):
    content = np.frombuffer(encoded(china.crop((0, 0, 24, 16)), kind), np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(150):
        damaged = content.copy()
        damaged[generator.integers(len(content), size=3)] = generator.integers(256, size=3)
        assert "\n" not in attempt(damaged.tobytes(), name="damaged", largest=10**6)[1]
    assert not recwarn.list


def test_a_small_file_that_declares_many_pixels_is_refused_before_it_is_decoded():
    bomb = png(60_000, 60_000, data=bytes(1000))
    with pytest.raises(CorruptImageError, match="'bomb' declares more than the 89,478,485 pixels"):
        decode_image(bomb, name="bomb")
    with pytest.raises(CorruptImageError, match="'big' declares 2000×1000 pixels; 1,000,000 are allowed"):
        decode_image(png(2000, 1000), name="big", largest=1_000_000)


def test_what_is_no_image_is_named():
    for content in (
        b"",
        b"a text that is called .jpg",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        b"\xff\xd8\xff",
    ):
        with pytest.raises(CorruptImageError, match=r"'text\.jpg' is no image, or of an unknown format"):
            decode_image(content, name="text.jpg")
        assert content_format(content) is None


def test_no_format_runs_another_program():
    assert not {"EPS", "WMF", "FPX"} & set(FORMATS)
    assert set(EXTENSIONS.values()) == set(FORMATS)


def test_the_content_says_what_a_file_is(china):
    content = encoded(china, "PNG")
    assert content_format(content) == "PNG"
    np.testing.assert_array_equal(decode_image(content, name="photo.jpg"), np.asarray(china))
    assert misnamed_format(content, name="a/photo.JPG") == "PNG"
    assert misnamed_format(content, name="a/photo.png") is None
    assert misnamed_format(content, name="a/photo") is None
    assert misnamed_format(b"text", name="photo.jpg") is None


def test_drafts_are_means_of_blocks_and_never_smaller_than_asked():
    from sklearn.datasets import load_sample_image

    content = encoded(Image.fromarray(load_sample_image("china.jpg")), "JPEG", quality=95)  # 427×640
    whole = decode_image(content, name="x").astype(np.float64)
    for draft, step in ((428, 1), (427, 1), (213, 2), (107, 2), (106, 4), (53, 8), (3, 8)):
        pixels = decode_image(content, name="x", draft=draft)
        assert pixels.shape == (-(-427 // step), -(-640 // step), 3)
        assert min(pixels.shape[:2]) >= min(draft, 427) or step == 8
        rows, columns = 427 // step, 640 // step
        blocks = whole[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)  # [H, W, C]
        assert np.abs(pixels[:rows, :columns] - blocks.mean(axis=(1, 3))).mean() < 1.5


@pytest.mark.parametrize("size", [(20, 31), (64, 40), (130, 200), (1, 1)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resizing_is_pillows(china, size, interpolation):
    method = Image.Resampling[interpolation.upper()]
    for image in (china, china.convert("L"), china.convert("RGBA")):
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        resized = resize_image(pixels, size, interpolation=interpolation)
        assert resized.shape == (*size, pixels.shape[-1])
        np.testing.assert_array_equal(resized.squeeze(), np.asarray(image.resize(size[::-1], method)).squeeze())


def test_resizing_takes_any_number_of_channels_and_views(china):
    pixels = np.asarray(china)
    five = np.concatenate([pixels, pixels[..., :2]], axis=-1)
    resized = resize_image(five[:, ::-1], (20, 30), interpolation="bilinear")
    alone = resize_image(np.ascontiguousarray(pixels[:, ::-1]), (20, 30), interpolation="bilinear")
    np.testing.assert_array_equal(resized[..., :3], alone)
    np.testing.assert_array_equal(resized[..., 3:], alone[..., :2])


def test_channels_of_pixels(china):
    pixels = np.asarray(china)
    np.testing.assert_array_equal(to_channels(pixels, 1)[..., 0], np.asarray(china.convert("L")))
    grey = to_channels(pixels, 1)
    np.testing.assert_array_equal(to_channels(grey, 3), np.repeat(grey, 3, axis=-1))
    assert (to_channels(pixels, 4)[..., 3] == 255).all()
    assert to_channels(pixels, None) is pixels
    with pytest.raises(UserError, match="images of 2 channels cannot become 3"):
        to_channels(pixels[..., :2], 3)


def test_the_errors_travel_between_processes():
    error = CorruptImageError("'x' is damaged")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_worker_processes_need_no_jax():
    code = "import sys, cnn_jax.data.folder, cnn_jax.data.parquet, cnn_jax.data.tfds_sets; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
