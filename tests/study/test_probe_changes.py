"""What probes do to images: moves, squares and corruptions, as pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.study.probes.changes import STRENGTHS, corrupted, moved, occluded, without_what_leaves

KINDS = list(STRENGTHS)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0.05, 1, (3, 8, 6, 2)).astype(np.float32)


def keys(count):
    return jax.random.split(jax.random.key(5), count)


def corrupt(images, kind, strength):
    arguments = (jnp.int32(KINDS.index(kind)), jnp.float32(strength))
    return np.asarray(jax.jit(corrupted)(keys(len(images)), jnp.asarray(images), *arguments))


@pytest.mark.parametrize("offset", [(0, 0), (2, 0), (-3, 1), (0, -5), (7, 5), (8, 0), (20, -20)])
def test_moved_images_are_windows_of_a_black_canvas(images, offset):
    canvas = np.zeros((3, 8 + 40, 6 + 40, 2), np.float32)
    canvas[:, 20:28, 20:26] = images
    y, x = 20 - offset[0], 20 - offset[1]
    found = jax.jit(moved)(jnp.asarray(images), jnp.asarray(offset))
    np.testing.assert_array_equal(found, canvas[:, y : y + 8, x : x + 6])


@pytest.mark.parametrize("offset", [(0, 0), (2, 0), (-3, 1), (0, -5)])
def test_what_leaves_is_what_moving_there_and_back_loses(images, offset):
    offset = jnp.asarray(offset)
    kept = without_what_leaves(jnp.asarray(images), offset)
    np.testing.assert_array_equal(kept, moved(moved(jnp.asarray(images), offset), -offset))
    np.testing.assert_array_equal(moved(kept, offset), moved(jnp.asarray(images), offset))


def test_series_and_volumes_move_too():
    series = jnp.arange(1.0, 5.0).reshape(1, 4, 1)  # [4] -> [B, length, C]
    assert moved(series, jnp.array([1]))[0, :, 0].tolist() == [0, 1, 2, 3]
    volume = jnp.arange(1.0, 9.0).reshape(1, 2, 2, 2, 1)  # [8] -> [B, D, H, W, C]
    assert moved(volume, jnp.array([0, 0, -1]))[..., 0].tolist() == [[[[2, 0], [4, 0]], [[6, 0], [8, 0]]]]


@pytest.mark.parametrize("side", [1, 3, 6])
def test_squares_lie_inside_and_anywhere(side):
    count = 600
    found = occluded(keys(count), jnp.zeros((count, 8, 6, 2)), jnp.int32(side), fill=(0.25, 0.75))
    painted = np.asarray(found) == np.array([0.25, 0.75], np.float32)
    assert painted.sum(axis=(1, 2)).tolist() == [[side * side] * 2] * count
    corners = {tuple(np.argwhere(one[..., 0])[0]) for one in painted}
    assert corners == {(y, x) for y in range(9 - side) for x in range(7 - side)}
    # A square of its side: rows and columns of paint.
    assert {tuple(one.any(axis=0).sum(axis=0)) for one in painted} == {(side, side)}


def test_gaussian_noise_has_its_deviation_and_grows_with_the_severity():
    grey = np.full((4, 32, 32, 3), 0.5, np.float32)
    weak, strong = (corrupt(grey, "gaussian_noise", STRENGTHS["gaussian_noise"][severity]) for severity in (1, 5))
    # Standard error of a deviation: 1 / √(2 · 12288) of it, 0.6 %.
    assert np.std(weak - grey) == pytest.approx(0.04, rel=0.03)
    assert np.std(strong - grey) == pytest.approx(0.10, rel=0.03)
    np.testing.assert_allclose((weak - grey) / 0.04, (strong - grey) / 0.10, atol=1e-4)
    assert abs(np.corrcoef(weak[0].ravel(), weak[1].ravel())[0, 1]) < 0.1  # 5 standard errors
    edges = corrupt(np.ones((2, 8, 8, 1), np.float32), "gaussian_noise", 0.5)
    assert edges.max() == 1
    assert edges.min() < 0.9


def test_salt_and_pepper_replaces_a_share_of_the_values_by_as_many_zeros_as_ones():
    grey = np.full((8, 32, 32, 3), 0.5, np.float32)
    found = corrupt(grey, "salt_and_pepper", 0.07)
    assert set(np.unique(found)) == {0.0, 0.5, 1.0}
    # Standard error of a share of 0.035 among 24576: 0.0012.
    assert np.mean(found == 0) == pytest.approx(0.035, abs=0.005)
    assert np.mean(found == 1) == pytest.approx(0.035, abs=0.005)
    weak = corrupt(grey, "salt_and_pepper", 0.01)
    assert np.mean(weak != 0.5) == pytest.approx(0.01, abs=0.003)


def test_blur_keeps_constants_and_contrast_keeps_means(images):
    flat = np.full((2, 8, 8, 1), 0.3, np.float32)
    np.testing.assert_allclose(corrupt(flat, "blur", 1.0), flat, rtol=1e-6)
    found = corrupt(images, "contrast", 0.15)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), images.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.std(axis=(1, 2)), 0.15 * images.std(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_severity_0_changes_nothing_and_each_severity_more_than_the_one_before(images, kind):
    np.testing.assert_array_equal(corrupt(images, kind, STRENGTHS[kind][0]), images)
    changes = [
        np.abs(corrupt(np.tile(images, (20, 1, 1, 1)), kind, s) - np.tile(images, (20, 1, 1, 1))).mean()
        for s in STRENGTHS[kind]
    ]
    assert changes == sorted(changes)
    assert len(set(changes)) == 6
