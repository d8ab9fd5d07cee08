"""Classification metrics against scikit-learn and plain loops: real scores, ties, NaN logits, missing classes."""

import itertools

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies
import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from metric_cases import make_values, pad_values

from cnn_jax.errors import UserError
from cnn_jax.metrics import ConfusionMatrix, ExpectedCalibrationError, TopKAccuracy

SCORES = ["per_class_precision", "per_class_recall", "per_class_f1"]
MACRO = ["macro_precision", "macro_recall", "macro_f1"]


def evaluate(metric, values):
    return metric.compute(metric.update(metric.empty(), values))


@pytest.mark.parametrize(("k", "name"), [(1, "accuracy"), (2, "top2_accuracy"), (5, "top5_accuracy")])
def test_top_k_accuracy_is_sklearns(digits, k, name):
    logits, label = digits
    got = evaluate(TopKAccuracy(k), make_values(logits, label))
    assert got == {name: sklearn.metrics.top_k_accuracy_score(label, logits, k=k)}


@hypothesis.given(
    logits=hypothesis.extra.numpy.arrays(np.float32, (6, 4), elements=hypothesis.strategies.sampled_from([-1, 0, 2])),
    label=hypothesis.extra.numpy.arrays(np.int32, 6, elements=hypothesis.strategies.integers(0, 3)),
    k=hypothesis.strategies.integers(1, 5),
)
@hypothesis.settings(deadline=None, max_examples=40)
def test_top_k_accuracy_breaks_ties_as_a_stable_sort(logits, label, k):
    guesses = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    expected = np.mean([y in row for y, row in zip(label, guesses, strict=True)])
    (got,) = evaluate(TopKAccuracy(k), make_values(logits, label)).values()
    np.testing.assert_allclose(got, expected, rtol=1e-15)


def test_constant_logits_score_as_argmax_does():
    values = make_values(np.zeros((4, 4)), [0, 1, 2, 3])
    assert evaluate(TopKAccuracy(1), values) == {"accuracy": 0.25}
    assert evaluate(TopKAccuracy(3), values) == {"top3_accuracy": 0.75}


@pytest.mark.parametrize("place", [0, 1])
def test_an_example_with_a_nan_logit_is_wrong_and_has_no_prediction(place):
    logits = np.array([[1.0, 5.0], [1.0, 5.0]])
    logits[0, place] = np.nan
    for label in (0, 1):
        values = make_values(logits, [label, 1])
        assert evaluate(TopKAccuracy(1), values) == {"accuracy": 0.5}
        assert evaluate(TopKAccuracy(2), values) == {"top2_accuracy": 0.5}
        scores = evaluate(ConfusionMatrix(2), values)
        np.testing.assert_array_equal(scores["confusion_matrix"], [[0, 0], [0, 1]])
        assert scores["per_class_recall"][label] == (0.0 if label == 0 else 0.5)
        assert scores["balanced_accuracy"] == 0.5
        assert np.isnan(evaluate(ExpectedCalibrationError(), values)["expected_calibration_error"])


@pytest.mark.parametrize("bad", [-1, 3, 2**31 - 1, -(2**31)])
def test_a_label_that_is_no_class_is_wrong_and_in_no_row(bad):
    # The last class is the largest logit: where -1 would wrap to.
    values = make_values([[0.0, 0.0, 1e4], [0.0, 0.0, 1e4]], [bad, 2])
    assert evaluate(TopKAccuracy(1), values) == {"accuracy": 0.5}
    assert evaluate(TopKAccuracy(3), values) == {"top3_accuracy": 0.5}
    np.testing.assert_array_equal(evaluate(ConfusionMatrix(3), values)["confusion_matrix"], np.diag([0, 0, 1]))
    assert evaluate(ExpectedCalibrationError(), values) == {"expected_calibration_error": 0.5}


def check_against_sklearn(logits, label, num_classes):
    predicted, classes = logits.argmax(axis=1), np.arange(num_classes)
    got = evaluate(ConfusionMatrix(num_classes), make_values(logits, label))
    expected_matrix = sklearn.metrics.confusion_matrix(label, predicted, labels=classes)
    np.testing.assert_array_equal(got["confusion_matrix"], expected_matrix)
    assert got["confusion_matrix"].dtype == np.int64
    for names, average in ((SCORES, None), (MACRO, "macro")):
        expected = sklearn.metrics.precision_recall_fscore_support(
            label, predicted, labels=classes, average=average, zero_division=0
        )
        for name, value in zip(names, expected[:3], strict=True):
            np.testing.assert_allclose(got[name], value, rtol=1e-14, err_msg=name)
    return got


