"""The step as a pure function: accumulation, class weights, averages, and what it must not depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.data.batches import training_batch
from cnn_jax.data.sources import open_source
from cnn_jax.data.transform import evaluation_transform
from cnn_jax.losses import softmax_cross_entropy
from cnn_jax.models import create
from cnn_jax.tasks import Classification
from cnn_jax.train.state import create_state
from cnn_jax.train.step import empty_metrics, merge_metrics, train_step

WEIGHTS = tuple(0.5 + 0.25 * k for k in range(10))


@pytest.fixture(scope="module")
def batch():
    data = open_source("sklearn", "digits").load("train[:48]")
    return jax.tree.map(jnp.asarray, training_batch(data, seed=0, step=0, batch_size=24))


def make(*, norm="none", dropout_rate=0.0, class_weights=None, ema_decay=None, accumulate=1, scale=1.0):
    """(initial state, compiled step) of a small network."""
    model = create(
        "classic_stack", num_classes=10, in_channels=1, channels=(4,), dense=(8,), norm=norm, dropout_rate=dropout_rate
    )
    task = Classification(
        model=model,
        loss_function=softmax_cross_entropy,
        num_classes=10,
        divide_by_weights=True,
        class_weights=class_weights,
    )
    optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), optax.scale(scale))
    state = create_state(
        jax.random.key(0),
        {"image": jnp.zeros((1, 8, 8, 1))},
        task=task,
        optimizer=optimizer,
        ema=ema_decay is not None,
    )
    step = functools.partial(
        train_step,
        key=jax.random.key(1),
        task=task,
        optimizer=optimizer,
        learning_rate=optax.constant_schedule(0.1),
        batch_transform=lambda _, batch: evaluation_transform(batch, mean=(0.3,), std=(0.4,)),
        accumulate=accumulate,
        ema_decay=ema_decay,
    )
    return state, jax.jit(step), task


def difference(a, b):
    """The largest absolute difference between two pytrees."""
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("accumulate", [2, 3, 24])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_accumulation_equals_the_large_batch(batch, accumulate, class_weights):
    # A ragged mask too: microbatches then have different numbers of examples that count.
    masked = {**batch, "mask": jnp.asarray([1.0] * 17 + [0.0] * 7)}
    state, whole, _ = make(class_weights=class_weights)
    _, parts, _ = make(class_weights=class_weights, accumulate=accumulate)
    (a, metrics_a), (b, metrics_b) = whole(state, masked), parts(state, masked)
    assert difference(a.params, b.params) < 1e-6
    assert difference(metrics_a.states["accuracy"], metrics_b.states["accuracy"]) == 0
    assert difference(metrics_a.gradient_norm, metrics_b.gradient_norm) < 1e-6


def test_with_batch_norm_accumulation_normalises_each_microbatch(batch):
    state, whole, _ = make(norm="batch")
    _, parts, _ = make(norm="batch", accumulate=2)
    a, b = whole(state, batch)[0], parts(state, batch)[0]
    assert difference(a.params, b.params) > 1e-4
    # The second microbatch's update starts from the first one's: 0.9² of the start (variance 1) is left, not 0.9.
    variances = [s.model_state["batch_stats"]["backbone"]["stage1"]["norm"]["var"] for s in (a, b)]
    inputs = evaluation_transform(batch, mean=(0.3,), std=(0.4,))["image"]
    for variance, order, microbatches in ((variances[0], np.arange(24), 1), (variances[1], np.arange(24), 2)):
        expected = np.ones(4)
        for index in range(microbatches):
            micro = inputs[order[index::microbatches]]
            maps = jax.lax.conv_general_dilated(
                micro,
                state.params["backbone"]["stage1"]["conv"]["kernel"],
                (1, 1),
                "VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            expected = 0.9 * expected + 0.1 * np.asarray(maps, np.float64).var(axis=(0, 1, 2))
        np.testing.assert_allclose(variance, expected, rtol=1e-5)


def test_the_loss_divides_by_the_sum_of_class_weights(batch):
    state, _, task = make(class_weights=WEIGHTS)
    inputs = evaluation_transform(batch, mean=(0.3,), std=(0.4,))
    loss, output = task.loss(state.params, state.model_state, inputs, jax.random.key(0), train=False)
    logits = np.asarray(output.values["logits"], np.float64)
    logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    labels = np.asarray(batch["label"])
    weights = np.asarray(WEIGHTS)[labels]
    assert float(loss) == pytest.approx(-(weights * logp[np.arange(24), labels]).sum() / weights.sum(), rel=1e-5)
    assert float(output.weight) == pytest.approx(weights.sum(), rel=1e-6)


def test_a_masked_example_changes_nothing(batch):
    state, step, _ = make(class_weights=WEIGHTS)
    mask = jnp.ones(24).at[5].set(0.0)
    poisoned = {**batch, "mask": mask, "image": batch["image"].at[5].set(255), "label": batch["label"].at[5].set(0)}
    assert difference(step(state, {**batch, "mask": mask})[0], step(state, poisoned)[0]) == 0


def test_the_step_is_a_pure_function_of_state_and_batch(batch):
    state, step, _ = make(norm="batch", dropout_rate=0.5, ema_decay=0.9)
    before = jax.device_get(state)
    assert difference(step(state, batch), step(state, batch)) == 0
    assert difference(before, state) == 0


def test_dropout_differs_between_steps(batch):
    state, step, _ = make(dropout_rate=0.5)
    later = state.replace(step=state.step + 1)
    assert difference(step(state, batch)[0].params, step(later, batch)[0].params) > 0


def test_the_average_follows_its_formula_with_a_growing_decay(batch):
    state, step, _ = make(norm="batch", ema_decay=0.5)
    expected = jax.tree.map(np.asarray, state.ema)
    for t in range(12):
        state, _ = step(state, batch)
        d = min(0.5, (1 + t) / (10 + t))
        new = {"params": state.params, "model_state": state.model_state}
        expected = jax.tree.map(lambda old, value, d=d: d * old + (1 - d) * np.asarray(value), expected, new)
    assert difference(expected, state.ema) < 1e-6


def test_metrics_merge_like_one_long_stretch_and_keep_the_first_bad_step(batch):
    state, step, task = make()
    metrics = task.training_metrics()
    merged = empty_metrics(task)
    for t in range(3):
        if t == 1:
            state = state.replace(params=jax.tree.map(lambda p: p * jnp.nan, state.params))
        state, new = step(state, batch)
        merged = merge_metrics(metrics, merged, new)
    assert int(merged.bad_step) == 2
    assert not np.isfinite(merged.bad_loss)
    assert int(merged.states["accuracy"]["count"]) == 72


def test_an_update_that_is_not_finite_counts_as_bad_though_loss_and_gradient_are(batch):
    state, step, _ = make(scale=float("inf"))
    _, metrics = step(state, batch)
    assert np.isfinite(metrics.bad_loss)
    assert np.isfinite(metrics.bad_gradient_norm)
    assert int(metrics.bad_step) == 1
