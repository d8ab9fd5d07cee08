"""Wrappers: exact counts, no example twice, and choices that depend on seed and example alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.data.sources import Source, check_disjoint, open_source
from cnn_jax.data.wrappers import (
    WRAPPERS,
    apply_wrappers,
    class_subset,
    fold,
    fraction,
    label_noise,
    long_tail,
    shuffled_labels,
)
from cnn_jax.errors import UserError
from cnn_jax.train.config_node import check_node


@st.composite
def splits(draw):
    """Indices of a slice of some base split, ascending with gaps, and labels."""
    labels = draw(st.lists(st.integers(0, 4), min_size=5, max_size=80))
    start = draw(st.integers(0, 50))
    return np.arange(start, start + 2 * len(labels), 2, dtype=np.int64), np.array(labels, np.int32)


SEEDS = st.integers(0, 2**63 - 1)
EXAMPLES = settings(max_examples=40, deadline=None)


def counts(labels):
    return dict(zip(*(values.tolist() for values in np.unique(labels, return_counts=True))))


@EXAMPLES
@given(splits(), SEEDS, st.integers(2, 5))
def test_folds_divide_everything_and_are_stratified(split, seed, folds):
    indices, labels = split
    held_out = []
    for number in range(folds):
        train, train_labels = fold(indices, labels, folds=folds, fold=number, part="train", seed=seed)
        validation, validation_labels = fold(indices, labels, folds=folds, fold=number, part="validation", seed=seed)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), indices)
        for chosen, names in ((train, train_labels), (validation, validation_labels)):
            assert (np.diff(chosen) > 0).all()
            np.testing.assert_array_equal(names, labels[np.searchsorted(indices, chosen)])
        held_out.append((validation, validation_labels))
    np.testing.assert_array_equal(np.sort(np.concatenate([chosen for chosen, _ in held_out])), indices)
    sizes = [len(chosen) for chosen, _ in held_out]
    assert max(sizes) - min(sizes) <= 1
    for label in np.unique(labels):
        each = [int((names == label).sum()) for _, names in held_out]
        assert max(each) - min(each) <= 1


@EXAMPLES
@given(splits(), SEEDS, st.data())
def test_subsets_have_their_numbers_and_are_nested(split, seed, data):
    indices, labels = split
    smallest = min(counts(labels).values())
    per_class = data.draw(st.integers(1, smallest))
    chosen, names = class_subset(indices, labels, per_class=per_class, seed=seed)
    assert counts(names) == dict.fromkeys(counts(labels), per_class)
    larger, _ = class_subset(indices, labels, per_class=smallest, seed=seed)
    assert set(chosen.tolist()) <= set(larger.tolist()) <= set(indices.tolist())
    share = data.draw(st.floats(0.01, 1))
    _, some = fraction(indices, labels, share=share, seed=seed)
    assert counts(some) == {label: max(1, round(share * n)) for label, n in counts(labels).items()}


@EXAMPLES
@given(splits(), SEEDS, st.floats(0, 1), st.sampled_from(["symmetric", "pair"]))
def test_noise_changes_exactly_its_share_of_each_class(split, seed, rate, kind):
    indices, labels = split
    present = np.unique(labels)
    if len(present) < 2:
        with pytest.raises(UserError, match="there is no other class"):
            label_noise(indices, labels, rate=rate, seed=seed)
        return
    before = labels.copy()
    same, noisy = label_noise(indices, labels, rate=rate, kind=kind, seed=seed)
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(same, indices)
    assert set(noisy.tolist()) <= set(present.tolist())
    wrong = noisy != labels
    for label, count in counts(labels).items():
        assert wrong[labels == label].sum() == round(rate * count)
    if kind == "pair":
        following = dict(zip(present.tolist(), np.roll(present, -1).tolist()))
        assert all(following[old] == new for old, new in zip(labels[wrong].tolist(), noisy[wrong].tolist()))


def test_shuffled_labels_are_the_same_labels_and_tell_nothing():
    labels = np.repeat(np.arange(5, dtype=np.int32), 4000)
    indices, shuffled = shuffled_labels(np.arange(20_000), labels)
    assert indices.tolist() == list(range(20_000))
    assert np.bincount(shuffled).tolist() == [4000] * 5
    pairs = np.bincount(5 * labels + shuffled, minlength=25)
    assert ((pairs - 800) ** 2 / 800).sum() < 39.3  # 16 degrees of freedom, p = 0.001
    assert np.array_equal(shuffled, shuffled_labels(np.arange(20_000), labels)[1])
    assert not np.array_equal(shuffled, shuffled_labels(np.arange(20_000), labels, seed=1)[1])


def test_symmetric_noise_takes_every_other_class_alike():
    labels = np.repeat(np.arange(5, dtype=np.int32), 4000)
    _, noisy = label_noise(np.arange(20_000), labels, rate=0.5)
    for label in range(5):
        others = np.bincount(noisy[labels == label], minlength=5)
        assert others[label] == 2000
        expected = 500
        chi_square = ((np.delete(others, label) - expected) ** 2 / expected).sum()
        assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


@EXAMPLES
@given(splits(), SEEDS, st.randoms(use_true_random=False))
def test_choices_do_not_depend_on_the_order_of_the_split(split, seed, random):
    indices, labels = split
    order = list(range(len(indices)))
    random.shuffle(order)
    nodes = [
        {"name": "fold", "folds": 2, "fold": 1, "part": "train", "seed": seed},
        {"name": "fraction", "share": 0.6, "seed": seed},
        {"name": "long_tail", "ratio": 3.0, "seed": seed},
    ]
    for node in nodes:
        chosen, names = apply_wrappers(indices, labels, [node])
        others, other_names = apply_wrappers(indices[order], labels[order], [node])
        assert dict(zip(chosen.tolist(), names.tolist())) == dict(zip(others.tolist(), other_names.tolist()))


def test_a_long_tail_has_the_profile_of_the_paper():
    """Cui et al. 2019: n_k = n mu^k, so that the largest class is `ratio` times the smallest; CIFAR-10-LT's numbers."""
    labels = np.tile(np.arange(10, dtype=np.int32), 5000)
    _, names = long_tail(np.arange(50_000), labels, ratio=100.0)
    # As in the released code of LDAM-DRW and Balanced Softmax for CIFAR-10-LT-100.
    assert np.bincount(names).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    _, same = long_tail(np.arange(50_000), labels, ratio=1.0)
    np.testing.assert_array_equal(same, labels)


