"""Colour, blur, noise and erasing against colorsys, Pillow and SciPy on photographs, and the bounds of draws."""

import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image

from cnn_jax.data.augment import AUGMENTATIONS, cutout, gaussian_blur, gaussian_noise, random_erasing, random_grey
from cnn_jax.data.augment.blur_and_noise import blur
from cnn_jax.data.augment.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    colour_jitter,
)
from cnn_jax.errors import UserError
from cnn_jax.train.config_node import check_node

EXAMPLES = 200


@pytest.fixture(scope="module")
def levels():
    china, flower = (load_sample_image(name) for name in ("china.jpg", "flower.jpg"))
    return np.stack([source[y : y + 24, x : x + 31] for source in (china, flower) for y, x in ((60, 20), (200, 320))])


@pytest.fixture(scope="module")
def photographs(levels):
    return np.float32(levels) / 255


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(3), EXAMPLES)


@pytest.mark.parametrize(
    ("adjust", "enhancer"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
)
def test_blends_are_pillows(levels, photographs, adjust, enhancer):
    adjust = jax.jit(adjust)
    for factor in (0.0, 0.4, 1.0, 1.7):
        ours = np.asarray(adjust(photographs, np.full(4, factor, np.float32))) * 255
        theirs = np.stack([np.asarray(enhancer(Image.fromarray(image)).enhance(factor)) for image in levels])
        # Pillow's grey is whole: half a level, times the factor's distance from one; and its result is cut to levels.
        assert np.abs(ours - theirs).max() < 1.01 + 0.51 * abs(1 - factor)
        if factor == 1:
            np.testing.assert_array_equal(ours / 255 * 255, np.float32(photographs) * 255)


def test_the_hue_is_colorsyss(photographs):
    # And what has no hue, or two largest channels.
    special = np.float32([[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0.2, 0.7, 0.7]])
    images = np.array(photographs)
    images[:, 0, :7] = special
    shifts = np.float32([0.0, 0.1, -0.27, 0.5])
    ours = np.asarray(jax.jit(adjust_hue)(images, shifts))
    for image, shift, shifted in zip(images, shifts, ours):
        expected = []
        for pixel in image.reshape(-1, 3):
            hue, saturation, value = colorsys.rgb_to_hsv(*map(float, pixel))
            expected.append(colorsys.hsv_to_rgb((hue + float(shift)) % 1, saturation, value))
        np.testing.assert_allclose(shifted.reshape(-1, 3), expected, atol=2e-6)


def test_jitter_applies_its_changes_in_every_order(photographs):
    count = 1000
    keys = jax.random.split(jax.random.key(11), count)
    strengths = {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.4}

    def jitter(image, **options):
        return np.asarray(jax.jit(functools.partial(colour_jitter, **options))(keys, _repeated(image, count)))

    # What one change alone does to simple colours tells its draw, which is the same with the other changes.
    probes = {
        "brightness": (np.full((2, 2, 3), 0.5, np.float32), lambda image: image[0, 0, 0] / 0.5),
        "contrast": (np.float32([[[0.45] * 3, [0.55] * 3]]), lambda image: (image[0, 1, 0] - image[0, 0, 0]) / 0.1),
        "saturation": (np.float32([[[0.55, 0.45, 0.45]]]), lambda image: (image[0, 0, 0] - image[0, 0, 1]) / 0.1),
        "hue": (np.float32([[[0.6, 0.3, 0.3]]]), lambda image: (colorsys.rgb_to_hsv(*image[0, 0])[0] + 0.5) % 1 - 0.5),
    }
    amounts = {}
    for name, (probe, amount) in probes.items():
        alone = jitter(probe, **{other: strength * (other == name) for other, strength in strengths.items()})
        amounts[name] = np.float32([amount(image) for image in alone])
        middle = 0 if name == "hue" else 1
        assert np.abs(amounts[name] - middle).max() <= strengths[name] + 1e-5
        assert amounts[name].min() < middle - 0.95 * strengths[name]
        assert amounts[name].max() > middle + 0.95 * strengths[name]

    # Light and dark colours, which large factors cut: only then do orders differ.
    image = np.concatenate([photographs[2, :3, :5], photographs[0, :3, :5] ** 3, 1 - photographs[1, :3, :5] ** 3])
    result = jitter(image, **strengths)
    adjust = dict(zip(strengths, map(jax.jit, (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue))))
    orders = list(itertools.permutations(strengths))
    errors = []
    for order in orders:
        expected = _repeated(image, count)
        for name in order:
            expected = adjust[name](expected, amounts[name])
        errors.append(np.abs(result - expected).max(axis=(1, 2, 3)))
    errors = np.sort(errors, axis=0), np.argsort(errors, axis=0)
    assert errors[0][0].max() < 1e-5
    decided = errors[0][1] > 1e-4
    assert set(errors[1][0][decided]) == set(range(len(orders)))


def test_jitter_of_grey_images_leaves_saturation_and_hue_out(photographs, keys):
    grey = np.broadcast_to(photographs[:1, :, :, :1], (EXAMPLES, 24, 31, 1))
    none = jax.jit(functools.partial(colour_jitter, brightness=0.0, contrast=0.0, saturation=0.9, hue=0.5))
    np.testing.assert_array_equal(none(keys, grey), grey)
    some = jax.jit(functools.partial(colour_jitter, brightness=0.4, contrast=0.4, saturation=0.9, hue=0.5))
    assert not np.array_equal(some(keys, grey), grey)


def test_colours_need_one_channel_or_three(keys):
    for name in ("colour_jitter", "random_grey"):
        with pytest.raises(UserError, match=f"{name} takes images of 1 or 3 channels, got 2"):
            AUGMENTATIONS[name](keys, jnp.zeros((EXAMPLES, 4, 4, 2)))


def test_grey_is_pillows_in_its_share_of_the_examples(levels, photographs, keys):
    images = np.repeat(photographs, EXAMPLES // 4, axis=0)
    result = np.asarray(jax.jit(functools.partial(random_grey, probability=0.3))(keys, images))
    changed = np.array([not np.array_equal(a, b) for a, b in zip(result, images)])
    assert 0.2 < changed.mean() < 0.4
    theirs = np.repeat(np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in levels]), 50, axis=0)
    assert np.abs(result[changed] * 255 - theirs[changed][..., None]).max() < 0.6


