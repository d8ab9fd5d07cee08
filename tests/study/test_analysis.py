"""What is concluded from rows: measures, paired differences, every branch of the rule, sentences, and error rates."""

import math
import random
import re

import jaxtyping
import numpy as np
import pytest
import scipy.stats

from cnn_jax.errors import UserError
from cnn_jax.study.analysis import analyse, measure_values
from cnn_jax.study.outcome import RunRow
from cnn_jax.study.spec import Measure, check_study, variants_of

SEEDS = (0, 1, 2, 3, 4)
SHAPE = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / 100
HALF = 0.0196  # of SHAPE's 95 % interval: t(4) 2.776 × 0.01581 / √5 = 0.01963
STUDIES = 1000
LEVEL = 0.05


def make_study(*comparisons, variants=("wide",), measures=None, **changes):
    comparisons = comparisons or ({"variant": "wide"},)
    return check_study(
        {
            "id": "c99",
            "title": "Width",
            "claim": "Wider is better.",
            "baseline": {"model": {"name": "mlp"}, "data": {"name": "digits"}},
            "variants": {name: {"model.width": index} for index, name in enumerate(variants)},
            "seeds": SEEDS,
            "measures": measures or {"test/accuracy": {}},
            "comparisons": [{"measure": next(iter(measures or {"test/accuracy": {}})), **each} for each in comparisons],
            **changes,
        }
    )


def make_rows(measure="test/accuracy", **variants):
    """Rows of variants, each with its values in the order of the seeds; a text is a status."""
    return [
        RunRow(
            variant.replace("_", " "), seed, *((value,) if isinstance(value, str) else ("completed", {measure: value}))
        )
        for variant, values in variants.items()
        for seed, value in zip(SEEDS, values)
    ]


def compare(differences, *, baseline=0.9, **comparison):
    """The one comparison of a study with these differences on its seeds."""
    base = [baseline] * len(differences)
    wide = [baseline + float(value) for value in differences]
    return analyse(make_study({"variant": "wide", **comparison}), make_rows(baseline=base, wide=wide))


def warnings_of(study, rows, pattern):
    return [warning for warning in analyse(study, rows).warnings if re.search(pattern, warning)]


RULE = [
    # claim, mean, smallest, verdict; the interval is the mean ± 0.0196.
    ("greater", 0.03, 0.0, "supported"),
    ("greater", 0.03, 0.02, "supported"),
    ("greater", 0.03, 0.03, "supported"),
    ("greater", 0.03, 0.04, "inconclusive"),  # there is an effect, and whether it matters is open
    ("greater", 0.03, 0.06, "depends"),  # there is an effect, and none that matters
    ("greater", 0.01, 0.0, "inconclusive"),
    ("greater", 0.01, 0.005, "inconclusive"),  # large enough, but it may be 0
    ("greater", 0.01, 0.02, "inconclusive"),
    ("greater", 0.01, 0.04, "refuted"),
    ("greater", 0.0, 0.0, "inconclusive"),
    ("greater", 0.0, 0.03, "refuted"),
    ("greater", -0.01, 0.0, "inconclusive"),
    ("greater", -0.01, 0.005, "inconclusive"),
    ("greater", -0.01, 0.02, "refuted"),
    ("greater", -0.03, 0.0, "refuted"),
    ("greater", -0.03, 0.02, "refuted"),
    ("equal", 0.0, 0.03, "supported"),
    ("equal", 0.0, 0.019, "inconclusive"),
    ("equal", 0.01, 0.03, "supported"),
    ("equal", 0.01, 0.029, "inconclusive"),
    ("equal", 0.03, 0.06, "supported"),  # there is an effect, but none that matters
    ("equal", 0.03, 0.04, "inconclusive"),
    ("equal", 0.03, 0.03, "refuted"),
    ("equal", 0.03, 0.02, "refuted"),
    ("equal", 0.01, 0.005, "inconclusive"),
    ("not_less", 0.0, 0.03, "supported"),
    ("not_less", 0.03, 0.001, "supported"),  # an effect the other way is no loss
    ("not_less", 0.0, 0.019, "inconclusive"),
    ("not_less", -0.01, 0.03, "supported"),
    ("not_less", -0.03, 0.06, "supported"),  # there is a loss, but none that matters
    ("not_less", -0.03, 0.04, "inconclusive"),
    ("not_less", -0.03, 0.03, "refuted"),
    ("not_less", -0.01, 0.005, "inconclusive"),
]


