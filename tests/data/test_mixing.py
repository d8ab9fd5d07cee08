"""Mixup and cutmix: pixels and targets in the same shares, against NumPy and the authors' box, and who is mixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cnn_jax.data.augment.mixing import MIXINGS
from cnn_jax.data.sources import open_source
from cnn_jax.data.transform import training_transform
from cnn_jax.errors import UserError

every_mixing = pytest.mark.parametrize("name", MIXINGS)
MANY = 2000


def marked(shape):
    """Images `[B, *space, C]` that are constant, the i-th with the value i; targets that are one-hot in i."""
    values = np.arange(shape[0], dtype=np.float32)
    return np.broadcast_to(values.reshape(-1, *[1] * (len(shape) - 1)), shape), np.eye(shape[0], dtype=np.float32)


def run(name, images, targets, mask=None, *, seed=0, **options):
    keys = jax.random.split(jax.random.key(seed), len(images))
    mask = np.ones(len(images), np.float32) if mask is None else np.asarray(mask, np.float32)
    mix = jax.jit(lambda *arguments: MIXINGS[name](*arguments, **options))
    return map(np.asarray, mix(keys, jnp.asarray(images), jnp.asarray(targets), mask))


@pytest.fixture(scope="module")
def digits():
    return open_source("sklearn", "digits").load("train[:64]")


def test_mixup_gives_images_and_targets_the_same_shares_of_a_partner(digits):
    images = np.float32(digits.images) / 255
    mixed, targets = run("mixup", images, np.eye(64, dtype=np.float32), alpha=1.0)
    for i, row in enumerate(targets):
        assert set(np.flatnonzero(row)) <= {i, (i - 1) % 64}
        expected = row.astype(np.float64) @ images.reshape(64, -1)  # [64, 8, 8, 1] -> [64, 64]
        np.testing.assert_allclose(mixed[i].ravel(), expected, atol=1e-6)
    assert len(np.unique(targets.diagonal())) == 64
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 30.0])
def test_coefficients_of_mixup_follow_the_beta_distribution(alpha):
    images, _ = marked((MANY, 1, 1, 1))
    mixed, _ = run("mixup", images % 2, np.ones((MANY, 1), np.float32), alpha=alpha)
    # Neighbours have the values 0 and 1, so that the pixel is the share of whoever has the 1.
    assert scipy.stats.kstest(mixed.ravel(), scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.001


def box_of_the_authors(generator, height, width, alpha):
    """Which pixels CutMix-PyTorch's `rand_bbox` replaces."""
    ratio = np.sqrt(1 - generator.beta(alpha, alpha))
    cut_y, cut_x = int(height * ratio), int(width * ratio)
    y, x = generator.integers(height), generator.integers(width)
    box = np.zeros((height, width), bool)
    box[max(y - cut_y // 2, 0) : y + cut_y // 2, max(x - cut_x // 2, 0) : x + cut_x // 2] = True
    return box


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_boxes_of_cutmix_are_those_of_the_authors(alpha):
    images, _ = marked((MANY, 13, 16, 1))
    mixed, _ = run("cutmix", images, np.ones((MANY, 1), np.float32), alpha=alpha)
    found = (mixed != images)[..., 0]
    generator = np.random.default_rng(0)
    expected = np.stack([box_of_the_authors(generator, 13, 16, alpha) for _ in range(4 * MANY)])
    assert scipy.stats.ks_2samp(found.mean(axis=(1, 2)), expected.mean(axis=(1, 2))).pvalue > 0.001
    for side in (1, 2):  # the lengths of the sides
        lengths = [boxes.any(axis=3 - side).sum(axis=1) for boxes in (found, expected)]
        assert scipy.stats.ks_2samp(*lengths).pvalue > 0.001
    # How often each pixel is replaced, to four standard errors of the difference.
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=4 * np.sqrt(0.25 / MANY * 1.25))


@pytest.mark.parametrize("shape", [(24, 17, 23, 3), (24, 8, 8, 1), (24, 30, 2), (24, 5, 6, 7, 1)])
def test_cutmix_pastes_one_box_and_its_coefficient_is_the_share_of_the_pixels(shape):
    images, targets = marked(shape)
    mixed, shares = run("cutmix", images, targets)
    pasted = mixed != images
    np.testing.assert_array_equal(mixed, np.where(pasted, np.roll(images, 1, axis=0), images))
    for i, where in enumerate(pasted):
        places = np.argwhere(where)
        if len(places):  # every pixel between the first and the last along each axis, with all channels
            assert np.prod(np.ptp(places, axis=0) + 1) == len(places)
        assert shares[i, (i - 1) % 24] == pytest.approx(where.mean(), abs=1e-7)
        assert shares[i, i] == pytest.approx(1 - where.mean(), abs=1e-7)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert pasted.reshape(24, -1).any(axis=1).sum() > 12


def test_mixup_or_cutmix_is_one_of_both_for_each_example():
    images, targets = marked((256, 9, 9, 1))
    mixed, shares = run("mixup_or_cutmix", images, targets, cutmix_share=0.25, probability=0.8)
    blended, blended_shares = run("mixup", images, targets, alpha=0.8, probability=0.8)
    pasted, pasted_shares = run("cutmix", images, targets, probability=0.8)
    kinds = []
    for i in range(256):
        options = {"blended": (blended[i], blended_shares[i]), "pasted": (pasted[i], pasted_shares[i])}
        is_own = np.array_equal(mixed[i], images[i])
        found = [
            kind
            for kind, (image, share) in options.items()
            if np.allclose(mixed[i], image, atol=1e-4) and np.allclose(shares[i], share, atol=1e-6)
        ]
        assert found
        kinds.append("own" if is_own else found[0])
    assert 0.1 < kinds.count("own") / 256 < 0.35  # 0.2 and a few boxes without a pixel
    assert 0.12 < kinds.count("pasted") / (256 - kinds.count("own")) < 0.36


@every_mixing
def test_padding_is_neither_mixed_in_nor_changed(name):
    images, targets = marked((16, 6, 6, 1))
    mask = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0])
    padded = np.where(mask[:, None, None, None] > 0, images, np.float32(np.nan))
    mixed, shares = run(name, padded, targets, mask)
    assert np.isfinite(mixed[mask > 0]).all()
    np.testing.assert_array_equal(shares[:, mask == 0], targets[:, mask == 0])
    partner_is_padding = np.roll(mask, 1) == 0
    np.testing.assert_array_equal(mixed[(mask > 0) & partner_is_padding], images[(mask > 0) & partner_is_padding])
    np.testing.assert_array_equal(shares[partner_is_padding | (mask == 0)], targets[partner_is_padding | (mask == 0)])
    assert (shares.diagonal() < 1).sum() > 6


