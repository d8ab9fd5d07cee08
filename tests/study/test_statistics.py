"""Intervals against SciPy's t tests and hand-computed bootstraps; Holm's method against published examples."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import UserError
from cnn_jax.study.outcome import Interval
from cnn_jax.study.statistics import bootstrap_interval, holm, holm_levels, t_interval

STUDIES = 1000
SEEDS = 5
LEVEL = 1 - 0.95
# Student's own data (1908, Biometrika 6:20): hours of sleep that two drugs gained the same ten patients; R's `sleep`.
DEXTRO = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
LAEVO = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def normal(*shape, effect=0.0, seed=0):
    return np.random.default_rng(seed).normal(effect, 1.0, shape)


def within_binomial(count, rate, *, n=STUDIES):
    """Whether a count is one that chance gives in 999 of 1,000 tries, either side."""
    return scipy.stats.binomtest(int(count), n, rate).pvalue > 0.001


def at_most_binomial(count, rate, *, n=STUDIES):
    return scipy.stats.binomtest(int(count), n, rate, alternative="greater").pvalue > 0.001


def test_students_sleep_data_give_the_numbers_that_r_documents():
    # t.test(extra ~ group, data = sleep, paired = TRUE): t = -4.0621, df = 9, p = 0.002833, -2.4598858 to -0.7001142.
    found = t_interval([a - b for a, b in zip(DEXTRO, LAEVO)], confidence=0.95)
    assert found.n == 10
    np.testing.assert_allclose(found.mean, -1.58, rtol=1e-12)
    np.testing.assert_allclose([found.low, found.high], [-2.4598858, -0.7001142], atol=5e-8)
    np.testing.assert_allclose(found.p, 0.002833, atol=5e-7)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 3, 5, 50])
def test_the_t_interval_is_scipys_paired_t_test(n, confidence):
    one, other = normal(2, n, effect=0.3, seed=n)
    test = scipy.stats.ttest_rel(one, other)
    low, high = test.confidence_interval(confidence)
    found = t_interval((one - other).tolist(), confidence=confidence)
    np.testing.assert_allclose([found.mean, found.low, found.high], [np.mean(one - other), low, high], rtol=1e-10)
    np.testing.assert_allclose(found.p, test.pvalue, rtol=1e-10)


@pytest.mark.parametrize("interval", [t_interval, bootstrap_interval])
def test_too_few_values_and_values_without_spread(interval):
    for values, expected in (
        ([], (math.nan, math.nan, math.nan, math.nan, 0)),
        ([0.5], (0.5, math.nan, math.nan, math.nan, 1)),
        ([0.1] * 3, (0.1, 0.1, 0.1, 0.0, 3)),
        ([-2.0] * 2, (-2.0, -2.0, -2.0, 0.0, 2)),
        ([0.0] * 5, (0.0, 0.0, 0.0, 1.0, 5)),
    ):
        found = interval(values, confidence=0.95)
        np.testing.assert_equal([found.mean, found.low, found.high, found.p, found.n], expected)


def test_values_whose_squares_are_zero_have_the_interval_of_larger_ones():
    tiny, large = (t_interval([0.0, size, 3 * size], confidence=0.95) for size in (1e-200, 1.0))
    assert tiny.p == large.p
    np.testing.assert_allclose([tiny.low, tiny.high], [1e-200 * large.low, 1e-200 * large.high], rtol=1e-12)


@pytest.mark.parametrize("interval", [t_interval, bootstrap_interval])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(interval, value):
    with pytest.raises(ValueError, match=r"finite values, got \[1\.0, "):
        interval([1.0, value, 2.0], confidence=0.95)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_interval([1.0, 2.0], confidence=confidence)


@pytest.mark.parametrize("interval", [t_interval, bootstrap_interval])
@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), order=st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_a_bit_and_a_turned_sign_turns_the_interval(interval, values, order):
    shuffled = values.copy()
    order.shuffle(shuffled)
    found = interval(values, confidence=0.95)
    assert interval(shuffled, confidence=0.95) == found
    assert found.low <= found.mean <= found.high
    if interval is t_interval:  # resampling is not symmetric
        turned = interval([-value for value in values], confidence=0.95)
        np.testing.assert_allclose(
            [-turned.high, -turned.low, turned.p], [found.low, found.high, found.p], rtol=1e-9, atol=1e-9
        )


def test_the_bootstrap_comes_near_the_exact_distribution_of_all_resamples():
    # 4 values have 4^4 = 256 resamples, each as likely; their quantiles are the limit of many draws.
    values = [-1.0, 0.5, 2.0, 4.0]
    means = np.sort([np.mean(drawn) for drawn in itertools.product(values, repeat=4)])
    found = bootstrap_interval(values, confidence=0.8, resamples=100_000)
    assert abs(found.low - np.quantile(means, 0.1)) <= 0.125  # two of the steps between means
    assert abs(found.high - np.quantile(means, 0.9)) <= 0.125
    np.testing.assert_allclose(found.p, 2 * np.mean(means <= 0), rtol=0.05)
    assert found.mean == 1.375


def test_the_bootstrap_comes_near_scipys():
    values = normal(12, effect=0.4).tolist()
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap_interval(values, confidence=0.95, resamples=50_000)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], atol=0.01)


@pytest.mark.parametrize("values", [normal(6, effect=0.8, seed=seed).tolist() for seed in range(12)])
def test_the_bootstraps_p_is_the_level_at_which_its_interval_touches_zero(values):
    p = bootstrap_interval(values, confidence=0.95, resamples=999).p
    for confidence, excludes in ((1 - p * 1.001, True), (1 - p * 0.999, False)):
        if confidence > 0 and (1 - confidence) * 1000 >= 2:
            found = bootstrap_interval(values, confidence=confidence, resamples=999)
            assert (found.low > 0 or found.high < 0) == excludes


def test_another_seed_of_the_bootstrap_draws_others():
    values = normal(8).tolist()
    assert bootstrap_interval(values, confidence=0.95) == bootstrap_interval(values, confidence=0.95, seed=0)
    assert bootstrap_interval(values, confidence=0.95) != bootstrap_interval(values, confidence=0.95, seed=1)


def test_a_confidence_that_the_resamples_cannot_reach_is_an_error_that_names_enough():
    with pytest.raises(UserError, match=r"100 resamples .* 0\.999.* take (\d+) resamples") as caught:
        bootstrap_interval([1.0, 2.0], confidence=0.999, resamples=100)
    enough = int(str(caught.value).split("take ")[1].split()[0])
    assert isinstance(bootstrap_interval([1.0, 2.0], confidence=0.999, resamples=enough), Interval)


# Benjamini & Hochberg 1995 (J. R. Statist. Soc. B 57:295, section 3.2): 15 outcomes of a trial of thrombolysis. Both
# Bonferroni's and Hochberg's method reject the first three at 0.05, and Holm's lies between them.
BENJAMINI_HOCHBERG = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459),
    *(0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
]  # fmt: skip


def test_holm_rejects_what_the_paper_says():
    assert [p < 0.05 for p in holm(BENJAMINI_HOCHBERG)] == [True] * 3 + [False] * 12


def test_holm_adjusts_as_sas_documents():
    # SAS/STAT 12.1 User's Guide, PROC MULTTEST, "Inputting Raw p-Values": stepdown Bonferroni of 24 raw p-values.
    raw = [
        *(0.28282, 0.30688, 0.71022, 0.77175, 0.78180, 0.88581, 0.54685, 0.84978, 0.24228, 0.58977, 0.03498, 0.41607),
        *(0.31631, 0.05254, 0.45061, 0.75758, 0.12496, 0.49485, 0.21572, 0.50505, 0.94372, 0.81260, 0.77596, 0.36889),
    ]
    expected = [1.0] * 24
    expected[10] = 0.8395
    np.testing.assert_allclose(holm(raw), expected, atol=5e-5)


@pytest.mark.parametrize(
    ("raw", "adjusted", "levels"),
    [
        # By hand: 4 × 0.005, 3 × 0.01, 2 × 0.03, and 0.04 is raised to its predecessor's.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02], [0.05 / 3, 0.025, 0.025, 0.0125]),
        ([0.04], [0.04], [0.05]),
        ([0.03, 0.03], [0.06, 0.06], [0.025, 0.025]),
        ([0.001, 0.03], [0.002, 0.03], [0.025, 0.05]),
        ([1.0, 0.7, 0.6], [1.0, 1.0, 1.0], [0.05 / 3] * 3),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.05 / 3, 0.025, 0.05]),
        ([], [], []),
    ],
)
def test_holm_by_hand(raw, adjusted, levels):
    np.testing.assert_allclose(holm(raw), adjusted, rtol=1e-12)
    np.testing.assert_allclose(holm_levels(raw, level=0.05), levels, rtol=1e-12)


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_a_p_is_below_its_level_where_the_adjusted_one_is_below_the_level(raw, level):
    adjusted, levels = holm(raw), holm_levels(raw, level=level)
    for p, adjusted_p, own in zip(raw, adjusted, levels):
        assert p <= adjusted_p <= min(1.0, len(raw) * p)
        assert level / len(raw) <= own <= level
        if not math.isclose(adjusted_p, level, rel_tol=1e-9):
            assert (p < own) == (adjusted_p < level)


@pytest.mark.parametrize("p", [math.nan, -0.01, 1.01])
def test_what_is_no_probability_is_refused(p):
    for adjust in (holm, lambda values: holm_levels(values, level=0.05)):
        with pytest.raises(ValueError, match="is no probability"):
            adjust([0.5, p])


@pytest.mark.parametrize("effect", [0.5, 1.0, 2.0])
def test_the_t_interval_detects_an_effect_as_often_as_its_power_says(effect):
    # Cohen's d with 5 pairs; the power is a tail of the noncentral t distribution.
    critical = scipy.stats.t.isf(LEVEL / 2, SEEDS - 1)
    shifted = scipy.stats.nct(SEEDS - 1, effect * math.sqrt(SEEDS))
    power = shifted.sf(critical) + shifted.cdf(-critical)
    found = [t_interval(row, confidence=0.95) for row in normal(STUDIES, SEEDS, effect=effect).tolist()]
    assert within_binomial(sum(each.p < LEVEL for each in found), power)
    assert within_binomial(sum(each.low <= effect <= each.high for each in found), 0.95)


@pytest.mark.parametrize("comparisons", [1, 6])
def test_a_study_without_effect_is_called_different_at_most_at_the_nominal_rate(comparisons):
    # The variants share the baseline, so their differences correlate, as they do in studies.
    runs = normal(STUDIES, comparisons + 1, SEEDS, seed=comparisons)
    differences = (runs[:, 1:] - runs[:, :1]).tolist()
    p_values = [[t_interval(values, confidence=0.95).p for values in study] for study in differences]
    corrected = sum(min(holm(study)) < LEVEL for study in p_values)
    assert at_most_binomial(corrected, LEVEL)
    if comparisons == 1:
        assert within_binomial(corrected, LEVEL)
    else:  # Without correction it would be several times as often.
        assert sum(min(study) < LEVEL for study in p_values) > 2.5 * LEVEL * STUDIES


@pytest.mark.parametrize(("comparisons", "rate"), [(1, 0.157), (3, None)])
def test_the_bootstrap_of_five_seeds_is_wrong_as_often_as_its_docstring_says(comparisons, rate):
    differences = normal(STUDIES, comparisons, SEEDS, seed=7).tolist()
    p_values = [
        [bootstrap_interval(values, confidence=0.95, resamples=2000).p for values in study] for study in differences
    ]
    wrong = sum(min(holm(study)) < LEVEL for study in p_values)
    if rate is not None:
        assert within_binomial(wrong, rate)
    else:  # Independent: 11.1 % of the p are below 0.05 / 3.
        assert within_binomial(wrong, 1 - (1 - 0.111) ** comparisons)
    assert not at_most_binomial(wrong, LEVEL)