@pytest.mark.parametrize(("claim", "mean", "smallest", "verdict"), RULE)
def test_the_rule_of_the_verdict(claim, mean, smallest, verdict):
    found = compare(SHAPE + mean, claim=claim, smallest=smallest)
    np.testing.assert_allclose(
        [found.tested[0].interval.low, found.tested[0].interval.high], [mean - HALF, mean + HALF], atol=5e-5
    )
    assert found.tested[0].verdict == verdict
    assert found.verdict == verdict
    assert found.sentence.startswith(f"{verdict.capitalize()}: ")
    mirrored = {"greater": "less", "equal": "equal", "not_less": "not_greater"}[claim]
    assert compare(-SHAPE - mean, claim=mirrored, smallest=smallest).verdict == verdict


@pytest.mark.parametrize(
    ("claim", "smallest", "one", "other", "verdict"),
    [
        # No spread: the numbers of parameters, or five equal accuracies, whose differences are equal up to rounding.
        ("greater", 0.0, [0.93] * 5, [0.92] * 5, "supported"),
        ("greater", 0.01, [0.93, 0.94, 0.93, 0.94, 0.93], [0.92, 0.93, 0.92, 0.93, 0.92], "supported"),
        ("greater", 0.01, [0.94] * 5, [0.93] * 5, "supported"),  # 0.009999999999999898
        ("equal", 0.01, [0.94] * 5, [0.93] * 5, "refuted"),
        ("greater", 0.02, [0.93] * 5, [0.92] * 5, "depends"),
        ("less", 0.0, [100.0] * 5, [200.0] * 5, "supported"),
        ("greater", 0.0, [0.9] * 5, [0.9] * 5, "inconclusive"),
        ("greater", 0.01, [0.9] * 5, [0.9] * 5, "refuted"),
        ("equal", 0.01, [0.9] * 5, [0.9] * 5, "supported"),
    ],
)
def test_differences_without_spread(claim, smallest, one, other, verdict):
    study = make_study({"variant": "wide", "claim": claim, "smallest": smallest})
    assert analyse(study, make_rows(wide=one, baseline=other)).verdict == verdict


def test_a_contrast_that_is_zero_but_for_rounding_is_zero():
    assert 0.3 - 0.1 - 0.2 != 0
    study = make_study({"contrast": {"a": 1.0, "b": -1.0, "c": -1.0}}, variants=("a", "b", "c"))
    found = analyse(study, make_rows(baseline=[0.5] * 5, a=[0.3] * 5, b=[0.1] * 5, c=[0.2] * 5))
    assert found.tested[0].interval.p == 1.0
    assert found.verdict == "inconclusive"


def test_a_single_pair_or_none_decides_nothing():
    for values, n in (([0.5, "diverged", "failed", "missing", "failed"], 1), (["failed"] * 5, 0)):
        found = analyse(make_study(), make_rows(baseline=[0.1] * 5, wide=values))
        tested = found.tested[0]
        assert (found.verdict, tested.interval.n, tested.left_out) == ("inconclusive", n, 5 - n)
        assert all(map(math.isnan, (tested.interval.p, tested.adjusted_p, tested.adjusted.low)))
        assert "a test needs two" in found.sentence


@pytest.mark.parametrize("claim", ["equal", "not_less", "not_greater"])
def test_no_difference_without_a_size_is_an_error_that_names_the_fix(claim):
    message = rf"study\.comparisons\.0\.smallest is 0; claim '{claim}' needs what counts as no difference"
    with pytest.raises(UserError, match=message):
        compare(SHAPE, claim=claim)


CLEAR = {"up": 0.2, "higher": 0.3, "down": -0.2, "lower": -0.3, "flat": 0.001, "level": -0.001}


