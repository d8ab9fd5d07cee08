"""Automatic policies: operations equal Pillow's on photographs, and policies draw what the papers' tables say."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from cnn_jax.data.augment.augmix import augmix
from cnn_jax.data.augment.operations import OPERATIONS, apply_choices
from cnn_jax.data.augment.policies import (
    auto_augment,
    auto_augment_matrices,
    rand_augment,
    rand_augment_matrices,
    trivial_augment,
    trivial_augment_matrices,
)
from cnn_jax.errors import UserError

# The papers' own notation, magnitudes of operations that have none included: probability and magnitude of both steps.
CIFAR10 = """
Invert 1 7 Contrast 2 6 | Rotate 7 2 TranslateX 3 9 | Sharpness 8 1 Sharpness 9 3 | ShearY 5 8 TranslateY 7 9
AutoContrast 5 8 Equalize 9 2 | ShearY 2 7 Posterize 3 7 | Color 4 3 Brightness 6 7 | Sharpness 3 9 Brightness 7 9
Equalize 6 5 Equalize 5 1 | Contrast 6 7 Sharpness 6 5 | Color 7 7 TranslateX 5 8 | Equalize 3 7 AutoContrast 4 8
TranslateY 4 3 Sharpness 2 6 | Brightness 9 6 Color 2 8 | Solarize 5 2 Invert 0 3 | Equalize 2 0 AutoContrast 6 0
Equalize 2 8 Equalize 6 4 | Color 9 9 Equalize 6 6 | AutoContrast 8 4 Solarize 2 8 | Brightness 1 3 Color 7 0
Solarize 4 5 AutoContrast 9 3 | TranslateY 9 9 TranslateY 7 9 | AutoContrast 9 2 Solarize 8 3 | Equalize 8 8 Invert 1 3
TranslateY 7 9 AutoContrast 9 1
"""
IMAGENET = """
Posterize 4 8 Rotate 6 9 | Solarize 6 5 AutoContrast 6 5 | Equalize 8 8 Equalize 6 3 | Posterize 6 7 Posterize 6 6
Equalize 4 7 Solarize 2 4 | Equalize 4 4 Rotate 8 8 | Solarize 6 3 Equalize 6 7 | Posterize 8 5 Equalize 10 2
Rotate 2 3 Solarize 6 8 | Equalize 6 8 Posterize 4 6 | Rotate 8 8 Color 4 0 | Rotate 4 9 Equalize 6 2
Equalize 0 7 Equalize 8 8 | Invert 6 4 Equalize 10 8 | Color 6 4 Contrast 10 8 | Rotate 8 8 Color 10 2
Color 8 8 Solarize 8 7 | Sharpness 4 7 Invert 6 8 | ShearX 6 5 Equalize 10 9 | Color 4 0 Equalize 6 3
Equalize 4 7 Solarize 2 4 | Solarize 6 5 AutoContrast 6 5 | Invert 6 4 Equalize 10 8 | Color 6 4 Contrast 10 8
Equalize 8 8 Equalize 6 3
"""
ENHANCING = ("Brightness", "Color", "Contrast", "Sharpness")
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", *ENHANCING)


def pillow(name, magnitude, image, resample=Image.Resampling.NEAREST):
    """An operation by Pillow, whose AFFINE takes the matrix from output to input."""
    affine = {
        "ShearX": (1, magnitude, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, magnitude, 1, 0),
        "TranslateX": (1, 0, -int(magnitude), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -int(magnitude)),
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], resample)
    if name in ENHANCING:
        return getattr(ImageEnhance, name)(image).enhance(1 + magnitude)
    others = {
        "Identity": lambda: image,
        "Rotate": lambda: image.rotate(magnitude, resample),
        "Posterize": lambda: ImageOps.posterize(image, int(magnitude)),
        "Solarize": lambda: ImageOps.solarize(image, magnitude),
        "AutoContrast": lambda: Image.fromarray(stretched(np.asarray(image))),
        "Equalize": lambda: ImageOps.equalize(image),
        "Invert": lambda: ImageOps.invert(image),
    }
    return others[name]()


def stretched(levels):
    """Pillow's autocontrast in whole numbers: where its float64 quotients should be whole, some come out just below."""
    low, high = (end(levels, axis=(0, 1), keepdims=True).astype(int) for end in (np.min, np.max))
    return np.where(high > low, (levels - low) * 255 // np.maximum(high - low, 1), levels).astype(np.uint8)


def photo(name="china.jpg", *, height, width, top=120, left=300, step=1):
    """uint8 [height, width, 3]: a piece of one of scikit-learn's photographs, every step-th pixel."""
    return load_sample_image(name)[top : top + step * height : step, left : left + step * width : step]


def as_batch(levels, count):
    """The same image `count` times, float32 in [0, 1]."""
    return jnp.tile(jnp.asarray(levels, jnp.float32)[None] / 255, (count, 1, 1, 1))


def as_levels(images):
    """Back to uint8; fails where a value is no multiple of 1/255 in [0, 1]."""
    levels = np.round(np.asarray(images) * 255)
    np.testing.assert_allclose(levels / 255, images, atol=1e-7)
    assert levels.min() >= 0
    assert levels.max() <= 255
    return levels.astype(np.uint8)


MAGNITUDES = {
    **dict.fromkeys(("ShearX", "ShearY"), np.linspace(-0.99, 0.99, 13)),
    **dict.fromkeys(("TranslateX", "TranslateY"), np.linspace(-32, 32, 9)),
    **dict.fromkeys(ENHANCING, np.linspace(-0.99, 0.99, 31)),
    "Rotate": np.linspace(-135, 135, 25),
    "Posterize": range(1, 9),
    "Solarize": np.linspace(0, 255, 10),
}
CHOICES = [(name, float(magnitude)) for name in OPERATIONS for magnitude in MAGNITUDES.get(name, [0])]
PICTURES = {
    "colour, odd size": photo(height=37, width=23),
    "grey": photo("flower.jpg", height=32, width=32)[..., 1:2],
    "dark": photo(height=37, width=23) // 9 + 3,
    "one level": np.full((32, 32, 1), 77, np.uint8),
    "black and white": np.where(photo(height=37, width=23) > 120, 255, 0).astype(np.uint8),
    "two rows": photo(height=2, width=5),
}


def apply_all(levels, interpolation):
    """Every one of CHOICES on the same image."""
    many = jnp.tile(jnp.asarray(levels, jnp.int32)[None], (len(CHOICES), 1, 1, 1))
    rows = jnp.arange(len(CHOICES))[:, None]
    apply = jax.jit(lambda many, rows: apply_choices(many, rows, choices=CHOICES, interpolation=interpolation))
    return np.asarray(apply(many, rows))


@pytest.mark.parametrize("picture", PICTURES)
def test_operations_equal_pillows_in_every_pixel(picture):
    levels = PICTURES[picture]
    image = Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels)
    for (name, magnitude), result in zip(CHOICES, apply_all(levels, "nearest")):
        expected = np.asarray(pillow(name, magnitude, image)).reshape(levels.shape)
        np.testing.assert_array_equal(result, expected, err_msg=f"{name} {magnitude}")