def test_a_long_tail_of_unequal_classes_keeps_what_there_is():
    labels = np.repeat(np.arange(3, dtype=np.int32), [100, 5, 60])
    _, names = long_tail(np.arange(165), labels, ratio=4.0)
    assert np.bincount(names).tolist() == [100, 5, 25]
    _, alone = long_tail(np.arange(7), np.zeros(7, np.int32), ratio=10.0)
    assert len(alone) == 7


def test_other_seeds_and_other_wrappers_choose_otherwise():
    indices, labels = np.arange(1000), np.zeros(1000, np.int32)
    one, two = (set(fraction(indices, labels, share=0.5, seed=seed)[0].tolist()) for seed in (0, 1))
    other = set(class_subset(indices, labels, per_class=500)[0].tolist())
    for a, b in ((one, two), (one, other)):
        assert 180 < len(a & b) < 320  # 250 are expected of independent choices


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "fold", "folds": 3, "fold": 3, "part": "train"}, "fold is 3; 3 folds are counted from 0 to 2"),
        ({"name": "fold", "folds": 11, "fold": 3, "part": "train"}, "11 folds of 10 examples"),
        ({"name": "class_subset", "per_class": 5}, "class 1 has 3 examples"),
    ],
)
def test_what_does_not_suit_the_data_is_named(node, message):
    labels = np.array([0] * 7 + [1] * 3, np.int32)
    source = Source(
        "set", ("a", "b"), {"train": 10}, lambda _, a, b: (np.zeros((b - a, 2, 2, 1), np.uint8), labels[a:b])
    )
    with pytest.raises(UserError, match=message) as caught:
        source.select("train", [node])
    assert str(caught.value).startswith("set/train | ")


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"name": "fold", "folds": 1, "fold": 0, "part": "train"}, "folds"),
        ({"name": "fold", "folds": 2, "fold": 0}, "part"),
        ({"name": "label_noise", "rate": 1.5}, "rate"),
        ({"name": "label_noise", "rate": 0.5, "kind": "asymmetric"}, "kind"),
        ({"name": "long_tail", "ratio": 0.5}, "ratio"),
        ({"name": "fraction", "share": 0.0}, "share"),
        ({"name": "class_subset", "per_class": 3, "seed": -1}, "seed"),
    ],
)
def test_options_out_of_range_are_refused(node, key):
    with pytest.raises(UserError, match=rf"config\.w\.{key}"):
        check_node("config.w", node, WRAPPERS, given=("indices", "labels"))