@pytest.mark.parametrize("kernel_size", [5, 13])
def test_blur_is_scipys(photographs, kernel_size):
    sigma = np.float32([0.1, 0.8, 1.5, 2.0])
    ours = np.asarray(jax.jit(functools.partial(blur, kernel_size=kernel_size))(photographs, sigma))
    for image, deviation, blurred in zip(photographs, sigma, ours):
        radius = kernel_size // 2
        expected = scipy.ndimage.gaussian_filter(
            image.astype(np.float64), (deviation, deviation, 0), mode="mirror", radius=(radius, radius, 0)
        )
        np.testing.assert_allclose(blurred, expected, atol=2e-6)


def test_blur_takes_any_rank(keys):
    for shape in ((3, 19, 2), (3, 7, 6, 8, 1)):
        images = jax.random.uniform(jax.random.key(0), shape)
        ours = np.asarray(blur(images, jnp.full(3, 1.2), kernel_size=5))
        space = len(shape) - 2
        options = {"sigma": (0, *[1.2] * space, 0), "radius": (0, *[2] * space, 0), "mode": "mirror"}
        np.testing.assert_allclose(ours, scipy.ndimage.gaussian_filter(np.float64(images), **options), atol=2e-6)


def test_noise_has_the_deviation_asked_for(keys):
    images = np.full((EXAMPLES, 24, 31, 3), 0.5, np.float32)
    noise = np.asarray(jax.jit(functools.partial(gaussian_noise, deviation=0.05))(keys, images)) - 0.5
    assert abs(noise.std() - 0.05) < 5e-4
    assert abs(noise.mean()) < 5e-4
    assert np.abs(noise[0] - noise[1]).max() > 0.05