@pytest.mark.parametrize("picture", PICTURES)
def test_autocontrast_is_at_most_a_level_above_pillows_and_only_where_the_exact_result_is_whole(picture):
    levels = PICTURES[picture].astype(int)
    image = Image.fromarray(PICTURES[picture].squeeze(-1) if levels.shape[-1] == 1 else PICTURES[picture])
    above = stretched(levels) - np.asarray(ImageOps.autocontrast(image)).reshape(levels.shape)
    assert set(np.unique(above)) <= {0, 1}
    low, high = levels.min(axis=(0, 1)), levels.max(axis=(0, 1))
    assert not ((above == 1) & ((levels - low) * 255 % np.maximum(high - low, 1) != 0)).any()


@pytest.mark.parametrize("picture", ["colour, odd size", "grey"])
def test_bilinear_interpolation_equals_pillows_but_for_a_level_where_its_result_is_close_to_the_next(picture):
    levels = PICTURES[picture]
    image = Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels)
    for (name, magnitude), result in zip(CHOICES, apply_all(levels, "bilinear")):
        expected = np.asarray(pillow(name, magnitude, image, Image.Resampling.BILINEAR)).reshape(levels.shape)
        # Pillow's places are float64 numbers, ours multiples of 1/65536; both cut the result to whole levels.
        difference = np.abs(result - expected.astype(int))
        assert difference.max() <= 1, (name, magnitude)
        assert (difference > 0).mean() < 0.02, (name, magnitude)