@pytest.fixture(scope="module")
def digits():
    return open_source("sklearn", "digits")


def parts(digits, number, folds=5, spec="train"):
    node = {"name": "fold", "folds": folds, "fold": number, "seed": 0}
    return {part: digits.load(spec, wrappers=[{**node, "part": part}]) for part in ("train", "validation")}


def test_folds_of_one_split_are_disjoint_and_others_are_refused(digits):
    check_disjoint(parts(digits, 0))
    check_disjoint({"a": parts(digits, 0)["validation"], "b": parts(digits, 1)["validation"]})
    with pytest.raises(UserError, match=r"splits\.a and data\.splits\.b share examples.*fold\(folds=5"):
        check_disjoint({"a": parts(digits, 0)["train"], "b": parts(digits, 1)["validation"]})
    with pytest.raises(UserError, match="share examples"):
        check_disjoint({"a": digits.load("train[:10]"), "b": digits.load("train[9:20]")})
    check_disjoint({"a": digits.load("train[:10]"), "b": digits.load("train[10:20]"), "c": digits.load("test")})
    # Selections, of which nothing is loaded, are compared alike.
    with pytest.raises(UserError, match="share examples"):
        check_disjoint({"a": digits.select("train[:10]", []), "b": digits.load("train[9:20]")})


def test_selections_and_loaded_splits_agree_and_say_what_they_are(digits):
    wrappers = [
        {"name": "class_subset", "per_class": 4, "seed": 1},
        {"name": "label_noise", "rate": 0.5, "kind": "pair", "seed": 2},
    ]
    chosen, loaded = digits.select("train[100:]", wrappers), digits.load("train[100:]", wrappers=wrappers)
    assert chosen.origin == loaded.origin
    assert chosen.origin == (
        "sklearn/digits/train[100:] | class_subset(per_class=4, seed=1) | label_noise(rate=0.5, kind='pair', seed=2)"
    )
    assert chosen.split == "train"
    assert len(chosen) == 40
    assert chosen.indices.min() >= 100
    np.testing.assert_array_equal(chosen.labels, loaded.labels)
    np.testing.assert_array_equal(loaded.base[1], chosen.indices)
    whole = digits.load("train")
    np.testing.assert_array_equal(loaded.images, whole.images[chosen.indices])
    assert (loaded.labels != whole.labels[chosen.indices]).sum() == 20
    assert loaded.sha256() != digits.load("train[100:]", wrappers=wrappers[:1]).sha256()
    examples = digits.examples("train")
    for index, image in zip(chosen.indices[:5].tolist(), loaded.images):
        np.testing.assert_array_equal(examples[index].image, image)