@pytest.mark.parametrize(
    ("primary", "others", "verdict", "sentence"),
    [
        (["up", "higher"], [], "supported", "Supported in both comparisons: up (test accuracy 0.20 higher) and higher"),
        (["down", "lower"], [], "refuted", "Refuted in both comparisons: down (test accuracy 0.20 lower) and lower"),
        (["flat", "level"], [], "inconclusive", "Inconclusive in both comparisons: flat"),
        (
            ["up", "down"],
            [],
            "depends",
            "Depends: supported for up (test accuracy 0.20 higher); refuted for down (test",
        ),
        (
            ["up", "flat"],
            [],
            "inconclusive",
            "Inconclusive: supported for up (test accuracy 0.20 higher); undecided for flat (te",
        ),
        (["down", "flat"], [], "refuted", "Refuted: refuted for down (test accuracy 0.20 lower); undecided for flat"),
        (["up"], ["down", "flat"], "supported", "Supported: with up test accuracy is 0.20 higher (95 % interval 0.18"),
        ([], ["down", "lower"], "refuted", "Refuted in both comparisons: down"),
        (
            ["up", "higher", "down", "lower", "flat"],
            ["level"],
            "depends",
            "Depends (test accuracy): supported for up and higher; refuted for down and lower; undecided for flat.",
        ),
    ],
)
def test_the_verdict_of_a_study_is_that_of_its_primary_comparisons(primary, others, verdict, sentence):
    comparisons = [{"variant": name, "primary": name in primary} for name in primary + others]
    study = make_study(*comparisons, variants=primary + others)
    rows = make_rows(baseline=[0.5] * 5, **{name: list(0.5 + CLEAR[name] + SHAPE) for name in primary + others})
    found = analyse(study, rows)
    assert found.verdict == verdict
    assert found.sentence.startswith(sentence)
    assert found.sentence.endswith(".")


def test_p_and_intervals_are_scipys_and_holms_over_the_primary_comparisons_alone():
    rng = np.random.default_rng(3)
    base = rng.normal(0.9, 0.01, 5)
    # Their p are about 0.04, 0.03, 0.001 and 0.03: Holm's method stops after the third.
    shifts = zip("abcd", (0.0212, 0.0233, 0.0609, 0.0233))
    columns = {name: base + shift + rng.permutation(SHAPE) for name, shift in shifts}
    study = make_study(*({"variant": name, "primary": name != "d"} for name in "abcd"), variants="abcd")
    found = analyse(study, make_rows(baseline=base.tolist(), **{name: each.tolist() for name, each in columns.items()}))
    tests = {name: scipy.stats.ttest_rel(each, base) for name, each in columns.items()}
    own = dict(zip("abcd", (each.interval.p for each in found.tested)))
    np.testing.assert_allclose([*own.values()], [each.pvalue for each in tests.values()], rtol=1e-9)
    adjusted, levels, largest, level = {"d": own["d"]}, {"d": LEVEL}, 0.0, LEVEL / 3
    for factor, name in zip((3, 2, 1), sorted("abc", key=own.__getitem__)):
        if largest < LEVEL:  # the first that does not reach its level stops the others
            level = LEVEL / factor
        levels[name], largest = level, max(largest, factor * own[name])
        adjusted[name] = min(1.0, largest)
    assert max(own.values()) < LEVEL < max(adjusted.values())
    for tested, name in zip(found.tested, "abcd"):
        np.testing.assert_allclose(tested.adjusted_p, adjusted[name], rtol=1e-9)
        plain = tests[name].confidence_interval(0.95)
        np.testing.assert_allclose([tested.interval.low, tested.interval.high], [plain.low, plain.high], rtol=1e-9)
        corrected = tests[name].confidence_interval(1 - levels[name])
        np.testing.assert_allclose(
            [tested.adjusted.low, tested.adjusted.high], [corrected.low, corrected.high], rtol=1e-9
        )
        assert (tested.adjusted.low > 0 or tested.adjusted.high < 0) == (tested.adjusted_p < LEVEL)
        assert list(tested.differences) == list(SEEDS)
    assert found.tested[3].adjusted == found.tested[3].interval


def test_a_comparison_that_cannot_be_tested_still_counts_in_holms_number():
    study = make_study({"variant": "a"}, {"variant": "b"}, variants="ab")
    found = analyse(study, make_rows(baseline=[0.9] * 5, a=list(0.93 + SHAPE), b=["failed"] * 5))
    np.testing.assert_allclose(found.tested[0].adjusted_p, 2 * found.tested[0].interval.p, rtol=1e-12)
    assert [each.verdict for each in found.tested] == ["supported", "inconclusive"]
    assert found.verdict == "inconclusive"


def test_only_seeds_that_every_variant_of_a_contrast_has_are_paired():
    study = make_study({"contrast": {"a": 1.0, "b": -2.0, "baseline": 1.0}}, {"variant": "a"}, variants="ab")
    rows = make_rows(
        baseline=[1.0, 2.0, 3.0, 4.0, "failed"], a=[5.0, "missing", 7.0, 9.0, 8.0], b=[1.0, 1.0, 2.0, "diverged", 1.0]
    )
    found = analyse(study, rows)
    assert found.tested[0].differences == {0: 4.0, 2: 6.0}
    assert found.tested[1].differences == {0: 4.0, 2: 4.0, 3: 5.0}
    assert [each.left_out for each in found.tested] == [3, 2]
    assert found.tested[0].name == "1 × a − 2 × b + 1 × baseline"
    summary = found.summaries["a"]["test/accuracy"]
    assert (summary.mean, summary.n, summary.values) == (7.25, 4, {0: 5.0, 2: 7.0, 3: 9.0, 4: 8.0})
    np.testing.assert_allclose(summary.deviation, np.std([5, 7, 9, 8], ddof=1), rtol=1e-12)