@pytest.mark.parametrize("shape", [(40,), (17, 23), (9, 8, 7)])
def test_cutout_paints_one_box_at_every_place(keys, shape):
    images = np.ones((EXAMPLES, *shape, 2), np.float32)
    erased = np.asarray(jax.jit(functools.partial(cutout, length=6))(keys, images))[..., 0] == 0
    covers = np.zeros(shape)
    for flags in erased:
        places = np.argwhere(flags)
        start, stop = places.min(axis=0), places.max(axis=0) + 1
        sides = stop - start
        assert flags.sum() == np.prod(sides)  # a full box
        for side, first, last, length in zip(sides, start, stop, shape):
            assert side == 6 or (3 <= side < 6 and (first == 0 or last == length))  # cut by the border only
        covers += flags
    # Every pixel can be hidden, the corners too; those inside by every centre of 6 along each axis.
    assert covers.min() > 0
    middle = covers[tuple(slice(6, -6) if length > 12 else slice(3, -3) for length in shape)].mean()
    assert abs(middle / EXAMPLES / np.prod([6 / length for length in shape]) - 1) < 0.35


def test_what_is_painted(photographs, keys):
    keys = keys[:4]
    for name, options in (("cutout", {"length": 8}), ("random_erasing", {"probability": 1.0})):
        results = {
            fill: np.asarray(AUGMENTATIONS[name](keys, jnp.asarray(photographs), fill=fill, **options))
            for fill in ("zero", "mean", (0.25, 0.5, 0.75))
        }
        painted = (results["zero"] == 0).all(axis=-1)
        assert painted.any(axis=(1, 2)).all()
        for example in range(4):
            mean = photographs[example].mean(axis=(0, 1), dtype=np.float64)
            for fill, value in (("mean", mean), ((0.25, 0.5, 0.75), np.float32((0.25, 0.5, 0.75)))):
                inside, outside = painted[example], ~painted[example]
                pixels = results[fill][example][inside]
                np.testing.assert_allclose(pixels, np.broadcast_to(value, pixels.shape), atol=1e-6)
                np.testing.assert_array_equal(results[fill][example][outside], photographs[example][outside])
        with pytest.raises(UserError, match=rf"{name}.fill has 2 values, the images 3 channels"):
            AUGMENTATIONS[name](keys, jnp.asarray(photographs), fill=(0.1, 0.2))


def test_erasing_paints_noise_over_rectangles_of_the_areas_asked_for(keys):
    images = np.full((EXAMPLES, 40, 50, 1), 2.0, np.float32)  # no noise is 2
    erase = jax.jit(functools.partial(random_erasing, scale=(0.1, 0.3), ratio=(0.5, 2.0), probability=0.6))
    result = np.asarray(erase(keys, images))[..., 0]
    erased = result != 2
    chosen = erased.any(axis=(1, 2))
    assert 0.5 < chosen.mean() < 0.7
    for flags in erased[chosen]:
        places = np.argwhere(flags)
        height, width = places.max(axis=0) + 1 - places.min(axis=0)
        assert flags.sum() == height * width
        assert 0.09 < height * width / 2000 < 0.31
        assert 0.45 < width / height < 2.2
    noise = result[erased]
    assert abs(noise.mean() - 0.5) < 0.01
    assert 0 <= noise.min() < 0.001
    assert 0.999 < noise.max() < 1


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "gaussian_blur", "kernel_size": 4}, "kernel_size must be odd, got 4; try 5"),
        ({"name": "gaussian_blur", "sigma": (2.0, 0.1)}, r"sigma: should be \(smallest, largest\), got \(2.0, 0.1\)"),
        ({"name": "random_resized_crop", "scale": (1.0, 0.1)}, r"scale: should be \(smallest, largest\)"),
        ({"name": "random_zoom", "factors": (0.0, 2.0)}, "factors.*greater than 0"),
        ({"name": "random_shear", "degrees": (0.0, 90.0)}, "degrees.*less than 90"),
        ({"name": "cutout", "fill": "black"}, "fill"),
        ({"name": "colour_jitter", "hue": 0.6}, "hue.*0.5"),
        ({"name": "random_rotation", "angle": 3.0}, "unknown key 'angle'"),
    ],
)
def test_wrong_options_are_refused_before_training(node, message):
    with pytest.raises(UserError, match=message):
        check_node("config.data.augment.0", node, AUGMENTATIONS, given=("keys", "images", "epoch"))


def test_a_kernel_without_a_middle_is_refused(keys):
    with pytest.raises(UserError, match="odd, got 6"):
        gaussian_blur(keys, jnp.zeros((EXAMPLES, 8, 8, 1)), kernel_size=6)


def _repeated(image, count):
    """`count` copies of one image."""
    return np.broadcast_to(image, (count, *image.shape))