@every_mixing
def test_one_example_and_probability_zero_leave_all_as_it_is(name):
    images, targets = jax.random.uniform(jax.random.key(1), (5, 7, 9, 3)), jnp.eye(5)
    for mixed, shares, count in (
        (*run(name, images[:1], targets[:1]), 1),
        (*run(name, images, targets, [0, 0, 1, 0, 0]), 5),
        (*run(name, images, targets, probability=0.0), 5),
    ):
        np.testing.assert_array_equal(mixed, images[:count])
        np.testing.assert_array_equal(shares, targets[:count])


@every_mixing
def test_how_much_of_the_partner_comes_in_depends_on_the_examples_own_key_alone(name):
    images, _ = marked((12, 6, 6, 1))
    targets = np.float32(np.arange(12)[:, None] % 2 == np.arange(2))  # neighbours differ, in the whole and in threes
    keys = jax.random.split(jax.random.key(3), 12)
    mix = jax.jit(MIXINGS[name])
    _, whole = mix(keys, jnp.asarray(images), jnp.asarray(targets), jnp.ones(12))
    for start in (0, 4, 8):
        part = slice(start, start + 4)
        _, shares = mix(keys[part], jnp.asarray(images[part]), jnp.asarray(targets[part]), jnp.ones(4))
        np.testing.assert_array_equal(shares, whole[part])


@every_mixing
def test_images_stay_in_their_range(name):
    images = jnp.round(jax.random.uniform(jax.random.key(0), (256, 5, 5, 1)))
    mixed, _ = run(name, images, np.ones((256, 1), np.float32))
    assert mixed.min() >= 0
    assert mixed.max() <= 1


def transform(*augmentations, num_classes=10, labels=None, **more):
    """The transform of 32 images whose ten channels are the one-hot label, everywhere in the image."""
    labels = np.arange(32) * 7 % 10 if labels is None else labels
    image = np.uint8(255 * np.eye(10)[labels])[:, None, None].repeat(5, axis=1).repeat(6, axis=2)
    batch = {"image": image, "label": np.int32(labels), "mask": np.ones(32, np.float32)}
    batch |= {"id": np.arange(32, dtype=np.int32), "epoch": np.zeros(32, np.int32), **more}
    one = jax.jit(
        lambda batch: training_transform(
            jax.random.key(5),
            batch,
            augmentations=augmentations,
            num_classes=num_classes,
            mean=(0.0,) * 10,
            std=(1.0,) * 10,
        )
    )
    return batch, jax.device_get(one(batch))


@pytest.mark.parametrize(
    ("names", "most"), [(["mixup"], 2), (["mixup", "random_flip", "mixup_or_cutmix"], 3), (["cutmix", "mixup"], 3)]
)
def test_in_a_list_each_mixing_mixes_what_the_one_before_it_made(names, most):
    batch, mixed = transform(*({"name": name} for name in names))
    assert mixed["target"].dtype == np.float32
    np.testing.assert_allclose(mixed["target"].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed["image"].mean(axis=(1, 2)), mixed["target"], atol=1e-6)
    assert (mixed["target"] > 0).sum(axis=1).max() == most
    np.testing.assert_array_equal(mixed["label"], batch["label"])


def test_targets_of_the_batch_are_mixed_where_it_has_them():
    soft = np.eye(10, dtype=np.float32)[np.arange(32) * 7 % 10] * 0.75 + 0.025
    _, mixed = transform({"name": "mixup"}, num_classes=None, target=soft)
    np.testing.assert_allclose(mixed["target"], 0.75 * mixed["image"].mean(axis=(1, 2)) + 0.025, atol=1e-6)


def test_without_a_mixing_a_batch_has_no_targets():
    assert "target" not in transform({"name": "random_flip"})[1]


def test_a_label_that_is_no_class_makes_targets_that_are_no_probabilities():
    _, mixed = transform({"name": "mixup", "alpha": 1.0}, num_classes=9)
    has_nine = (np.arange(32) * 7 % 10 == 9) | (np.roll(np.arange(32) * 7 % 10, 1) == 9)
    np.testing.assert_array_equal(np.abs(mixed["target"].sum(axis=1) - 1) > 1e-3, has_nine)


def test_mixing_what_cannot_be_mixed_is_an_error():
    with pytest.raises(UserError, match="'mixup' mixes classes; give num_classes"):
        transform({"name": "mixup"}, num_classes=None)
    with pytest.raises(UserError, match="'cutmix' mixes images and classes, but the batch has 'boxes'"):
        transform({"name": "cutmix"}, boxes=np.zeros((32, 1, 4), np.float32))