def test_the_order_of_the_rows_changes_nothing():
    study = make_study(controls=("null",), interval="bootstrap")
    rng = np.random.default_rng(0)
    rows = make_rows(**{name: rng.normal(0.9, 0.01, 5).tolist() for name in ("baseline", "wide", "null")})
    shuffled = random.Random(1).sample(rows, len(rows))
    assert repr(analyse(study, shuffled)) == repr(analyse(study, rows))


def test_two_rows_of_one_run_are_refused_and_rows_of_no_run_are_told():
    rows = make_rows(baseline=[0.5] * 5, wide=[0.6] * 5)
    with pytest.raises(ValueError, match="two rows of variant 'wide' and seed 4"):
        analyse(make_study(), [*rows, rows[-1]])
    strange = [*rows, RunRow("narrow", 0, "completed"), RunRow("wide", 77, "completed")]
    assert warnings_of(make_study(), strange, "^2 stored runs are of no variant")
    assert not warnings_of(make_study(), rows, "stored runs")


STORED = {"train/accuracy": 0.75, "test/accuracy": 0.5, "loss": 0.25, "nothing": None, "bad": math.nan, "zero": 0.0}


@pytest.mark.parametrize(
    ("name", "measure", "status", "expected"),
    [
        ("test/accuracy", {}, "completed", 0.5),
        ("test/accuracy", {}, "early_stopped", 0.5),
        ("test/accuracy", {}, "diverged", None),
        ("test/accuracy", {}, "failed", None),
        ("test/accuracy", {"diverged": 0.1}, "diverged", 0.1),
        ("test/accuracy", {"diverged": 0.1}, "completed", 0.5),
        ("test/accuracy", {"diverged": 0.1}, "failed", None),
        ("test/accuracy", {"diverged": 0.1}, "missing", None),
        ("gap", {"of": {"train/accuracy": 1.0, "test/accuracy": -1.0}}, "completed", 0.25),
        ("gap", {"of": {"train/accuracy": 1.0, "nothing": -1.0}}, "completed", None),
        ("loss", {"log": True}, "completed", -math.log(4)),
        ("loss", {"log": True, "diverged": 2.0}, "diverged", 2.0),
        ("zero", {"log": True}, "completed", None),
        ("zero", {}, "completed", 0.0),
        ("bad", {}, "completed", None),
        ("unknown", {}, "completed", None),
        ("diverged", {}, "diverged", 1.0),
        ("diverged", {}, "completed", 0.0),
        ("diverged", {}, "failed", None),
        ("diverged", {"of": {"loss": 1.0}}, "diverged", None),
        ("diverged", {"of": {"loss": 1.0}}, "completed", 0.25),
    ],
)
def test_the_measure_of_a_run(name, measure, status, expected):
    values = measure_values(name, Measure(**measure), [RunRow("wide", 3, status, STORED)])
    assert values == {"wide": {} if expected is None else {3: pytest.approx(expected)}}


def test_a_rate_of_divergence_is_a_measure_like_others():
    study = make_study({"variant": "wide", "claim": "greater"}, measures={"diverged": {"direction": "lower"}})
    rows = make_rows(baseline=[0.5] * 5, wide=["diverged", 0.5, "diverged", "diverged", "failed"])
    found = analyse(study, rows)
    assert found.summaries["wide"]["diverged"].mean == 0.75
    assert found.tested[0].differences == {0: 1.0, 1: 0.0, 2: 1.0, 3: 1.0}


