"""Images become what torchvision makes of them, to the last bit of the integers."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from cnn_jax.errors import UserError
from cnn_jax.weights import preprocess as module
from cnn_jax.weights.preprocess import Preprocessing, preprocess, read_image

# image{i}, and what torchvision 0.28's ImageClassification preset makes of it (as integers, before normalisation).
REFERENCE = pathlib.Path(__file__).parent.parent / "reference" / "preprocess.npz"
CASES = [
    (29, 24, "bilinear"),
    (29, 24, "bicubic"),
    (29, 23, "bicubic"),
    (20, 20, "bilinear"),
    (25, 32, "bilinear"),
    (12, 12, "bicubic"),
]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_an_image_becomes_what_torchvision_makes_of_it(index):
    resize, crop, interpolation = CASES[index]
    with np.load(REFERENCE) as file:
        image, expected, normalised = file[f"image{index}"], file[f"expected{index}"], file["normalised0"]
    how = Preprocessing(resize=resize, crop=(crop, crop), interpolation=interpolation)
    values = preprocess(image, how)
    assert values.dtype == np.float32
    pixels = (values * np.float32(how.std) + np.float32(how.mean)) * 255
    np.testing.assert_allclose(pixels, expected, atol=1e-3)
    if index == 0:
        np.testing.assert_allclose(values[:4, :4], normalised, rtol=1e-6, atol=1e-6)


def test_without_a_crop_and_with_two_sizes():
    image = np.zeros((30, 60, 3), np.uint8)
    assert preprocess(image, Preprocessing(resize=15, crop=None)).shape == (15, 30, 3)
    assert preprocess(image, Preprocessing(resize=(12, 17), crop=(12, 12))).shape == (12, 12, 3)


def test_long_thin_images_are_resized_or_refused():
    assert preprocess(np.zeros((1, 100, 3), np.uint8), Preprocessing(resize=8, crop=(8, 8))).shape == (8, 8, 3)
    with pytest.raises(UserError, match="an image of 1×300000 pixels would become 256×76800000"):
        preprocess(np.zeros((1, 300_000, 3), np.uint8), Preprocessing())


def encoded(image, format, **arguments):
    file = io.BytesIO()
    image.save(file, format, **arguments)
    return file.getvalue()


def test_images_are_turned_as_their_exif_orientation_says(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    path = tmp_path / "turned.png"
    path.write_bytes(encoded(Image.fromarray(pixels), "PNG", exif=exif))
    read = read_image(path)
    assert read.shape == (6, 4, 3)
    assert read[0, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 5), 125 * 257 + 256, np.uint16))
    else:
        image = Image.new("RGB", (5, 4), (10, 200, 30)).convert(mode, dither=Image.Dither.NONE)
    assert image.mode == mode
    path = tmp_path / "image"
    path.write_bytes(encoded(image, "TIFF"))
    read = read_image(path)
    assert (read.shape, read.dtype) == ((4, 5, 3), np.uint8)
    # The brightness of the colour is 124; a palette has its nearest colour, and of black and white it is black.
    grey = {"L": 124, "LA": 124, "I;16": 125, "1": 0}
    colour = (0, 204, 51) if mode == "P" else (10, 200, 30)
    expected = (grey[mode],) * 3 if mode in grey else colour
    assert np.unique(read.reshape(-1, 3), axis=0).tolist() == [list(expected)]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_images_of_32_bits_are_refused(mode, tmp_path):
    path = tmp_path / "image.tiff"
    path.write_bytes(encoded(Image.new(mode, (5, 4)), "TIFF"))
    with pytest.raises(UserError, match=rf"has 32 bits per pixel \(mode {mode}\); save it with 8 or 16"):
        read_image(path)


def test_images_may_be_as_large_as_pil_allows(tmp_path, monkeypatch, recwarn):
    assert module.LARGEST_PIXELS == Image.MAX_IMAGE_PIXELS
    path = tmp_path / "image.png"
    path.write_bytes(encoded(Image.new("RGB", (20, 10)), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(path).shape == (10, 20, 3)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(UserError, match="declares more than the 89,478,485 pixels that are allowed"):
        read_image(path)


def test_files_that_are_no_whole_image_are_named(tmp_path, monkeypatch):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")
    for content, message in (
        (b"", "is no image"),
        (b"text", "is no image"),
        (whole[:500], "cannot be read|is damaged"),
    ):
        path = tmp_path / "image.jpg"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            read_image(path)
        assert str(caught.value).startswith(repr(str(path)))
    with pytest.raises(UserError, match=r"missing\.jpg' cannot be read: No such file"):
        read_image(tmp_path / "missing.jpg")
    monkeypatch.setattr(module, "LARGEST_PIXELS", 64 * 64 - 1)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="declares 64×64 pixels; 4,095 are allowed"):
        read_image(path)
