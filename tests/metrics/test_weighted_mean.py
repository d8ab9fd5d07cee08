"""The mean loss: torch's weighting, exact for ragged batches, NaN only where it belongs."""

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from metric_cases import make_values, on_host, pad_values

from cnn_jax.metrics import WeightedMean


def evaluate(values, metric=WeightedMean()):  # noqa: B008 - frozen
    return metric.compute(metric.update(metric.empty(), values))


def test_weighted_mean_of_weighted_losses_is_sklearns_log_loss(digits):
    logits, label = digits
    weight = np.linspace(0.25, 2.5, 10, dtype=np.float32)[label]
    losses = -scipy.special.log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(label)), label]
    expected = sklearn.metrics.log_loss(label, scipy.special.softmax(logits, axis=1), sample_weight=weight)
    got = evaluate(make_values(logits, label, loss=weight * losses, weight=weight))
    np.testing.assert_allclose(got["loss"], expected, rtol=1e-6)


def test_ragged_batches_give_the_mean_of_the_examples_not_of_the_batches():
    metric, full, ragged = WeightedMean(), np.array([1.0, 1.0, 1.0, 1.0]), np.array([6.0])
    state = metric.empty()
    for loss in (full, ragged):
        values = pad_values(make_values(np.zeros((len(loss), 2)), np.zeros(len(loss)), loss=loss), 4)
        state = metric.update(state, values)
    assert metric.compute(state) == {"loss": 2.0}  # the mean of the batches' means is 3.5


def test_another_value_is_averaged_under_its_own_name():
    values = {**make_values(np.zeros((2, 2)), [0, 1]), "entropy": np.array([1.0, 2.0], np.float32)}
    assert evaluate(values, WeightedMean("entropy")) == {"entropy": 1.5}


def test_nan_of_a_counted_example_stays_visible_and_of_padding_does_not():
    values = make_values(np.zeros((3, 2)), [0, 1, 0], loss=[1.0, np.nan, np.nan])
    assert np.isnan(evaluate(values)["loss"])
    assert evaluate({**values, "mask": np.array([1.0, 0.0, 0.0], np.float32)}) == {"loss": 1.0}


def test_an_infinite_loss_is_infinite():
    assert evaluate(make_values(np.zeros((2, 2)), [0, 1], loss=[np.inf, 1.0])) == {"loss": np.inf}


@pytest.mark.parametrize("weight", [[0.0, 0.0], None])
def test_no_weight_at_all_gives_nan_without_a_warning(weight):
    values = make_values(np.zeros((2, 2)), [0, 1], loss=[0.0, 0.0], weight=weight)
    if weight is None:
        values["mask"] = np.zeros(2, np.float32)
    assert np.isnan(evaluate(values)["loss"])


def test_host_totals_keep_what_float32_would_lose():
    metric = WeightedMean()
    large = on_host(metric.update(metric.empty(), make_values(np.zeros((1, 2)), [0], loss=[2.0**24])))
    small = on_host(metric.update(metric.empty(), make_values(np.zeros((1, 2)), [0], loss=[1.0])))
    assert metric.merge(large, small)["total"] == 2**24 + 1
