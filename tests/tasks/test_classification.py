"""The classification task with every loss of the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data.augment import evaluation_transform
from cnn_jax.data.batches import training_batch
from cnn_jax.data.sources import open_source
from cnn_jax.errors import UserError
from cnn_jax.losses import DIVIDED_BY_WEIGHTS, LOSSES
from cnn_jax.models import create
from cnn_jax.tasks import Classification


@pytest.fixture(scope="module")
def batch():
    data = open_source("sklearn", "digits").load("train[:64]")
    inputs = jax.tree.map(jnp.asarray, training_batch(data, seed=0, step=0, batch_size=64))
    return evaluation_transform(inputs, mean=(0.3,), std=(0.4,))


def task(loss="softmax_cross_entropy", **options):
    return Classification(
        model=create("mlp", num_classes=10, in_channels=1, hidden=(16,)),
        loss_function=LOSSES[loss],
        num_classes=10,
        divide_by_weights=loss in DIVIDED_BY_WEIGHTS,
        **options,
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("class_weights", [None, tuple(0.5 + 0.1 * k for k in range(10))])
def test_every_loss_falls_and_its_metric_is_its_scalar(batch, loss, class_weights):
    subject = task(loss, class_weights=class_weights)
    params, model_state = subject.init(jax.random.key(0), batch)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def objective(params):
        return subject.loss(params, model_state, batch, jax.random.key(0), train=True)

    step = jax.jit(lambda p: (objective(p), jax.tree.map(lambda a, g: a - 0.5 * g, p, objective(p)[1])))
    losses = []
    for _ in range(30):
        ((value, output), _), params = step(params)
        metric = subject.metrics()["loss"]
        measured = metric.compute(jax.device_get(metric.update(metric.empty(), output.values)))["loss"]
        assert measured == pytest.approx(float(value), rel=1e-5)
        losses.append(float(value))
    assert losses[-1] < 0.7 * losses[0]


def test_a_mask_of_nothing_gives_a_loss_of_zero_and_no_gradient(batch):
    subject = task()
    params, model_state = subject.init(jax.random.key(0), batch)
    empty = {**batch, "mask": jnp.zeros(64)}
    (value, _), gradients = jax.value_and_grad(
        lambda p: subject.loss(p, model_state, empty, jax.random.key(0), train=True), has_aux=True
    )(params)
    assert float(value) == 0
    assert all(not np.any(g) for g in jax.tree.leaves(gradients))


def test_predictions_are_probabilities_of_the_logits(batch):
    subject = task()
    params, model_state = subject.init(jax.random.key(0), batch)
    predictions = subject.predict(params, model_state, batch)
    np.testing.assert_allclose(predictions["probabilities"].sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(predictions["probabilities"].argmax(axis=1), predictions["logits"].argmax(axis=1))


def test_evaluation_names_every_metric(batch):
    subject = task(top_k=(3, 5))
    found = {}
    for metric in subject.metrics().values():
        found |= metric.compute(jax.device_get(metric.empty()))
    assert {
        "loss",
        "accuracy",
        "top3_accuracy",
        "top5_accuracy",
        "confusion_matrix",
        "per_class_precision",
        "per_class_recall",
        "per_class_f1",
        "expected_calibration_error",
    } <= found.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": (1.0,)}, "has 1 values; there are 10 classes"),
        ({"top_k": (1,)}, "between 2 and the 10 classes"),
        ({"top_k": (11,)}, "top_k has 11"),
    ],
)
def test_options_that_do_not_fit_the_classes_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        task(**options)