def standard(name, share, size):
    """The magnitude of an operation at a share of the range (Cubuk et al. 2019, Table 6, with torchvision's signs)."""
    height, width = size
    top = {
        "TranslateX": 150 / 331 * width,
        "TranslateY": 150 / 331 * height,
        "Rotate": 30,
        "ShearX": 0.3,
        "ShearY": 0.3,
    }
    if name in ("Posterize", "Solarize"):
        return 8 - round(4 * share) if name == "Posterize" else 255 - 255 * share
    return top.get(name, 0.9) * share


def with_signs(name, magnitude):
    """(name, magnitude) of both signs, where it has one."""
    return [(name, magnitude), (name, -magnitude)] if name in SIGNED else [(name, magnitude)] * 2


def outcomes(levels, chains):
    """Bytes of an image to the probability of getting it, by Pillow, from (probability, operations) pairs."""
    found = collections.Counter()
    for probability, chain in chains:
        image = Image.fromarray(levels)
        for name, magnitude in chain:
            image = pillow(name, magnitude, image)
        found[image.tobytes()] += probability
    return found


def assert_follows(results, expected):
    """Every result is an expected one, and each comes as often as expected."""
    assert abs(sum(expected.values()) - 1) < 1e-9
    seen = collections.Counter(result.tobytes() for result in as_levels(results))
    assert set(seen) <= set(expected)
    observed, wanted = np.array([(seen[key], value * len(results)) for key, value in expected.items()]).T
    # Pools of rare outcomes, so that each is expected five times at least.
    starts, pool = [0], 0.0
    for place, number in enumerate(wanted):
        pool += number
        if pool >= 5 and wanted[place + 1 :].sum() >= 5:
            starts.append(place + 1)
            pool = 0.0
    observed, wanted = np.add.reduceat(observed, starts), np.add.reduceat(wanted, starts)
    # The keys are fixed: this fails for a wrong probability, never by chance.
    assert scipy.stats.chisquare(observed, wanted).pvalue > 1e-3


COUNT = 2000
SMALL = photo(height=16, width=14, step=8, top=0, left=100)


@pytest.fixture(scope="module")
def many_keys():
    return jax.random.split(jax.random.key(5), COUNT)


@pytest.mark.parametrize(("policy", "table"), [("cifar10", CIFAR10), ("imagenet", IMAGENET)])
def test_auto_augment_draws_the_papers_sub_policies(policy, table, many_keys):
    words = [line.split() for line in table.strip().replace("\n", "|").split("|")]
    assert len(words) == 25
    chains = []
    for first, p, m, second, q, n in words:
        steps = []
        for name, probability, magnitude in ((first, int(p) / 10, int(m)), (second, int(q) / 10, int(n))):
            signed = with_signs(name, standard(name, magnitude / 9, SMALL.shape[:2]))
            steps.append([(1 - probability, []), *((probability / 2, [operation]) for operation in signed)])
        chains += [(a * b / 25, x + y) for (a, x), (b, y) in itertools.product(*steps)]
    results = jax.jit(lambda keys, images: auto_augment(keys, images, policy=policy))(many_keys, as_batch(SMALL, COUNT))
    assert_follows(results, outcomes(SMALL, chains))


FOURTEEN = [name for name in OPERATIONS if name != "Invert"]


def test_rand_augment_draws_two_of_fourteen_operations_at_nine_thirtieths(many_keys):
    singles = [
        (1 / 28, operation) for name in FOURTEEN for operation in with_signs(name, standard(name, 0.3, SMALL.shape[:2]))
    ]
    chains = [(a * b, [x, y]) for (a, x), (b, y) in itertools.product(singles, singles)]
    results = jax.jit(rand_augment)(many_keys, as_batch(SMALL, COUNT))
    assert_follows(results, outcomes(SMALL, chains))


def test_trivial_augment_draws_one_operation_of_any_magnitude(many_keys):
    top = {"ShearX": 0.99, "ShearY": 0.99, "TranslateX": 32, "TranslateY": 32, "Rotate": 135}
    chains = []
    for name, place in itertools.product(FOURTEEN, range(31)):
        magnitude = top.get(name, 0.99) * place / 30
        if name in ("Posterize", "Solarize"):
            magnitude = 8 - round(place / 5) if name == "Posterize" else 255 - 8.5 * place
        chains += [(1 / 14 / 31 / 2, [operation]) for operation in with_signs(name, magnitude)]
    results = jax.jit(trivial_augment)(many_keys, as_batch(SMALL, COUNT))
    assert_follows(results, outcomes(SMALL, chains))


