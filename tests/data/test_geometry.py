"""Geometric augmentation against SciPy and Pillow on photographs; boxes and segmentation maps that move along."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from sklearn.datasets import load_sample_image

from cnn_jax.data.augment import AUGMENTATIONS, GEOMETRIC, IN_PLACE
from cnn_jax.data.augment.geometry import rotation_matrices, shear_matrices, translation_matrices, zoom_matrices
from cnn_jax.data.augment.resized_crop import random_resized_crop_matrices, random_windows
from cnn_jax.data.augment.warp import inverse, warp, warp_boxes, warp_segmentation
from cnn_jax.data.transform import training_transform
from cnn_jax.errors import UserError

SIZE = (33, 45)
EXAMPLES = 8
# With the nearest neighbour where there is a choice, so that pixels and class indices can be compared.
POLICIES = ("auto_augment", "rand_augment", "trivial_augment")
NODES = {
    "random_flip": {},
    "alternating_flip": {},
    "random_crop": {"padding": 5},
    "random_resized_crop": {"scale": (0.3, 1.0)},
    "random_rotation": {"degrees": 40.0, "interpolation": "nearest"},
    "random_translation": {"shares": (0.2, 0.3)},
    "random_shear": {"degrees": (10.0, 25.0), "interpolation": "nearest"},
    "random_zoom": {"factors": (0.7, 1.6), "interpolation": "nearest"},
}


@pytest.fixture(scope="module")
def photographs():
    china, flower = (load_sample_image(name) / np.float32(255) for name in ("china.jpg", "flower.jpg"))
    pieces = [source[y : y + 33, x : x + 45] for source in (china, flower) for y, x in ((150, 200), (200, 320))]
    return np.stack(pieces).astype(np.float32)


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(3), EXAMPLES)


MATRICES = {
    "rotation": lambda: rotation_matrices(jnp.array([0.0, 17.0, -90.0, 133.0]), size=SIZE),
    "shear": lambda: shear_matrices(jnp.array([0.0, 0.0, 20.0, -10.0]), jnp.array([0.0, 30.0, 0.0, 5.0]), size=SIZE),
    "zoom": lambda: zoom_matrices(jnp.array([1.0, 0.6, 1.7, 3.1]), size=SIZE),
    "translation": lambda: translation_matrices(jnp.array([0.0, 3.0, -2.4, 50.0]), jnp.array([0.0, -7.0, 1.6, 0.0])),
}


@pytest.mark.parametrize("kind", MATRICES)
def test_a_warp_is_scipys_affine_transform(photographs, kind):
    matrices = MATRICES[kind]()
    classes = np.int32(photographs[..., 0] * 200)
    for mode, theirs in (("zero", "grid-constant"), ("reflect", "mirror")):
        smooth = np.asarray(jax.jit(functools.partial(warp, mode=mode))(photographs, matrices))
        moved = np.asarray(jax.jit(functools.partial(warp_segmentation, mode=mode))(classes, matrices))
        for image, labels, matrix, pixels, labels_moved in zip(
            photographs, classes, np.asarray(matrices, np.float64), smooth, moved
        ):
            for channel in range(3):
                expected = scipy.ndimage.affine_transform(
                    image[..., channel].astype(np.float64), matrix[:2, :2], matrix[:2, 2], order=1, mode=theirs
                )
                # Places are float32: 1e-5 of a pixel, times the steepest step between two pixels.
                np.testing.assert_allclose(pixels[..., channel], expected, atol=5e-5)
            expected = scipy.ndimage.affine_transform(
                labels, matrix[:2, :2], matrix[:2, 2], order=0, mode=theirs, cval=255
            )
            # Half way between two pixels either is the nearest.
            place = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), axis=-1) @ matrix[:2, :2].T
            place = place + matrix[:2, 2]
            decided = (np.abs(place - np.floor(place) - 0.5) > 1e-4).all(axis=-1)
            assert decided.mean() > 0.8
            np.testing.assert_array_equal(labels_moved[decided], expected[decided])
    np.testing.assert_array_equal(smooth[0], photographs[0])  # the first of each kind does nothing


@pytest.mark.parametrize("degrees", [10.0, -35.0, 90.0])
def test_a_rotation_turns_counter_clockwise_as_pillows(photographs, degrees):
    matrices = rotation_matrices(jnp.array([degrees]), size=SIZE)
    ours = np.asarray(warp(jnp.asarray(photographs[:1]), matrices))[0]
    levels = Image.fromarray(np.uint8(np.round(photographs[0] * 255)))
    theirs = np.asarray(levels.rotate(degrees, Image.Resampling.BILINEAR), np.float32) / 255
    # Pillow does not fade to black over the border's last half pixel.
    inside = np.asarray(warp(jnp.ones((1, *SIZE, 1)), matrices))[0, ..., 0] > 0.999
    assert inside.sum() > 500
    assert np.abs(ours - theirs)[inside].max() < 1.5 / 255


def test_matrices_say_where_a_pixel_comes_from():
    moved = np.asarray(translation_matrices(jnp.array([-2.0]), jnp.array([3.0])))[0]
    np.testing.assert_array_equal(moved @ [5, 7, 1], [7, 4, 1])
    # The centre of 33 by 45 pixels is at (16, 22).
    zoom = np.asarray(zoom_matrices(jnp.array([2.0]), size=SIZE))[0]
    np.testing.assert_allclose(zoom @ [20, 28, 1], [18, 25, 1], atol=1e-5)
    lean = jnp.array([45.0])
    rows, columns = (
        np.asarray(shear_matrices(*angles, size=SIZE))[0] for angles in ((lean, 0 * lean), (0 * lean, lean))
    )
    np.testing.assert_allclose(rows @ [16, 27, 1], [21, 27, 1], atol=1e-5)
    np.testing.assert_allclose(columns @ [21, 22, 1], [21, 27, 1], atol=1e-5)


@pytest.mark.parametrize("kind", MATRICES)
def test_the_inverse_takes_a_pixel_back(kind):
    matrices = MATRICES[kind]()
    product = np.asarray(inverse(matrices)) @ np.asarray(matrices)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=2e-5)


def test_options_are_the_bounds_of_what_is_drawn():
    keys = jax.random.split(jax.random.key(0), 400)
    turned = np.asarray(GEOMETRIC["random_rotation"](keys, size=(21, 41), degrees=30.0, probability=0.75))
    angles = np.rad2deg(np.arctan2(turned[:, 0, 1], turned[:, 0, 0]))
    assert 25 < angles.max() <= 30.001
    assert -30.001 <= angles.min() < -25
    assert 0.65 < (angles != 0).mean() < 0.85
    moved = np.asarray(GEOMETRIC["random_translation"](keys, size=(21, 41), shares=(0.1, 0.2), probability=1.0))
    assert set(moved[:, 0, 2]) == set(range(-2, 3))
    assert set(moved[:, 1, 2]) == set(range(-8, 9))
    leant = np.asarray(GEOMETRIC["random_shear"](keys, size=(21, 41), degrees=(0.0, 45.0), probability=1.0))
    assert (leant[:, 0, 1] == 0).all()
    assert 0.9 < np.abs(leant[:, 1, 0]).max() <= 1.00001
    factors = (
        1 / np.asarray(GEOMETRIC["random_zoom"](keys, size=(21, 41), factors=(0.5, 2.0), probability=1.0))[:, 0, 0]
    )
    assert 0.4999 < factors.min() < 0.55
    assert 1.8 < factors.max() < 2.0001
    assert 0.4 < (factors < 1).mean() < 0.6


def test_windows_have_the_areas_and_shapes_asked_for_at_every_place():
    keys = jax.random.split(jax.random.key(0), 2000)
    windows, found = random_windows(keys, size=(40, 60), scale=(0.1, 0.5), ratio=(0.5, 2.0))
    y0, x0, y1, x1 = np.asarray(windows).T
    assert found.all()
    assert min(y0.min(), x0.min()) == 0
    assert (y1.max(), x1.max()) == (40, 60)
    area, ratio = (y1 - y0) * (x1 - x0) / 2400, (x1 - x0) / (y1 - y0)
    # Whole pixels: half a pixel on 11 to 34.
    assert 0.09 < area.min() < 0.12
    assert 0.48 < area.max() < 0.52
    assert abs(np.mean(area) - 0.3) < 0.01
    assert 0.46 < ratio.min() < 0.55
    assert 1.85 < ratio.max() < 2.15
    assert abs(np.mean(np.log(ratio))) < 0.05


def test_a_shape_that_never_fits_takes_the_largest_central_window():
    keys = jax.random.split(jax.random.key(0), 3)
    matrices = random_resized_crop_matrices(keys, size=(10, 40), scale=(1.0, 1.0), ratio=(1.0, 1.0), target=(10, 10))
    expected = np.asarray(translation_matrices(jnp.zeros(3), jnp.full(3, -15.0)))
    np.testing.assert_allclose(matrices, expected, atol=1e-6)


@pytest.mark.parametrize("size", [None, (12, 50)])
def test_a_resized_crop_is_pillows(photographs, size):
    keys = jax.random.split(jax.random.key(5), 4)
    options = {"scale": (0.1, 1.0), "ratio": (0.6, 1.6)}
    ours = np.asarray(AUGMENTATIONS["random_resized_crop"](keys, jnp.asarray(photographs), size=size, **options))
    height, width = size or SIZE
    # The corners of the output show the window's corners.
    matrices = random_resized_crop_matrices(keys, size=SIZE, target=(height, width), **options)
    windows = set()
    for image, result, matrix in zip(photographs, ours, np.asarray(matrices)):
        y0, x0, _ = matrix @ [-0.5, -0.5, 1] + 0.5
        y1, x1, _ = matrix @ [height - 0.5, width - 0.5, 1] + 0.5
        window = tuple(int(edge) for edge in np.round((x0, y0, x1, y1)))
        np.testing.assert_allclose((x0, y0, x1, y1), window, atol=1e-4)
        levels = Image.fromarray(np.uint8(np.round(image * 255)))
        expected = np.asarray(levels.crop(window).resize((width, height), Image.Resampling.BILINEAR))
        assert np.abs(result * 255 - expected).max() < 2  # Pillow rounds twice, after columns and after rows
        windows.add(window)
    assert len(windows) == 4


@pytest.fixture(scope="module")
def moved(keys):
    """What becomes of a rectangle, its box, and a ramp that tells every place, in every geometric augmentation."""
    y, x = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    image = np.broadcast_to(np.uint8(3 * y + 2 * x)[..., None], (EXAMPLES, *SIZE, 1))
    drawn = np.int32((y >= 10) & (y < 24) & (x >= 12) & (x < 30))
    boxes = np.array([[10, 12, 24, 30], [0, 0, 0, 0], [0, 0, *SIZE], [5, 5, 5, 9]], np.float32)
    batch = {
        "id": np.arange(EXAMPLES, dtype=np.int32),
        "epoch": np.zeros(EXAMPLES, np.int32),
        "image": image,
        "boxes": np.broadcast_to(boxes, (EXAMPLES, 4, 4)),
    }
    results = {}
    for name, options in NODES.items():
        transform = jax.jit(_transform({"name": name, **options}))
        results[name] = [
            {key: np.asarray(value) for key, value in transform({**batch, "segmentation": classes}).items()}
            for classes in (np.int32(image[..., 0]), np.broadcast_to(drawn, (EXAMPLES, *SIZE)))
        ]
    return results


def test_pixels_and_classes_move_by_the_same_draws(moved):
    assert set(NODES) | {"simclr_view", *POLICIES} == set(GEOMETRIC)
    for name, (ramp, _) in moved.items():
        levels, classes = ramp["image"][..., 0] * 255, ramp["segmentation"]
        shown = classes != 255
        assert shown.mean() > 0.4, name
        # The resized crop interpolates its pixels: half a pixel, and another half that the triangle misses at borders.
        tolerance = 5 if name == "random_resized_crop" else 1e-3
        np.testing.assert_allclose(levels[shown], classes[shown], atol=tolerance, err_msg=name)
        np.testing.assert_array_equal(levels[~shown], 0, err_msg=name)
        assert len({image.tobytes() for image in classes}) > (1 if "flip" in name else EXAMPLES // 2), name


def test_a_policy_of_one_operation_moves_classes_with_the_pixels():
    # White on white: whatever the operation does to levels, what comes from outside is where no class is.
    batch = {
        "id": np.arange(12, dtype=np.int32),
        "epoch": np.zeros(12, np.int32),
        "image": np.full((12, *SIZE, 3), 255, np.uint8),
        "segmentation": np.ones((12, *SIZE), np.int32),
        "boxes": np.tile(np.float32([[[0, 0, *SIZE]]]), (12, 1, 1)),
    }
    done = jax.device_get(jax.jit(_transform({"name": "trivial_augment"}))(batch))
    moved = 0
    for image, classes, boxes in zip(done["image"], done["segmentation"], done["boxes"]):
        inside = np.unique(image[classes == 1].round(3), axis=0)
        assert len(inside) == 1
        if (classes == 255).any():
            moved += 1
            outside = np.unique(image[classes == 255].round(3), axis=0)
            assert len(outside) == 1
        y0, x0, y1, x1 = boxes[0]
        assert 0 <= y0 < y1 <= SIZE[0]
        assert 0 <= x0 < x1 <= SIZE[1]
    assert moved >= 1


def test_boxes_enclose_what_was_in_them(moved):
    for name, (_, rectangle) in moved.items():
        for classes, boxes in zip(rectangle["segmentation"], rectangle["boxes"]):
            rows, columns = (np.flatnonzero((classes == 1).any(axis=axis)) for axis in (1, 0))
            seen = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
            # Pixels are whole, and of a turned corner the last pixel and a half may have no centre in it.
            np.testing.assert_allclose(boxes[0], seen, atol=1.6 if name in ("random_rotation", "random_shear") else 0.6)
            np.testing.assert_array_equal(boxes[1], 0)
            np.testing.assert_array_equal(boxes[3], 0)
            assert (boxes[2] <= [*SIZE, *SIZE]).all()
            assert (boxes >= 0).all()


def test_a_box_that_leaves_the_image_becomes_nothing():
    boxes = jnp.array([[[1.0, 2.0, 5.0, 6.0]]])
    near, far = (translation_matrices(jnp.array([0.0]), jnp.array([right])) for right in (-4.0, -6.0))
    np.testing.assert_array_equal(warp_boxes(boxes, near, size=SIZE), [[[1, 0, 5, 2]]])
    np.testing.assert_array_equal(warp_boxes(boxes, far, size=SIZE), np.zeros((1, 1, 4)))


def test_boxes_and_maps_follow_a_resized_crop_to_its_size():
    batch = {
        "id": jnp.arange(1),
        "epoch": jnp.zeros(1, jnp.int32),
        "image": jnp.zeros((1, *SIZE, 3), jnp.uint8),
        "segmentation": jnp.zeros((1, *SIZE), jnp.int32),
        "boxes": jnp.array([[[0.0, 0.0, 33.0, 45.0]]]),
    }
    node = {"name": "random_resized_crop", "scale": (1.0, 1.0), "ratio": (45 / 33, 45 / 33), "size": (66, 30)}
    result = jax.jit(_transform(node))(batch)
    assert result["image"].shape == (1, 66, 30, 3)
    assert result["segmentation"].shape == (1, 66, 30)
    np.testing.assert_allclose(result["boxes"], [[[0, 0, 66, 30]]], atol=1e-4)


@pytest.mark.parametrize("name", ["colour_jitter", "cutout", "random_erasing", "gaussian_blur"])
def test_what_moves_no_pixels_leaves_boxes_and_maps_alone(name):
    classes = np.arange(2 * 9 * 11, dtype=np.int32).reshape(2, 9, 11)
    boxes = np.float32([[[1, 2, 5, 6]]] * 2)
    batch = {
        "id": np.arange(2, dtype=np.int32),
        "epoch": np.zeros(2, np.int32),
        "image": jnp.full((2, 9, 11, 3), 77, jnp.uint8),
        "segmentation": classes,
        "boxes": boxes,
    }
    result = jax.jit(_transform({"name": name}))(batch)
    np.testing.assert_array_equal(result["segmentation"], classes)
    np.testing.assert_array_equal(result["boxes"], boxes)


def test_policies_refuse_boxes_which_they_do_not_move():
    policies = set(AUGMENTATIONS) - set(GEOMETRIC) - set(IN_PLACE)
    assert policies == {"augmix"}
    batch = {
        "id": jnp.arange(2),
        "epoch": jnp.zeros(2, jnp.int32),
        "image": jnp.zeros((2, 9, 11, 3), jnp.uint8),
        "boxes": jnp.zeros((2, 1, 4)),
    }
    for name in policies:
        with pytest.raises(UserError, match=f"{name!r} moves pixels, but not boxes.*use alternating_flip, auto_"):
            jax.eval_shape(_transform({"name": name}), batch)


def test_operations_in_the_plane_refuse_other_ranks():
    keys = jax.random.split(jax.random.key(0), 2)
    volumes = jnp.zeros((2, 4, 5, 6, 1))
    for name in ("random_rotation", "random_translation", "random_shear", "random_zoom", "random_resized_crop"):
        with pytest.raises(UserError, match=rf"{name} takes images with two axes of space.*\(2, 4, 5, 6, 1\)"):
            AUGMENTATIONS[name](keys, volumes)
    batch = {
        "id": jnp.arange(2),
        "epoch": jnp.zeros(2, jnp.int32),
        "image": jnp.zeros((2, 4, 5, 6, 1), jnp.uint8),
        "segmentation": jnp.zeros((2, 4, 5, 6), jnp.int32),
    }
    with pytest.raises(UserError, match=r"'random_flip' moves boxes and segmentation maps of images .* 3 axes"):
        _transform({"name": "random_flip"})(batch)


def _transform(node):
    """The training transform of one augmentation, without a normalisation."""

    def transform(batch):
        channels = batch["image"].shape[-1]
        return training_transform(
            jax.random.key(1), batch, augmentations=(node,), mean=(0.0,) * channels, std=(1.0,) * channels
        )

    return transform
