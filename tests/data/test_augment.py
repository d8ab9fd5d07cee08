"""Augmentation: the right pixels, and the same ones for every batch size and device count."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from cnn_jax.data.augment import AUGMENTATIONS, random_crop, random_flip
from cnn_jax.data.batches import training_batch
from cnn_jax.data.sources import open_source
from cnn_jax.data.transform import normalise, to_float, training_transform


@pytest.fixture(scope="module")
def digits():
    return open_source("sklearn", "digits").load("train[:64]")


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), 64)


def test_every_level_is_the_nearest_number_whatever_is_computed_with_it():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)  # [256] -> [B, 16, 16, C]
    nearest = (levels / 255.0).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(to_float)(levels), nearest)
    # One fused loop: XLA would leave out the rounding of a product that something is added to.
    at_once = jax.jit(lambda levels: (to_float(levels) - 0.4) * 3.0)(levels)
    np.testing.assert_array_equal(at_once, (nearest - np.float32(0.4)) * np.float32(3.0))


def test_a_flip_mirrors_left_to_right_or_leaves_the_image(digits, keys):
    images = to_float(jnp.asarray(digits.images))
    flipped = np.asarray(random_flip(keys, images))
    mirrored = [np.array_equal(f, i[:, ::-1]) for f, i in zip(flipped, np.asarray(images))]
    same = [np.array_equal(f, i) for f, i in zip(flipped, np.asarray(images))]
    assert all(m or s for m, s in zip(mirrored, same))
    assert 15 < sum(mirrored) < 49
    np.testing.assert_array_equal(random_flip(keys, images, probability=0.0), images)
    np.testing.assert_array_equal(random_flip(keys, images, probability=1.0), images[:, :, ::-1])


def test_an_alternating_flip_shows_each_side_of_every_example_in_two_epochs(digits):
    transform = jax.jit(
        lambda key, batch: training_transform(
            key, batch, augmentations=({"name": "alternating_flip"},), mean=(0.0,), std=(1.0,)
        )
    )
    key, seen = jax.random.key(7), {}
    for batch_size in (16, 64):
        for step in range(4 * 64 // batch_size):
            batch = training_batch(digits, seed=0, step=step, batch_size=batch_size)
            for example, epoch, image in zip(batch["id"], batch["epoch"], transform(key, batch)["image"]):
                plain = np.float32(digits.images[example]) / 255
                sides = np.allclose(image, plain, atol=1e-6), np.allclose(image, plain[:, ::-1], atol=1e-6)
                assert any(sides)
                flipped = not sides[0]
                assert seen.setdefault((int(example), int(epoch)), flipped) == flipped
    symmetric = [i for i in range(64) if np.array_equal(digits.images[i], digits.images[i][:, ::-1])]
    first = [seen[i, 0] for i in range(64)]
    assert 15 < sum(first) < 49
    for i in set(range(64)) - set(symmetric):
        assert [seen[i, epoch] for epoch in range(4)] == [first[i], not first[i]] * 2


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("reflect", "reflect")])
def test_a_crop_is_a_window_of_the_padded_image(digits, keys, mode, numpy_mode):
    images = np.asarray(to_float(jnp.asarray(digits.images)))
    cropped = np.asarray(random_crop(keys, jnp.asarray(images), padding=2, mode=mode))
    offsets = set()
    for image, crop in zip(images, cropped):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode=numpy_mode)
        found = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 8, x : x + 8], crop)]
        assert found
        offsets.add(found[0])
    assert len(offsets) > 15


@pytest.mark.parametrize("shape", [(64, 9, 2), (64, 5, 6, 7, 1)])
def test_flip_and_crop_take_any_rank(keys, shape):
    images = jax.random.uniform(jax.random.key(1), shape)
    assert random_flip(keys, images).shape == shape
    assert random_crop(keys, images, padding=2).shape == shape


def test_the_pixels_of_an_example_do_not_depend_on_the_batch(digits):
    transform = jax.jit(
        lambda key, batch: training_transform(
            key, batch, augmentations=({"name": "random_crop"}, {"name": "random_flip"}), mean=(0.3,), std=(0.4,)
        )
    )
    key = jax.random.key(7)
    pixels = {}
    for batch_size in (4, 16, 64):
        for step in range(128 // batch_size):
            batch = training_batch(digits, seed=0, step=step, batch_size=batch_size)
            images = np.asarray(transform(key, batch)["image"])
            for example, epoch, image in zip(batch["id"], batch["epoch"], images):
                previous = pixels.setdefault((int(example), int(epoch)), image)
                np.testing.assert_array_equal(image, previous)
    assert len(pixels) == 128
    assert any(not np.array_equal(pixels[i, 0], pixels[i, 1]) for i in range(64))


@pytest.fixture(scope="module")
def photographs():
    """Six pieces of 17 by 23 pixels of two photographs, as a training batch of colour images."""
    sources = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    images = np.stack([sources[i % 2][90 + 31 * i :, 150 + 37 * i :][:17, :23] for i in range(6)])
    return {"image": images, "id": np.int32([3, 14, 15, 92, 65, 35]), "epoch": np.int32([0, 0, 0, 1, 1, 1])}


COMPILED_SLOWLY = ("augmix", "auto_augment", "rand_augment", "simclr_view")


def _transform(node, channels=3):
    """The compiled training transform of one augmentation, without a normalisation: a batch to images."""

    def transform(batch):
        return training_transform(
            jax.random.key(5), batch, augmentations=(node,), mean=(0.0,) * channels, std=(1.0,) * channels
        )["image"]

    return jax.jit(transform)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in COMPILED_SLOWLY else []) for name in AUGMENTATIONS],
)
def test_every_augmentation_is_a_function_of_the_example_alone(photographs, name):
    transform = _transform({"name": name})
    whole = np.asarray(transform(photographs))
    assert whole.shape == (6, 17, 23, 3)
    assert whole.dtype == np.float32
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert not np.array_equal(whole, np.float32(photographs["image"]) / 255)
    for size in (1, 3):
        for start in range(0, 6, size):
            part = {key: value[start : start + size] for key, value in photographs.items()}
            # XLA orders sums, and fuses products with sums, as suits the shape: the last bit may differ.
            np.testing.assert_allclose(transform(part), whole[start : start + size], atol=1e-6)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_takes_grey_images(photographs, name):
    grey = {**photographs, "image": photographs["image"][..., :1]}
    images = np.asarray(_transform({"name": name}, channels=1)(grey))
    assert images.shape == (6, 17, 23, 1)
    assert images.min() >= 0
    assert images.max() <= 1


NOTHING = [
    {"name": "random_resized_crop", "scale": (1.0, 1.0), "ratio": (23 / 17, 23 / 17)},
    {"name": "random_rotation", "degrees": 0.0},
    {"name": "random_translation", "shares": (0.0, 0.0)},
    {"name": "random_shear", "degrees": (0.0, 0.0)},
    {"name": "random_zoom", "factors": (1.0, 1.0)},
    {"name": "colour_jitter", "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
    {"name": "gaussian_blur", "sigma": (1e-3, 1e-3)},
    {"name": "gaussian_blur", "kernel_size": 1},
    {"name": "gaussian_noise", "deviation": 0.0},
    *(
        {"name": name, "probability": 0.0}
        for name, augmentation in AUGMENTATIONS.items()
        if "probability" in inspect.signature(augmentation).parameters
    ),
]


@pytest.mark.parametrize("node", NOTHING, ids=str)
def test_no_strength_or_no_probability_leaves_the_images_as_they_are(photographs, node):
    np.testing.assert_allclose(_transform(node)(photographs), np.float32(photographs["image"]) / 255, atol=1e-7)


def test_normalised_training_data_have_mean_zero_and_deviation_one(digits):
    images = to_float(jnp.asarray(digits.images))
    mean, std = float(images.mean()), float(images.std())
    result = normalise(images, mean=(mean,), std=(std,))
    assert abs(float(result.mean())) < 1e-5
    assert abs(float(result.std()) - 1) < 1e-5