def augmix_singles(levels, *, severity, all_operations):
    """Every operation of AugMix with each magnitude and sign, by Pillow: float arrays, all equally likely."""
    height, width = levels.shape[:2]
    found = []
    names = [*FOURTEEN[1:]] if all_operations else [name for name in FOURTEEN[1:] if name not in ENHANCING]
    for name, place in itertools.product(names, range(severity)):
        top = {"TranslateX": width / 3, "TranslateY": height / 3}
        magnitude = top[name] * place / 9 if name in top else standard(name, place / 9, (height, width))
        if name == "Posterize":
            magnitude -= 4
        for operation in with_signs(name, magnitude):
            result = pillow(*operation, Image.fromarray(levels), Image.Resampling.BILINEAR)
            found.append(np.asarray(result, np.float64))
    return np.stack(found)


@pytest.mark.parametrize(("severity", "all_operations"), [(3, True), pytest.param(4, False, marks=pytest.mark.slow)])
def test_augmix_with_one_chain_of_one_operation_is_half_way_to_it_where_shares_are_even(
    severity, all_operations, many_keys
):
    count = 600
    # So large an alpha makes the share 1/2, give or take 0.0004.
    options = {"severity": severity, "width": 1, "depth": 1, "alpha": 1e6, "all_operations": all_operations}
    results = as_levels(
        jax.jit(lambda keys, images: augmix(keys, images, **options))(many_keys[:count], as_batch(SMALL, count))
    )
    singles = augmix_singles(SMALL, severity=severity, all_operations=all_operations)
    mixed = (SMALL + singles) / 2
    distance = np.stack([np.abs(result - mixed).max(axis=(1, 2, 3)) for result in results])
    # Half a level of rounding, half of a level by which bilinear interpolation may differ, and the share's deviation.
    assert distance.min(axis=1).max() <= 1.2
    unique, place = np.unique(singles.reshape(len(singles), -1), axis=0, return_inverse=True)
    seen = np.bincount(place[distance.argmin(axis=1)], minlength=len(unique))
    wanted = np.bincount(place, minlength=len(unique)) * count / len(singles)
    assert scipy.stats.chisquare(seen, wanted).pvalue > 1e-3


