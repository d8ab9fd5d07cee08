"""Transforms on the host: Pillow's pixels, torchvision's geometry, and randomness from the generator alone."""

import inspect
import math

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.host_transforms import HOST_TRANSFORMS, RANDOM, transform_image
from cnn_jax.errors import UserError
from cnn_jax.ops.pixels import from_pixels
from cnn_jax.train.config_node import check_node


def resize(image, **options):
    return transform_image(image, [{"name": "resize", **options}], generator=None)


def center_crop(image, **options):
    return transform_image(image, [{"name": "center_crop", **options}], generator=None)


def random_crop(generator, image, **options):
    return transform_image(image, [{"name": "random_crop", **options}], generator=generator)


def random_resized_crop(generator, image, **options):
    return transform_image(image, [{"name": "random_resized_crop", **options}], generator=generator)


def random_flip(generator, image, **options):
    return transform_image(image, [{"name": "random_flip", **options}], generator=generator)


@pytest.fixture(scope="module")
def flower():
    from sklearn.datasets import load_sample_image

    return np.asarray(Image.fromarray(load_sample_image("flower.jpg")).resize((120, 80)))


def numbers(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def coordinates(height, width):
    """An image whose pixels say where they are."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 255)], axis=-1).astype(np.uint8)


KEEP_SIZE = ("random_flip", "grey", "permute_pixels")


@pytest.mark.parametrize("name", HOST_TRANSFORMS)
def test_every_transform_keeps_types_and_gives_its_size(name, flower):
    given = ("image", "generator")
    sized = name not in KEEP_SIZE
    node = check_node("here", {"name": name, **({"size": 32} if sized else {})}, HOST_TRANSFORMS, given=given)
    out = transform_image(flower, [node], generator=numbers() if name in RANDOM else None)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    shapes = {**dict.fromkeys(KEEP_SIZE, (80, 120, 3)), "resize": (32, 48, 3)}
    assert out.shape == shapes.get(name, (32, 32, 3))
    grey = transform_image(flower[..., :1], [node], generator=numbers() if name in RANDOM else None)
    assert grey.shape == (*out.shape[:2], 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "expected"), [(40, (40, 60)), (33, (33, 49)), ((50, 20), (50, 20)), (160, (160, 240))]
)
def test_resize(flower, size, expected, interpolation):
    out = resize(flower, size=size, interpolation=interpolation)
    method = Image.Resampling[interpolation.upper()]
    np.testing.assert_array_equal(out, np.asarray(Image.fromarray(flower).resize(expected[::-1], method)))


@pytest.mark.parametrize("size", [(3, 3), (4, 7), (5, 6), (8, 9), (11, 5), (12, 12)])
def test_center_crop_as_torchvision(size):
    """Against torchvision's center_crop, written anew: pad, then cut at round((have - want) / 2)."""
    image = coordinates(8, 9)
    padded = image
    height, width = size
    if width > 9 or height > 8:
        left, top = (width - 9) // 2 if width > 9 else 0, (height - 8) // 2 if height > 8 else 0
        right = (width - 9 + 1) // 2 if width > 9 else 0
        bottom = (height - 8 + 1) // 2 if height > 8 else 0
        padded = np.pad(image, ((top, bottom), (left, right), (0, 0)))
    top, left = round((padded.shape[0] - height) / 2.0), round((padded.shape[1] - width) / 2.0)
    expected = padded[top : top + height, left : left + width]
    np.testing.assert_array_equal(center_crop(image, size=size), expected)


def test_random_crop_takes_every_place_alike():
    image, generator = coordinates(7, 6), numbers()
    places = {}
    for _ in range(1200):
        out = random_crop(generator, image, size=(4, 4))
        top, left = (int(value) for value in out[0, 0, :2])
        np.testing.assert_array_equal(out, image[top : top + 4, left : left + 4])
        places[top, left] = places.get((top, left), 0) + 1
    assert len(places) == 4 * 3
    assert min(places.values()) > 60  # of 100 expected


def test_random_crop_pads():
    image, generator = coordinates(4, 4), numbers()
    for _ in range(50):
        out = random_crop(generator, image, size=4, padding=2)
        inside = out[..., 2] == 255
        assert 4 <= inside.sum() <= 16
        assert not out[~inside].any()
    small = random_crop(generator, image, size=(4, 9))  # 2 columns of black before, 3 behind
    np.testing.assert_array_equal(small, np.pad(image, ((0, 0), (2, 3), (0, 0))))


def test_grey_is_the_luma_in_every_channel(flower):
    out = transform_image(flower, [{"name": "grey"}], generator=None)
    # ITU-R 601-2, as Pillow rounds it
    luma = np.asarray(Image.fromarray(flower).convert("L"))
    np.testing.assert_allclose(luma, flower @ [0.299, 0.587, 0.114], atol=1)
    for channel in range(3):
        np.testing.assert_array_equal(out[..., channel], luma)
    one = flower[..., :1]
    np.testing.assert_array_equal(transform_image(one, [{"name": "grey"}], generator=None), one)
    alpha = np.concatenate([flower, one], axis=-1)
    with_alpha = transform_image(alpha, [{"name": "grey"}], generator=None)
    np.testing.assert_array_equal(with_alpha, np.concatenate([out, one], axis=-1))


def test_permuted_pixels_are_the_same_pixels_in_one_order():
    def permute(image, seed=0):
        return transform_image(image, [{"name": "permute_pixels", "seed": seed}], generator=None)

    image = coordinates(7, 6)
    out = permute(image)
    # Pixels move whole, each to one place.
    assert sorted(map(tuple, out.reshape(-1, 3).tolist())) == sorted(map(tuple, image.reshape(-1, 3).tolist()))
    rows, columns = out[..., 0].astype(int), out[..., 1].astype(int)
    other = np.random.default_rng(0).integers(0, 256, (7, 6, 1), np.uint8)
    np.testing.assert_array_equal(permute(other), other[rows, columns])
    assert not np.array_equal(permute(image, seed=1), out)
    # What was near is not: half of the 42 pixels would still be beside their right neighbour if it were.
    assert ((rows[:, :-1] == rows[:, 1:]) & (columns[:, 1:] - columns[:, :-1] == 1)).sum() < 10


def torchvision_windows(count, height, width, scale, ratio, seed):
    """RandomResizedCrop.get_params of torchvision 0.20 with other random numbers."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        for _ in range(10):
            target = height * width * random.uniform(*scale)
            aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
            w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
            if 0 < w <= width and 0 < h <= height:
                yield random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w
                break
        else:
            in_ratio = width / height
            w, h = width, height
            if in_ratio < min(ratio):
                h = round(w / min(ratio))
            elif in_ratio > max(ratio):
                w = round(h * max(ratio))
            yield (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width"), [(60, 60), (30, 150)])
def test_random_resized_crop_samples_as_torchvision(height, width, monkeypatch):
    from cnn_jax.data import host_transforms as module

    windows = []

    def watch(image, size, interpolation):
        windows.append((*image[0, 0, :2].tolist(), *image.shape[:2]))
        return image

    monkeypatch.setattr(module, "_resized", watch)
    generator, image = numbers(1), coordinates(height, width)
    for _ in range(3000):
        random_resized_crop(generator, image, size=8)
    ours = np.array(windows, float)
    theirs = np.array(list(torchvision_windows(3000, height, width, (0.08, 1.0), (3 / 4, 4 / 3), 2)), float)
    for column in range(4):
        for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
            pair = [np.quantile(values[:, column], quantile) for values in (ours, theirs)]
            assert abs(pair[0] - pair[1]) <= 0.04 * max(height, width), (column, quantile, pair)
    shapes = ours[:, 3] / ours[:, 2]
    assert 0.7 < shapes.min() < 0.8
    assert 1.25 < shapes.max() < 1.45


def test_random_resized_crop_of_an_image_that_no_window_fits():
    image = coordinates(2, 100)
    out = random_resized_crop(numbers(), image, size=(2, 3), scale=(1.0, 1.0), ratio=(0.75, 1.5))
    np.testing.assert_array_equal(out, image[:, 48:51])  # 2×3 in the middle
    assert random_resized_crop(numbers(), np.full((1, 1, 3), 9, np.uint8), size=4).tolist() == [[[9] * 3] * 4] * 4
    with pytest.raises(UserError, match=r"scale \(0.5, 0.1\) ends before it begins"):
        random_resized_crop(numbers(), image, scale=(0.5, 0.1))


def test_random_flip_mirrors_as_often_as_asked(flower):
    generator = numbers()
    outs = [random_flip(generator, flower, probability=0.25) for _ in range(400)]
    mirrored = sum(np.array_equal(out, flower[:, ::-1]) for out in outs)
    assert mirrored + sum(np.array_equal(out, flower) for out in outs) == 400
    assert 70 <= mirrored <= 130


def test_the_same_generator_gives_the_same_image(flower):
    nodes = [{"name": "random_resized_crop", "size": 24}, {"name": "random_flip"}, {"name": "random_crop", "size": 20}]
    one, two, other = (transform_image(flower, nodes, generator=numbers(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_a_random_transform_without_a_generator_is_an_error(flower):
    for name in RANDOM:
        with pytest.raises(UserError, match=f"host transform '{name}' is random"):
            transform_image(flower, [{"name": name}], generator=None)
    assert set(RANDOM) == {name for name in HOST_TRANSFORMS if name.startswith("random")}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "resize", "size": 0}, "size"),
        ({"name": "resize", "size": 8, "interpolation": "cubic"}, "interpolation"),
        ({"name": "random_resized_crop", "scale": (0.0, 1.0)}, "scale"),
        ({"name": "random_crop", "size": (8,)}, "size"),
        ({"name": "random_flip", "probability": 1.5}, "probability"),
    ],
)
def test_options_out_of_range_are_refused_by_name(node, message):
    with pytest.raises(UserError, match=rf"config\.t\.{message}"):
        check_node("config.t", node, HOST_TRANSFORMS, given=("image", "generator"))


def test_an_image_too_thin_to_resize_is_refused():
    with pytest.raises(UserError, match="would become 256×"):
        resize(np.zeros((1, 1_000_000, 3), np.uint8), size=256)


@pytest.mark.parametrize("name", sorted(HOST_TRANSFORMS))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_and_pillows_image_become_the_same(flower, name, channels):
    alpha = np.tile(np.arange(flower.shape[1], dtype=np.uint8)[:, None], (len(flower), 1, 1))
    pixels = np.concatenate([flower, alpha], axis=-1)[..., :channels]
    large, small = {"size": (300, 150)}, {"size": (31, 20)}  # with black around, and a part
    for options in (large, small) if "size" in inspect.signature(HOST_TRANSFORMS[name]).parameters else ({},):
        for seed in range(4):
            one, other = (
                transform_image(image, [{"name": name, **options}], generator=numbers(seed))
                for image in (pixels, from_pixels(pixels))
            )
            np.testing.assert_array_equal(one, other)
            assert one.flags.c_contiguous
