"""The classification task with every loss of the table."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data.batches import training_batch
from cnn_jax.data.sources import Source, open_source
from cnn_jax.data.transform import evaluation_transform
from cnn_jax.errors import UserError
from cnn_jax.losses import DIVIDED_BY_WEIGHTS, LOSSES
from cnn_jax.models import create
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import BatchNorm
from cnn_jax.tasks import Classification
from cnn_jax.train.run import build


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


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("class_weights", [None, tuple(0.5 + 0.1 * k for k in range(10))])
def test_targets_are_learnt_where_the_batch_has_them(batch, loss, class_weights):
    subject = task(loss, class_weights=class_weights)
    params, model_state = subject.init(jax.random.key(0), batch)
    mask = np.ones(64, np.float32)
    mask[-3:] = 0
    eye = jnp.eye(10)
    target = 0.75 * eye[batch["label"]] + 0.25 * eye[jnp.roll(batch["label"], 1)]
    value, output = subject.loss(
        params, model_state, {**batch, "target": target, "mask": mask}, jax.random.key(0), train=True
    )
    weights = None if class_weights is None else np.array(class_weights, np.float32)
    losses = LOSSES[loss](output.values["logits"], target, class_weights=weights)
    np.testing.assert_allclose(value, np.asarray(losses, np.float64)[:-3].mean(), rtol=1e-5)  # by B also with weights
    assert float(output.weight) == 61
    np.testing.assert_array_equal(output.values["label"], batch["label"])
    metrics = {}
    for metric in subject.training_metrics().values():
        metrics |= metric.compute(jax.device_get(metric.update(metric.empty(), output.values)))
    right = np.asarray(output.values["logits"]).argmax(axis=1) == np.asarray(batch["label"])
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(right[:-3].mean())


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


class TwoMaps(nn.Module):
    """Two feature maps of one pixel."""

    @nn.compact
    def __call__(self, x, *, train):
        del train
        early = nn.tanh(nn.Conv(6, x.shape[1:-1], padding="VALID", name="early")(x))
        return {"early": early, "late": nn.tanh(nn.Conv(7, (1, 1), name="late")(early))}


class NormalisedHead(nn.Module):
    """A head with statistics."""

    @nn.compact
    def __call__(self, x, *, train):
        return PooledHead(10, name="logits")(BatchNorm(name="norm")(x, train=train), train=train)


def auxiliary_task(weight, **options):
    heads = {"early": NormalisedHead(name="auxiliary1")}
    model = Classifier(backbone=TwoMaps(), head=PooledHead(10), in_channels=1, auxiliary=heads)
    return dataclasses.replace(task(**options), model=model, auxiliary_weight=weight)


@pytest.mark.parametrize("class_weights", [None, tuple(0.5 + 0.1 * k for k in range(10))])
def test_auxiliary_losses_are_added_in_training_alone(batch, class_weights):
    subject, plain = (auxiliary_task(weight, class_weights=class_weights) for weight in (0.3, 0.0))
    params, model_state = jax.jit(subject.init)(jax.random.key(0), batch)
    assert set(params) == {"backbone", "head", "auxiliary1"}
    batch = {**batch, "mask": batch["mask"].at[-1].set(0)}

    def run(subject, train):
        function = functools.partial(subject.loss, train=train)
        return jax.jit(jax.value_and_grad(function, has_aux=True))(params, model_state, batch, jax.random.key(0))

    (value, output), gradients = run(subject, True)
    (main, without), main_gradients = run(plain, True)
    apply = functools.partial(subject.model.apply, train=True, method="with_auxiliary", mutable=["batch_stats"])
    (_, extra), _ = jax.jit(apply)({"params": params, **model_state}, batch["image"])
    weights = None if class_weights is None else jnp.asarray(class_weights)
    losses = subject.loss_function(extra["early"], batch["label"], class_weights=weights)
    mean = jnp.sum(losses * batch["mask"]) / output.weight
    assert float(value) == pytest.approx(float(main + 0.3 * mean), rel=1e-5)
    np.testing.assert_array_equal(output.values["logits"], without.values["logits"])
    metric = subject.training_metrics()["loss"]
    measured = metric.compute(jax.device_get(metric.update(metric.empty(), output.values)))["loss"]
    assert measured == pytest.approx(float(value), rel=1e-5)

    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(main_gradients["auxiliary1"]))
    statistics = (state["batch_stats"]["auxiliary1"]["norm"]["mean"] for state in (output.model_state, model_state))
    assert not np.array_equal(*statistics)
    evaluated, expected = (run(each, False)[0][1].values for each in (subject, plain))
    for key, value in evaluated.items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_an_auxiliary_weight_needs_auxiliary_heads():
    with pytest.raises(UserError, match=r"auxiliary_weight is 0\.3, but the model has no auxiliary heads") as caught:
        task(auxiliary_weight=0.3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "weight", "message"),
    [
        ({"name": "googlenet", "auxiliary": True}, 0.3, None),
        ({"name": "googlenet"}, 0.3, r"config\.task\.auxiliary_weight is 0\.3, but the model has no auxiliary heads"),
        (
            {"name": "googlenet", "auxiliary": True},
            -0.1,
            r"config\.task\.auxiliary_weight.* greater than or equal to 0",
        ),
    ],
)
def test_a_config_with_auxiliary_heads_builds(tiny_config, model, weight, message):
    def noise(_, start, stop):
        images = np.random.default_rng(0).integers(0, 256, (stop - start, 16, 16, 1), np.uint8)
        return images, np.arange(start, stop, dtype=np.int32) % 10

    source = Source(name="noise", class_names=tuple("0123456789"), sizes={"train": 150, "test": 45}, load_range=noise)
    tiny_config["model"] = {"in_channels": 1, "width_multiplier": 0.05, **model}
    tiny_config["task"]["auxiliary_weight"] = weight
    if message is None:
        assert build(tiny_config, source=source).task.auxiliary_weight == weight
        return
    with pytest.raises(UserError, match=message):
        build(tiny_config, source=source)