UNITS = [
    # measure, comparison, differences, sentence
    (
        {"share": True},
        {},
        0.023 + 0.003056 * np.arange(-2, 3),
        "Supported: with wide test accuracy is 2.3 points higher (95 % interval 1.7 to 2.9, n = 5).",
    ),
    (
        {"share": True},
        {},
        -0.023 + 0.003056 * np.arange(-2, 3),
        "Refuted: with wide test accuracy is 2.3 points lower (95 % interval 1.7 to 2.9, n = 5).",
    ),
    (
        {"share": True},
        {"smallest": 0.01},
        -0.003 + 0.003056 * np.arange(-2, 3),
        "Refuted: with wide test accuracy is 0.3 points lower (95 % interval −0.3 to 0.9, n = 5),"
        " where 1 points would matter.",
    ),
    (
        {"share": True},
        {"claim": "equal", "smallest": 0.015},
        0.003 + 0.003056 * np.arange(-2, 3),
        "Supported: with wide test accuracy is 0.3 points higher (95 % interval −0.3 to 0.9, n = 5),"
        " where 1.5 points would matter.",
    ),
    (
        {"share": True},  # the lower end is 0.04, which must not read 0.0
        {},
        0.006 + 0.00286 * np.arange(-2, 3),
        "Supported: with wide test accuracy is 0.60 points higher (95 % interval 0.04 to 1.16, n = 5).",
    ),
    ({}, {}, np.zeros(5), "Inconclusive: with wide test accuracy is the same (95 % interval 0 to 0, n = 5)."),
    (
        {},
        {"against": "deep"},
        30_000 + 1000 * np.arange(-2, 3),
        "Supported: with wide test accuracy is 30,000 higher than with deep (95 % interval 28,037 to 31,963, n = 5).",
    ),
    (
        {"share": True},
        {"variant": None, "contrast": {"wide": 1.0, "deep": -1.0}, "name": "width for depth", "claim": "less"},
        -0.023 + 0.003056 * np.arange(-2, 3),
        "Supported: the contrast width for depth of test accuracy is −2.3 points (95 % interval −2.9 to −1.7, n = 5).",
    ),
]


@pytest.mark.parametrize(("measure", "comparison", "differences", "sentence"), UNITS)
def test_the_sentence_of_one_comparison(measure, comparison, differences, sentence):
    measures = {"test/accuracy": measure}
    study = make_study({"variant": "wide", **comparison}, variants=("wide", "deep"), measures=measures)
    same = [0.5] * 5
    assert analyse(study, make_rows(baseline=same, deep=same, wide=[0.5 + x for x in differences])).sentence == sentence


def test_a_logarithm_is_told_as_a_factor():
    study = make_study({"variant": "wide"}, measures={"loss": {"log": True}})
    rows = make_rows("loss", baseline=[1.0] * 5, wide=[2.0 * 1.1**k for k in (-2, -1, 0, 1, 2)])
    # ln 2 ± 2.776 × ln 1.1 × 1.5811 / √5 = 0.6931 ± 0.1871
    expected = "Supported: with wide loss is 2.0 times as high (95 % interval 1.7 to 2.4, n = 5)."
    assert analyse(study, rows).sentence == expected
    halved = {"variant": "baseline", "against": "wide", "claim": "less", "smallest": math.log(2.2)}
    expected = (
        "Inconclusive: with baseline loss is 0.50 times as high as with wide (95 % interval 0.41 to 0.60, n = 5),"
        " where a factor of 0.455 would matter."
    )
    assert analyse(make_study(halved, measures={"loss": {"log": True}}), rows).sentence == expected


def test_the_interval_of_a_sentence_names_its_confidence_and_kind():
    study = make_study(confidence=0.9, interval="bootstrap")
    rows = make_rows(baseline=[0.9] * 5, wide=(0.93 + SHAPE).tolist())
    assert re.search(r"\(90 % bootstrap interval 0\.02 to 0\.04, n = 5\)", analyse(study, rows).sentence)


def test_a_study_without_a_flaw_has_no_warning():
    study = make_study(controls=("null", "shuffled labels"), tuning={"grid": {"optimizer.learning_rate": (0.1, 0.2)}})
    rng = np.random.default_rng(1)
    columns = {"baseline": 0.9, "wide": 0.92, "null": 0.9, "shuffled_labels": 0.1}
    rows = make_rows(**{name: rng.normal(mean, 0.01, 5).tolist() for name, mean in columns.items()})
    assert analyse(study, rows).warnings == ()


def test_runs_and_pairs_that_are_missing_are_counted():
    study = make_study(measures={"test/accuracy": {"diverged": 0.1}, "loss": {"log": True}})
    rows = make_rows(baseline=[0.9] * 5, wide=["diverged", "failed", "diverged", 0.9])
    found = analyse(study, rows).warnings
    assert "wide: of 5 runs 2 diverged and 1 failed and 1 not run" in found
    assert "test accuracy of a run that diverged is taken to be 0.1" in found
    assert "wide − baseline: 2 of 5 pairs are left out, for want of test accuracy" in found
    # Nobody has the loss: most likely its name is wrong.
    assert warnings_of(study, rows, "^no run has loss: unknown number 'loss'. Known: test/accuracy$")