@pytest.mark.slow
def test_augmix_draws_even_shares_and_one_to_three_operations():
    """With the lowest severity all operations but three leave the image: the share and the chain can be told."""
    count = 1500
    keys = jax.random.split(jax.random.key(2), count)
    levels = (SMALL // 2 + 20).astype(np.uint8)
    mix = jax.jit(lambda keys, images: augmix(keys, images, severity=1, width=1, all_operations=False))
    results = as_levels(mix(keys, as_batch(levels, count))).astype(np.float64)
    # Six of nine operations, and those drawn for steps that a shorter chain does not have, do nothing.
    active = {"Posterize": 4, "AutoContrast": 0, "Equalize": 0}
    expected, images = collections.Counter(), {}
    for depth in (1, 2, 3):
        for chain in itertools.product([*active, *["Identity"] * 6], repeat=depth):
            image = Image.fromarray(levels)
            for name in chain:
                image = pillow(name, active.get(name, 0), image)
            images[image.tobytes()] = np.asarray(image, np.float64)
            expected[image.tobytes()] += 1 / 3 / 9**depth
    seen, shares = collections.Counter(), []
    for result in results:
        if np.array_equal(result, levels):
            seen[levels.tobytes()] += 1
            continue
        fits = {}
        for name, image in images.items():
            way = image - levels
            if way.any():
                share = np.clip(((result - levels) * way).sum() / (way**2).sum(), 0, 1)
                fits[name] = (np.abs(levels + share * way - result).mean(), share)
        name = min(fits, key=lambda name: fits[name][0])
        seen[name] += 1
        shares.append(fits[name][1])
    # The chain can be mistaken where it has next to no share.
    unchanged = expected[levels.tobytes()]
    assert abs(seen[levels.tobytes()] / count - unchanged) < 0.05
    posterized = pillow("Posterize", 4, Image.fromarray(levels)).tobytes()
    assert abs(seen[posterized] / count - expected[posterized]) < 0.03
    # Beta(1, 1) is even.
    assert scipy.stats.kstest(shares, "uniform").statistic < 0.08


@pytest.mark.slow
def test_mixtures_of_what_is_left_as_it_is_are_the_image():
    levels = np.full((8, 8, 3), 128, np.uint8)
    keys = jax.random.split(jax.random.key(0), 40)
    results = augmix(keys, as_batch(levels, 40), severity=1, width=4, all_operations=False)
    np.testing.assert_array_equal(as_levels(results), np.stack([levels] * 40))


POLICIES = {
    "cifar10": lambda keys, images: auto_augment(keys, images, policy="cifar10"),
    "svhn": lambda keys, images: auto_augment(keys, images, policy="svhn", interpolation="bilinear"),
    "rand": rand_augment,
    "trivial": trivial_augment,
    "augmix": augmix,
}


# The fast suite has the same for the whole table of augmentations, in test_augment.py.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels"), [("cifar10", 1), ("svhn", 3), ("rand", 3), ("trivial", 1), ("augmix", 3)]
)
def test_an_example_depends_on_its_own_key_alone(name, channels):
    policy = jax.jit(POLICIES[name])
    images = jnp.stack([as_batch(photo(height=17, width=12, left=40 * i)[..., :channels], 1)[0] for i in range(6)])
    keys = jax.random.split(jax.random.key(3), 6)
    together = policy(keys, images)
    assert together.shape == images.shape
    assert together.dtype == jnp.float32
    as_levels(together)
    assert not np.array_equal(together, images)
    for size in (1, 3):
        parts = [policy(keys[start : start + size], images[start : start + size]) for start in range(0, 6, size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)


MATRICES = {
    "cifar10": lambda keys, size: auto_augment_matrices(keys, size=size, policy="cifar10"),
    "rand": lambda keys, size: rand_augment_matrices(keys, size=size, operations=2, magnitude=9, bins=31),
    "trivial": lambda keys, size: trivial_augment_matrices(keys, size=size, bins=31),
}


@pytest.mark.parametrize(
    "name", ["rand", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cifar10", "trivial"))]
)
def test_matrices_say_where_pixels_have_gone(name):
    count, size = 160, (60, 72)
    # A square between two levels, so that no operation makes it equal to what is around it, or darker than outside.
    levels = np.full((*size, 3), 40, np.uint8)
    levels[22:31, 40:49] = 100
    keys = jax.random.split(jax.random.key(9), count)
    results = as_levels(jax.jit(POLICIES[name])(keys, as_batch(levels, count)))[..., 0].astype(int)
    matrices = np.asarray(jax.jit(lambda keys: MATRICES[name](keys, size))(keys))
    moved = checked = 0
    for result, matrix in zip(results, matrices):
        y, x, _ = np.linalg.solve(matrix.astype(np.float64), [26, 44, 1])
        if not (10 < y < size[0] - 10 and 10 < x < size[1] - 10):
            continue
        moved += abs(y - 26) + abs(x - 44) > 0.5
        # Outside is black or, inverted, white; the square is what the level next to its own centre shows.
        near = result[round(y) - 9 : round(y) + 10, round(x) - 9 : round(x) + 10]
        square = np.argwhere(near == result[round(y), round(x)])
        # Another operation may have cut a part off, or made all levels equal.
        if not 70 < len(square) < 95:
            continue
        checked += 1
        np.testing.assert_allclose(square.mean(axis=0) - 9, [y - round(y), x - round(x)], atol=0.75)
    assert moved > count // 20
    assert checked > count // 2


def test_other_shapes_and_magnitudes_are_refused():
    keys = jax.random.split(jax.random.key(0), 2)
    for shape in [(2, 8, 1), (2, 8, 8, 2), (2, 4, 4, 4, 3)]:
        with pytest.raises(UserError, match=r"1 or 3 channels\], not \[2, "):
            trivial_augment(keys, jnp.zeros(shape))
    with pytest.raises(UserError, match="magnitude 31 is none of 31 bins; set it to 30 or less"):
        rand_augment(keys, jnp.zeros((2, 8, 8, 3)), magnitude=31)