def test_confusion_matrix_scores_are_sklearns(digits):
    logits, label = digits
    got = check_against_sklearn(logits, label, 10)
    expected = sklearn.metrics.balanced_accuracy_score(label, logits.argmax(axis=1))
    np.testing.assert_allclose(got["balanced_accuracy"], expected, rtol=1e-14)


def test_confusion_matrix_scores_are_sklearns_with_a_class_that_never_occurs_and_one_never_predicted(digits):
    logits, label = digits
    logits = np.concatenate([logits, np.full((len(label), 1), -100, np.float32)], axis=1)  # class 10: neither
    logits[:, 4] = -100  # class 4 occurs and is never predicted
    logits, label = logits[label != 7], label[label != 7]  # class 7 is predicted and never occurs
    logits[:3, 7] = 100
    got = check_against_sklearn(logits, label, 11)
    # scikit-learn warns here ("y_pred contains classes not in y_true") and leaves the class out; so do we, silently.
    recall = got["per_class_recall"][np.unique(label)]
    np.testing.assert_allclose(got["balanced_accuracy"], recall.mean(), rtol=1e-14)
    assert got["per_class_precision"][4] == got["per_class_recall"][7] == got["per_class_f1"][10] == 0
    assert got["balanced_accuracy"] > got["macro_recall"]


def guo_calibration_error(logits, label, num_bins):
    """Equation 3 as a loop over bins, with the float32 confidences and edges of the reference implementation."""
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    confidence = probabilities.max(axis=1)
    error, edges = 0.0, np.linspace(0, 1, num_bins + 1, dtype=np.float32)
    for lower, upper in itertools.pairwise(edges):
        inside = (confidence.astype(np.float32) > lower) & (confidence.astype(np.float32) <= upper)
        if inside.any():
            accuracy = (logits.argmax(axis=1) == label)[inside].mean()
            error += inside.mean() * abs(accuracy - confidence[inside].mean())
    return error


@pytest.mark.parametrize("num_bins", [1, 10, 15])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_expected_calibration_error_is_equation_3(digits, num_bins, temperature):
    logits, label = digits[0] / np.float32(temperature), digits[1]
    got = evaluate(ExpectedCalibrationError(num_bins), make_values(logits, label))
    expected = guo_calibration_error(logits, label, num_bins)
    np.testing.assert_allclose(got["expected_calibration_error"], expected, rtol=1e-4, atol=1e-6)


def test_expected_calibration_error_by_hand():
    # Confidences 0.9, 0.9 (one right) and 0.6 (right), in different bins: (|1 - 1.8| + |1 - 0.6|) / 3.
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    got = evaluate(ExpectedCalibrationError(15), make_values(logits, [0, 1, 1]))
    np.testing.assert_allclose(got["expected_calibration_error"], 1.2 / 3, rtol=1e-6)


def test_a_confidence_on_an_edge_is_in_the_bin_below():
    metric = ExpectedCalibrationError(2)
    values = make_values([[0.0, 0.0], [0.0, 1e4]], [0, 0])  # confidences 0.5 and 1
    np.testing.assert_array_equal(metric.update(metric.empty(), values)["count"], [1, 1])


METRICS = [TopKAccuracy(1), TopKAccuracy(5), ConfusionMatrix(10), ExpectedCalibrationError()]


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_padding_changes_nothing_whatever_its_logits_and_labels(digits, metric):
    values = make_values(digits[0][:50], digits[1][:50])
    alone, padded = evaluate(metric, values), evaluate(metric, pad_values(values, 64))
    for name in alone:
        assert np.isfinite(alone[name]).all()
        np.testing.assert_allclose(padded[name], alone[name], rtol=1e-6, err_msg=name)


def test_one_example():
    values = make_values([[0.0, 1e4, 0.0]], [1])
    assert evaluate(TopKAccuracy(1), values) == {"accuracy": 1.0}
    assert evaluate(ExpectedCalibrationError(), values) == {"expected_calibration_error": 0.0}
    scores = evaluate(ConfusionMatrix(3), values)
    assert scores["balanced_accuracy"] == 1.0
    np.testing.assert_allclose(scores["macro_recall"], 1 / 3)


def test_more_guesses_than_classes_are_always_right():
    assert evaluate(TopKAccuracy(5), make_values([[0.0, 1.0]], [0])) == {"top5_accuracy": 1.0}


@pytest.mark.parametrize("build", [TopKAccuracy, ConfusionMatrix, ExpectedCalibrationError])
def test_a_size_below_1_is_an_error_that_names_it(build):
    with pytest.raises(UserError, match=r"is 0; .* at least 1"):
        build(0)


def test_logits_of_another_number_of_classes_are_an_error_that_names_both():
    with pytest.raises(UserError, match="num_classes is 3, but there are 2 logits"):
        evaluate(ConfusionMatrix(3), make_values([[0.0, 1.0]], [0]))