@pytest.mark.parametrize(("value", "reason"), [(0.0, "not positive"), (-1.0, "not positive"), (math.inf, "not finite")])
def test_a_number_without_a_logarithm_leaves_its_run_out_and_is_told(value, reason):
    study = make_study(measures={"loss": {"log": True}})
    rows = make_rows("loss", baseline=[1.0] * 5, wide=[1.0, value, 2.0, value, 1.5])
    assert warnings_of(study, rows, f"^wide: 2 of 5 runs count without loss, because it is {reason}")
    assert list(analyse(study, rows).tested[0].differences) == [0, 2, 4]


def test_runs_that_may_never_reach_a_target_are_told():
    steps_to = {"steps_to": {"metric": "validation/accuracy", "target": 0.9}, "direction": "lower"}
    study = make_study({"measure": "soon", "variant": "wide"}, measures={"soon": steps_to})
    rows = [
        RunRow(variant, seed, "completed", {"soon": 100.0 if variant == "wide" and seed else 40.0, "steps": 100.0})
        for variant in ("baseline", "wide")
        for seed in SEEDS
    ]
    assert warnings_of(study, rows, "or never") == [
        "wide: 4 runs reach soon with their last step or never, and count as all steps"
    ]


def test_unequal_budgets_of_tuning_are_told():
    grid, longer = {"optimizer.learning_rate": (0.1, 0.2)}, {"optimizer.learning_rate": (0.1, 0.2, 0.4)}
    rows = make_rows(baseline=[0.9] * 5, wide=[0.9] * 5, deep=[0.9] * 5)
    told = {}
    for name, tuning in {
        "more": {"tuning": {"grid": grid}, "tuning_of": {"wide": {"grid": longer, "seeds": (100, 101)}}},
        "alone": {"tuning_of": {"wide": {"grid": grid}}},
        "controls": {
            "tuning_of": {name: {"grid": grid} for name in ("baseline", "wide", "deep")},
            "controls": ("null", "shuffled labels"),
        },
        "equal": {"tuning": {"grid": grid}, "tuning_of": {"wide": {"grid": {"optimizer.momentum": (0.0, 0.9)}}}},
    }.items():
        told[name] = warnings_of(make_study(variants=("wide", "deep"), **tuning), rows, "tuned")
    assert told["more"] == ["variants were not tuned equally: baseline, deep by 2 runs; wide by 6 runs"]
    assert told["alone"] == ["variants were not tuned equally: baseline, deep by 0 runs; wide by 2 runs"]
    assert told["equal"] == told["controls"] == []


def test_a_null_variant_that_differs_is_told_with_the_size_of_the_noise():
    study = make_study(controls=("null",), measures={"test/accuracy": {"share": True}})
    rows = make_rows(baseline=[0.9] * 5, wide=[0.9] * 5, null=list(0.93 + SHAPE))
    (warning,) = warnings_of(study, rows, "null variant")
    assert "test accuracy is 3.0 points higher (95 % interval 1.0 to 5.0, n = 5)" in warning
    near = make_rows(baseline=[0.9] * 5, wide=[0.9] * 5, null=list(0.91 + SHAPE))
    assert not warnings_of(study, near, "null variant")
    # It decides nothing.
    assert analyse(study, rows).verdict == analyse(study, near).verdict == "inconclusive"


def test_a_null_variant_has_as_many_chances_of_a_false_alarm_as_measures():
    measures = {"test/accuracy": {}, "test/loss": {}, "seconds": {}}
    near, same = 0.9 + 0.021 + SHAPE, [0.9] * 5  # p = 0.041
    for others, warned in ((same, 0), (near, 0), (None, 1)):
        primary = [{"variant": "wide", "measure": name} for name in ("test/accuracy", "test/loss")]
        study = make_study(*(primary if others is not None else primary[:1]), measures=measures, controls=("null",))
        rows = []
        for variant in ("baseline", "wide", "null"):
            accuracy, loss = (near, others) if variant == "null" else (same, same)
            rows += [
                RunRow(variant, seed, "completed", {"test/accuracy": one, "test/loss": other, "seconds": one})
                for seed, one, other in zip(SEEDS, map(float, accuracy), map(float, same if loss is None else loss))
            ]
        assert len(warnings_of(study, rows, "null variant")) == warned


