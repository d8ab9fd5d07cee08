"""Two views of an image: independent draws, each example's own, and SimCLR's recipe in its parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import sklearn.datasets

from cnn_jax.data.augment.views import simclr_view, simclr_view_matrices, two_views
from cnn_jax.data.augment.warp import warp_boxes

COUNT = 256
SIZE = (20, 24)


@pytest.fixture(scope="module")
def photographs():
    """Windows of a photograph with strong colours, `[256, 20, 24, 3]` in [0, 1]."""
    flower = np.float32(sklearn.datasets.load_sample_image("flower.jpg")) / 255
    starts = np.random.default_rng(0).integers(0, np.array(flower.shape[:2]) - SIZE, (COUNT, 2))
    return jnp.stack([flower[y : y + SIZE[0], x : x + SIZE[1]] for y, x in starts])


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(3), COUNT)


@pytest.fixture(scope="module")
def both_views():
    return jax.jit(lambda k, x: two_views(k, x, recipe=simclr_view))


@pytest.fixture(scope="module")
def pairs(both_views, photographs, keys):
    return jax.device_get(both_views(keys, photographs))


def is_grey(images):
    return np.ptp(images, axis=-1).max(axis=(1, 2)) < 1e-5


def test_views_are_images_and_no_two_are_alike(pairs, photographs):
    for views in pairs:
        assert views.shape == photographs.shape
        assert views.dtype == np.float32
        assert 0 <= views.min() <= views.max() <= 1
    assert np.abs(pairs[0] - pairs[1]).max(axis=(1, 2, 3)).min() > 0.01


def test_both_views_have_the_recipes_distribution_and_are_independent(pairs):
    grey = np.stack([is_grey(views) for views in pairs])
    # A fifth, within four standard errors of 256 draws; both at once in a twenty-fifth.
    np.testing.assert_allclose(grey.mean(axis=1), 0.2, atol=4 * np.sqrt(0.2 * 0.8 / COUNT))
    np.testing.assert_allclose(grey.all(axis=0).mean(), 0.04, atol=4 * np.sqrt(0.04 * 0.96 / COUNT))


def test_the_views_of_an_example_do_not_depend_on_the_others(pairs, both_views, photographs, keys):
    order = np.random.default_rng(1).permutation(COUNT)
    for views, expected in zip(both_views(keys[order], photographs[order]), pairs, strict=True):
        np.testing.assert_array_equal(views, expected[order])


def test_without_its_random_parts_a_view_is_the_image_or_its_mirror_image_a_fifth_of_them_grey(photographs, keys):
    recipe = functools.partial(simclr_view, strength=0.0, blur_probability=0.0, scale=(1.0, 1.0), ratio=(1.2, 1.2))
    views = np.asarray(jax.jit(recipe)(keys, photographs))
    images = np.asarray(photographs)
    luma = (images @ np.float32([0.2989, 0.587, 0.114]))[..., None]
    candidates = np.stack(
        [images, images[:, :, ::-1], *(np.broadcast_to(g, images.shape) for g in (luma, luma[:, :, ::-1]))]
    )
    distance = np.abs(candidates - views).max(axis=(2, 3, 4))
    assert distance.min(axis=0).max() < 1e-5
    kind = distance.argmin(axis=0)
    error = 4 / np.sqrt(COUNT)
    np.testing.assert_allclose([np.isin(kind, (1, 3)).mean(), (kind >= 2).mean()], [0.5, 0.2], atol=error * 0.5)


@pytest.mark.slow
def test_blur_is_a_gaussian_of_a_tenth_of_the_side_for_half_of_the_views(keys):
    point = np.zeros((COUNT, 41, 41, 1), np.float32)
    point[:, 20, 20] = 1
    recipe = functools.partial(simclr_view, strength=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    views = np.asarray(jax.jit(recipe)(keys, point))[..., 0]
    blurred = views[:, 20, 20] < 1 - 1e-3
    # Of the deviations from 0.1 to 2 a few are too small to be seen.
    np.testing.assert_allclose(blurred.mean(), 0.5, atol=0.17)
    for view in views[blurred][:20]:
        assert view[[17, 23]].max() < 1e-6  # a kernel of 5: two pixels to either side
        sigma = 1 / np.sqrt(2 * np.log(view[20, 20] / view[20, 21]))
        assert 0.1 <= sigma <= 2.01
        expected = scipy.ndimage.gaussian_filter(point[0, :, :, 0].astype(np.float64), sigma, radius=2)
        np.testing.assert_allclose(view, expected, atol=1e-4)


@pytest.mark.slow
def test_strength_scales_the_colours(photographs, keys):
    def shift(strength):
        recipe = functools.partial(
            simclr_view, strength=strength, blur_probability=0.0, scale=(1.0, 1.0), ratio=(1.2, 1.2)
        )
        views = np.asarray(jax.jit(recipe)(keys, photographs))
        means = views.mean(axis=(1, 2)) - np.asarray(photographs).mean(axis=(1, 2))
        return np.abs(means[~is_grey(views)]).mean()

    weak, strong = shift(0.25), shift(1.0)
    assert 0 < 2 * weak < strong


@pytest.mark.slow
def test_matrices_say_where_the_pixels_came_from(keys):
    images = np.zeros((COUNT, 30, 30, 1), np.float32)
    images[:, 12:18, 10:20] = 1
    options = {"scale": (0.5, 1.0), "ratio": (3 / 4, 4 / 3)}
    recipe = functools.partial(simclr_view, strength=0.0, blur_probability=0.0, size=(60, 50), **options)
    views = np.asarray(jax.jit(recipe)(keys, images))[..., 0]
    matrices = simclr_view_matrices(keys, size=(30, 30), target=(60, 50), **options)
    box = jnp.tile(jnp.array([[[12.0, 10.0, 18.0, 20.0]]]), (COUNT, 1, 1))
    boxes = np.asarray(warp_boxes(box, matrices, size=(60, 50)))[:, 0]
    for view, (y0, x0, y1, x1) in zip(views, boxes, strict=True):
        rows, columns = np.flatnonzero(view.max(axis=1) > 0.5), np.flatnonzero(view.max(axis=0) > 0.5)
        np.testing.assert_allclose([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], [y0, x0, y1, x1], atol=1.01)


@pytest.mark.slow
def test_grey_images_and_other_sizes_have_views():
    images = jax.random.uniform(jax.random.key(0), (3, 17, 23, 1))
    recipe = functools.partial(simclr_view, size=(8, 8))
    first, second = jax.jit(lambda k, x: two_views(k, x, recipe=recipe))(jax.random.split(jax.random.key(1), 3), images)
    assert first.shape == second.shape == (3, 8, 8, 1)