@pytest.mark.parametrize(
    ("measure", "direction", "shuffled", "warned"),
    [
        ("test/accuracy", "higher", 0.1, True),
        ("test/accuracy", "higher", 0.0, True),
        ("test/accuracy", "higher", -0.01, True),  # worse, but not clearly
        ("test/accuracy", "higher", -0.1, False),
        ("test/loss", "lower", 0.1, False),
        ("test/loss", "lower", -0.1, True),
        ("validation/loss", "lower", -0.1, True),
    ],
)
def test_shuffled_labels_that_do_no_harm_are_told(measure, direction, shuffled, warned):
    study = make_study(controls=("shuffled labels",), measures={measure: {"direction": direction}})
    rows = make_rows(measure, baseline=[0.9] * 5, wide=[0.9] * 5, shuffled_labels=list(0.9 + shuffled + SHAPE))
    assert bool(warnings_of(study, rows, "leakage")) == warned


def test_shuffled_labels_are_judged_by_numbers_of_unseen_examples_alone():
    # Labels do not change the number of parameters, and shuffled ones are fitted with a gap.
    measures = {
        "parameters": {"direction": "lower"},
        "gap": {"direction": "lower", "of": {"train/accuracy": 1.0, "test/accuracy": -1.0}},
    }
    values = {"parameters": 10.0, "train/accuracy": 0.9, "test/accuracy": 0.9}
    rows = [
        RunRow(variant, seed, "completed", values)
        for variant in ("baseline", "wide", "shuffled labels")
        for seed in SEEDS
    ]
    study = make_study({"measure": "gap", "variant": "wide"}, measures=measures, controls=("shuffled labels",))
    assert not warnings_of(study, rows, "leakage")
    assert warnings_of(study, rows, "'shuffled labels' tells nothing")
    study = make_study(measures={**measures, "test/accuracy": {}}, controls=("shuffled labels",))
    assert warnings_of(study, rows, "leakage")
    assert not warnings_of(study, rows, "tells nothing")
    # One that the verdict rests on is enough: the calibration of random labels may well be better.
    measures = {"test/accuracy": {}, "test/calibration": {"direction": "lower"}}
    rows = [
        RunRow(variant, seed, "completed", {"test/accuracy": accuracy + 0.01 * seed, "test/calibration": 0.1})
        for variant, accuracy in (("baseline", 0.9), ("wide", 0.9), ("shuffled labels", 0.1))
        for seed in SEEDS
    ]
    assert not warnings_of(make_study(measures=measures, controls=("shuffled labels",)), rows, "leakage")


def test_controls_count_in_no_verdict_unless_they_are_compared():
    rows = make_rows(baseline=[0.9] * 5, wide=list(0.93 + SHAPE), null=list(0.91 + SHAPE), shuffled_labels=[0.1] * 5)
    study = make_study(controls=("null", "shuffled labels"))
    found = analyse(study, rows)
    assert found.verdict == "supported"
    assert found.tested[0].adjusted_p == found.tested[0].interval.p
    assert list(found.summaries) == ["baseline", "wide", "null", "shuffled labels"] == list(variants_of(study))
    study = make_study({"variant": "wide"}, {"variant": "null"}, controls=("null",))
    found = analyse(study, rows[:15])
    np.testing.assert_allclose(found.tested[0].adjusted_p, 2 * found.tested[0].interval.p)


def test_few_seeds_and_the_bootstrap_are_told():
    rows = make_rows(baseline=[0.9] * 3, wide=[0.9, 0.91, 0.92])
    assert warnings_of(make_study(seeds=(0, 1, 2)), rows, "^3 seeds are few")
    assert warnings_of(make_study(seeds=(0, 1, 2), interval="bootstrap"), rows, "bootstrap intervals .* too narrow")
    assert not warnings_of(make_study(seeds=(0, 1, 2)), rows, "bootstrap")


def provenance(variant, seed, *, commit="abc", hardware="cpu", train="11"):
    return RunRow(variant, seed, "completed", {"test/accuracy": 0.5}, {}, "", commit, hardware, {"train": train})


@pytest.mark.parametrize(
    ("changes", "assignments", "expected"),
    [
        ({}, {"model.width": 2}, []),
        ({"commit": "def+"}, {"model.width": 2}, ["runs are of different commits: abc (9 runs); def+ (1 runs)"]),
        ({"hardware": "gpu"}, {"model.width": 2}, ["runs are of different hardware: cpu (9 runs); gpu (1 runs)"]),
        (
            {"train": "22"},
            {"model.width": 2},
            ["variants with equal data: runs were made on 2 different data sets (checksums in results.csv)"],
        ),
        (
            {"train": "22"},
            {"data.examples": 2},
            ["wide: runs were made on 2 different data sets (checksums in results.csv)"],
        ),
    ],
)
def test_runs_of_different_origin_are_told(changes, assignments, expected):
    study = make_study().model_copy(update={"variants": {"wide": assignments}})
    rows = [provenance(variant, seed) for variant in ("baseline", "wide") for seed in SEEDS]
    rows[-1] = provenance("wide", 4, **changes)
    assert list(analyse(study, rows).warnings) == expected


def test_variants_whose_change_is_the_data_may_have_other_data():
    study = make_study(controls=("shuffled labels",)).model_copy(update={"variants": {"wide": {"data.examples": 100}}})
    digests = {"baseline": "11", "wide": "22", "shuffled labels": "33"}
    rows = [provenance(variant, seed, train=digest) for variant, digest in digests.items() for seed in SEEDS]
    assert not [text for text in analyse(study, rows).warnings if "data sets" in text]


@pytest.fixture
def unchecked():
    """Without the checks of annotations, which take most of the time of many small calls; other tests have them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def simulate(study, effects, *, deviation=1.0, seed=0):
    """Analyses of 1,000 studies: seeds move all variants together, each run has noise of its own."""
    rng = np.random.default_rng(seed)
    variants = list(variants_of(study))
    runs = rng.normal(0, deviation, (STUDIES, len(variants), len(SEEDS))) + rng.normal(0, 3, (STUDIES, 1, len(SEEDS)))
    runs += np.array([effects.get(name, 0.0) for name in variants])[:, None]
    for run in runs.tolist():
        yield analyse(study, make_rows(**dict(zip((name.replace(" ", "_") for name in variants), run))))


def close(count, rate, alternative="two-sided"):
    return scipy.stats.binomtest(int(count), STUDIES, rate, alternative=alternative).pvalue > 0.001


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("effect", [1.0, 3.0])
def test_a_known_effect_is_found_as_often_as_the_power_says(effect):
    # The difference of two runs has deviation √2; its t is noncentral.
    shifted = scipy.stats.nct(len(SEEDS) - 1, effect / math.sqrt(2) * math.sqrt(len(SEEDS)))
    critical = scipy.stats.t.isf(LEVEL / 2, len(SEEDS) - 1)
    found = [each.verdict for each in simulate(make_study(), {"wide": effect})]
    assert close(found.count("supported"), shifted.sf(critical))
    assert close(found.count("refuted"), shifted.cdf(-critical), "greater")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("variants", ["a", "abcd"])
def test_without_effect_no_comparison_is_called_different_more_often_than_promised(variants):
    study = make_study(*({"variant": name} for name in variants), variants=variants, controls=("null",))
    found = list(simulate(study, {}, seed=len(variants)))
    different = sum(any(each.adjusted_p < LEVEL for each in analysis.tested) for analysis in found)
    decided = sum(any(each.verdict != "inconclusive" for each in analysis.tested) for analysis in found)
    assert decided == different  # with no smallest effect an effect of either sign decides
    assert close(different, LEVEL, "greater")
    assert close(sum(any("null variant" in text for text in analysis.warnings) for analysis in found), LEVEL)
    if len(variants) == 1:
        assert close(different, LEVEL)
    else:
        own = sum(any(each.interval.p < LEVEL for each in analysis.tested) for analysis in found)
        assert own > 2 * LEVEL * STUDIES  # what Holm's method prevents


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("deviation", [0.1, 1.0])
def test_effects_that_matter_are_excluded_no_more_often_than_promised(deviation):
    # All are as large as what matters. It fails if Holm's method is applied to p alone.
    study = make_study(*({"variant": name, "smallest": 1.0} for name in "abcd"), variants="abcd")
    found = simulate(study, dict.fromkeys("abcd", 1.0), deviation=deviation)
    refuted = sum(any(each.verdict == "refuted" for each in analysis.tested) for analysis in found)
    assert close(refuted, LEVEL, "greater")


@pytest.mark.usefixtures("unchecked")
def test_an_effect_that_matters_is_called_equal_no_more_often_than_promised():
    study = make_study(*({"variant": name, "smallest": 1.0, "claim": "equal"} for name in "abc"), variants="abc")
    found = simulate(study, {"a": 1.0, "b": -1.0, "c": 1.0}, deviation=0.1)
    equal = sum(any(each.verdict == "supported" for each in analysis.tested) for analysis in found)
    assert close(equal, LEVEL, "greater")
