"""Losses against scikit-learn on real scores, torch's formulas in float64, extreme logits, and labels that are no
class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.datasets
import sklearn.linear_model
import sklearn.metrics

from cnn_jax.errors import UserError
from cnn_jax.losses import (
    LOSSES,
    margin_loss,
    mean_squared_error,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
)

NUM_CLASSES = 3
CLASS_WEIGHTS = np.array([0.5, 2.0, 3.25])
SMOOTHED = [softmax_cross_entropy, sigmoid_binary_cross_entropy]
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@pytest.fixture(scope="module")
def wine():
    """Scores of a logistic regression, float64 [178 3], and the true classes, int32 [178]."""
    images, labels = sklearn.datasets.load_wine(return_X_y=True)
    images = (images - images.mean(axis=0)) / images.std(axis=0)
    # Strong regularisation: scores that are unsure, and some that are wrong.
    model = sklearn.linear_model.LogisticRegression(C=0.003, max_iter=1000).fit(images, labels)
    return model.decision_function(images).astype(np.float32).astype(np.float64), labels.astype(np.int32)


def torch_cross_entropy(logits, labels, label_smoothing, class_weights):
    """torch.nn.CrossEntropyLoss(reduction="none") as documented: targets are probabilities, weights per class."""
    targets = (1 - label_smoothing) * np.eye(NUM_CLASSES)[labels] + label_smoothing / NUM_CLASSES
    return -(class_weights * scipy.special.log_softmax(logits, axis=1) * targets).sum(axis=1)


def soft_targets(count):
    """Probabilities of the classes, float32 `[count 3]`: of two, of all, and of one alone."""
    generator = np.random.default_rng(1)
    rows = generator.dirichlet(np.ones(NUM_CLASSES), count)
    rows[::3, 0] = 0
    rows[1::3] = np.eye(NUM_CLASSES)[generator.integers(0, NUM_CLASSES, len(rows[1::3]))]
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def torch_bce_with_logits(logits, targets, class_weights):
    """torch.nn.BCEWithLogitsLoss(weight=..., reduction="none") in its direct form, mean over the classes."""
    log_p, log_q = scipy.special.log_expit(logits), scipy.special.log_expit(-logits)
    return -(class_weights * (targets * log_p + (1 - targets) * log_q)).mean(axis=1)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_softmax_cross_entropy_is_torchs(wine, label_smoothing, class_weights):
    logits, labels = wine
    expected = torch_cross_entropy(logits, labels, label_smoothing, 1.0 if class_weights is None else class_weights)
    got = softmax_cross_entropy(
        logits.astype(np.float32), labels, label_smoothing=label_smoothing, class_weights=class_weights
    )
    np.testing.assert_allclose(got, expected, rtol=2e-6)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_softmax_cross_entropy_of_probabilities_is_torchs(wine, label_smoothing, class_weights):
    logits, _ = wine
    targets = soft_targets(len(logits))
    smoothed = (1 - label_smoothing) * targets.astype(np.float64) + label_smoothing / NUM_CLASSES
    weights = np.ones(NUM_CLASSES) if class_weights is None else class_weights
    expected = np.zeros(len(logits))
    for k in range(NUM_CLASSES):
        expected -= weights[k] * smoothed[:, k] * (logits[:, k] - np.log(np.exp(logits).sum(axis=1)))

    def total(z):
        losses = softmax_cross_entropy(z, targets, label_smoothing=label_smoothing, class_weights=class_weights)
        return losses.sum(), losses

    gradient, got = jax.grad(total, has_aux=True)(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)
    mass = (weights * smoothed).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, mass * scipy.special.softmax(logits, axis=1) - weights * smoothed, atol=2e-6)


@every_loss
@pytest.mark.parametrize("options", [{}, {"class_weights": CLASS_WEIGHTS}], ids=["unweighted", "weighted"])
def test_one_hot_probabilities_are_the_label(wine, loss, options):
    logits, labels = np.float32(wine[0]), wine[1]
    if loss in SMOOTHED:
        options = {**options, "label_smoothing": 0.1}
    one_hot = np.eye(NUM_CLASSES, dtype=np.float32)[labels]
    own = {**options, "one_of_k": True} if loss is sigmoid_binary_cross_entropy else options
    np.testing.assert_allclose(loss(logits, one_hot, **own), loss(logits, labels, **options), rtol=2e-6)


@pytest.mark.parametrize("loss", SMOOTHED)
def test_the_loss_of_mixed_targets_is_the_mixture_of_the_losses(wine, loss):
    logits, first = np.float32(wine[0]), wine[1]
    second, eye = np.roll(first, 60), np.eye(NUM_CLASSES, dtype=np.float32)
    share = np.random.default_rng(0).random(len(first), np.float32)
    targets = share[:, None] * eye[first] + (1 - share)[:, None] * eye[second]
    options = {"one_of_k": True} if loss is sigmoid_binary_cross_entropy else {}
    parts = [loss(logits, labels, label_smoothing=0.2, class_weights=CLASS_WEIGHTS) for labels in (first, second)]
    got = loss(logits, targets, label_smoothing=0.2, class_weights=CLASS_WEIGHTS, **options)
    np.testing.assert_allclose(got, share * parts[0] + (1 - share) * parts[1], rtol=5e-6)


@pytest.mark.parametrize(
    "bad", [(0.0, 0.0, 0.0), (0.5, 0.51, 0.0), (-0.5, 1.0, 0.5), (2.0, -1.0, 0.0), (np.nan, 0.5, 0.5), (0, 0.99, 0)]
)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_a_row_that_is_no_probabilities_gives_nan_in_loss_and_gradient_of_its_example_only(bad, label_smoothing):
    targets = jnp.array([bad, (0.25, 0.75, 0.0), (0.3333, 0.3333, 0.3334)])
    logits = jnp.array([[1.0, -jnp.inf, 3.0], [1.0, 2.0, 3.0], [0.0, 1e4, -1e4]])

    def total(logits):
        losses = softmax_cross_entropy(logits, targets, label_smoothing=label_smoothing)
        return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(logits)
    np.testing.assert_array_equal(np.isnan(losses), [True, False, False])
    np.testing.assert_array_equal(np.isnan(gradient), np.array([[True], [False], [False]]).repeat(3, axis=1))


@pytest.mark.parametrize("class_weights", [None, np.array([2.0, 0.0, 1.0])], ids=["unweighted", "weighted"])
def test_classes_excluded_by_minus_infinity_may_have_the_probability_zero(class_weights):
    logits, targets = jnp.array([[0.0, -jnp.inf, 0.0]]), jnp.array([[0.25, 0.0, 0.75]])
    weights = np.ones(3) if class_weights is None else class_weights
    mass = 0.25 * weights[0] + 0.75 * weights[2]
    value, gradient = jax.value_and_grad(
        lambda z: softmax_cross_entropy(z, targets, class_weights=class_weights).sum()
    )(logits)
    np.testing.assert_allclose(value, mass * np.log(2.0), rtol=1e-6)
    expected = [[mass / 2 - 0.25 * weights[0], 0, mass / 2 - 0.75 * weights[2]]]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_softmax_cross_entropy_reduced_by_the_sum_of_weights_is_sklearns_log_loss(wine):
    logits, labels = wine
    weight = CLASS_WEIGHTS[labels]
    losses = np.asarray(softmax_cross_entropy(logits, labels, class_weights=CLASS_WEIGHTS), np.float64)
    expected = sklearn.metrics.log_loss(labels, scipy.special.softmax(logits, axis=1), sample_weight=weight)
    np.testing.assert_allclose(losses.sum() / weight.sum(), expected, rtol=1e-6)


def test_gradient_of_softmax_cross_entropy_is_probability_minus_target(wine):
    logits, labels = wine
    gradient = jax.grad(lambda z: softmax_cross_entropy(z, labels, label_smoothing=0.3).sum())(jnp.asarray(logits))
    targets = 0.7 * np.eye(NUM_CLASSES)[labels] + 0.1
    np.testing.assert_allclose(gradient, scipy.special.softmax(logits, axis=1) - targets, atol=5e-7)


def test_sigmoid_binary_cross_entropy_of_a_class_index_is_sklearns_one_against_the_rest(wine):
    logits, labels = wine
    expected = [
        sklearn.metrics.log_loss(labels == k, scipy.special.expit(logits[:, k]), labels=[False, True])
        for k in range(NUM_CLASSES)
    ]
    got = np.asarray(sigmoid_binary_cross_entropy(logits, labels), np.float64)
    np.testing.assert_allclose(got.mean(), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["index", "multi-hot int", "probabilities"])
def test_sigmoid_binary_cross_entropy_is_torchs(wine, kind, label_smoothing, class_weights):
    logits, index = wine
    generator = np.random.default_rng(0)
    labels = {
        "index": index,
        "multi-hot int": generator.integers(0, 2, logits.shape, dtype=np.int32),
        "probabilities": generator.random(logits.shape, dtype=np.float32),
    }[kind]
    targets = np.eye(NUM_CLASSES)[index] if kind == "index" else labels.astype(np.float64)
    ignorance = 1 / NUM_CLASSES if kind == "index" else 1 / 2
    targets = (1 - label_smoothing) * targets + label_smoothing * ignorance
    expected = torch_bce_with_logits(logits, targets, 1.0 if class_weights is None else class_weights)
    got = sigmoid_binary_cross_entropy(logits, labels, label_smoothing=label_smoothing, class_weights=class_weights)
    np.testing.assert_allclose(got, expected, rtol=2e-6)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("kind", ["index", "targets"])
def test_mean_squared_error_is_sklearns(wine, kind, class_weights):
    logits, index = wine
    targets = np.eye(NUM_CLASSES)[index] if kind == "index" else np.random.default_rng(0).normal(size=logits.shape)
    labels = index if kind == "index" else targets.astype(np.float32)
    per_class = sklearn.metrics.mean_squared_error(targets, logits, multioutput="raw_values")
    got = np.asarray(mean_squared_error(logits, labels, class_weights=class_weights), np.float64)
    np.testing.assert_allclose(got.mean(), np.mean(per_class * (1 if class_weights is None else class_weights)), 1e-6)
    assert got.shape == index.shape


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("kind", ["index", "multi-hot"])
def test_margin_loss_is_eq_4(kind, class_weights):
    generator = np.random.default_rng(0)
    lengths, index = generator.random((50, NUM_CLASSES)), generator.integers(0, NUM_CLASSES, 50)
    present = np.eye(NUM_CLASSES)[index] if kind == "index" else generator.integers(0, 2, lengths.shape).astype(float)
    expected = np.zeros(50)
    for i, k in np.ndindex(lengths.shape):  # Sabour et al. 2017: m+ = 0.9, m- = 0.1, lambda = 0.5
        term = max(0, 0.9 - lengths[i, k]) ** 2 if present[i, k] else 0.5 * max(0, lengths[i, k] - 0.1) ** 2
        expected[i] += term * (1 if class_weights is None else class_weights[k])
    labels = index.astype(np.int32) if kind == "index" else present.astype(np.float32)
    got = margin_loss(lengths.astype(np.float32), labels, class_weights=class_weights)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@every_loss
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_extreme_logits_have_finite_losses_and_gradients(loss, scale):
    logits = scale * jnp.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    labels = jnp.zeros(4, jnp.int32)
    assert np.isfinite(loss(logits, labels)).all()
    assert np.isfinite(jax.grad(lambda z: loss(z, labels).sum())(logits)).all()


def test_extreme_logits_have_the_exact_limits():
    logits, labels = jnp.array([[1e4, -1e4], [1e4, -1e4]]), jnp.array([0, 1])
    np.testing.assert_array_equal(softmax_cross_entropy(logits, labels), [0.0, 2e4])
    np.testing.assert_array_equal(sigmoid_binary_cross_entropy(logits, labels), [0.0, 1e4])


def test_a_small_loss_of_a_confident_answer_is_not_rounded_to_zero():
    got = sigmoid_binary_cross_entropy(jnp.array([[30.0]]), jnp.array([0]))
    np.testing.assert_allclose(got, [np.log1p(np.exp(-30.0))], rtol=1e-6)


def test_softmax_cross_entropy_allows_classes_excluded_by_minus_infinity():
    logits, labels = jnp.array([[0.0, -jnp.inf, 0.0]]), jnp.array([2])
    np.testing.assert_allclose(softmax_cross_entropy(logits, labels), [np.log(2.0)], rtol=1e-6)
    gradient = jax.grad(lambda z: softmax_cross_entropy(z, labels).sum())(logits)
    np.testing.assert_allclose(gradient, [[0.5, 0.0, -0.5]], atol=1e-7)


@every_loss
@pytest.mark.parametrize("bad", [-1, NUM_CLASSES, np.iinfo(np.int32).min, np.iinfo(np.int32).max])
@pytest.mark.parametrize("class_weights", [None, np.array([0.0, 1.0, 0.0])], ids=["unweighted", "weighted"])
def test_a_label_that_is_no_class_gives_nan_in_loss_and_gradient_of_its_example_only(loss, bad, class_weights):
    logits = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 1e4, -1e4]])

    def total(logits, labels):
        losses = loss(logits, labels, class_weights=class_weights)
        return losses.sum(), losses

    gradient, losses = jax.jit(jax.grad(total, has_aux=True))(logits, jnp.array([bad, 1, bad]))
    np.testing.assert_array_equal(np.isnan(losses), [True, False, True])
    np.testing.assert_array_equal(np.isnan(gradient), np.array([[True], [False], [True]]).repeat(3, axis=1))
    good = total(logits, jnp.array([1, 1, 1]))[1]
    np.testing.assert_allclose(losses[1], good[1], rtol=1e-6)


@pytest.mark.parametrize("bad", [-1.0, 2.0, np.nan])
def test_a_binary_target_outside_0_and_1_gives_nan_in_loss_and_gradient(bad):
    targets, logits = jnp.array([[0.0, bad], [1.0, 0.5]]), jnp.zeros((2, 2))
    nan = np.array([True, False])
    np.testing.assert_array_equal(np.isnan(sigmoid_binary_cross_entropy(logits, targets)), nan)
    gradient = jax.grad(lambda z: sigmoid_binary_cross_entropy(z, targets).sum())(logits)
    np.testing.assert_array_equal(np.isnan(gradient), np.stack([nan, nan], axis=1))


@every_loss
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_logits_are_computed_in_float32(loss, dtype):
    logits, labels = jnp.array([[7.0, 0.125, -3.0]], dtype), jnp.array([1])
    got = loss(logits, labels)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, loss(logits.astype(jnp.float32), labels))
    assert jax.grad(lambda z: loss(z, labels).sum())(logits).dtype == dtype


@every_loss
@pytest.mark.parametrize("label_dtype", [np.int8, np.int32])
def test_losses_hold_under_jit_vmap_and_strict_promotion(loss, label_dtype):
    generator = np.random.default_rng(0)
    # 200 classes: more than an int8 can compare itself with.
    logits = generator.normal(size=(2, 5, 200)).astype(np.float32)
    labels = generator.integers(0, 100, (2, 5)).astype(label_dtype)
    weights = generator.random(200).astype(np.float32)
    alone = [loss(z, y, class_weights=weights) for z, y in zip(logits, labels, strict=True)]
    with jax.numpy_dtype_promotion("strict"):
        together = jax.jit(jax.vmap(lambda z, y: loss(z, y, class_weights=weights)))(logits, labels)
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-6)


@pytest.mark.parametrize("loss", SMOOTHED)
@pytest.mark.parametrize("label_smoothing", [-0.1, 1.5, float("nan")])
def test_label_smoothing_out_of_range_is_an_error_that_names_it(loss, label_smoothing):
    with pytest.raises(UserError, match=f"label_smoothing is {label_smoothing}"):
        loss(jnp.zeros((1, 2)), jnp.array([0]), label_smoothing=label_smoothing)


@every_loss
def test_no_examples_have_no_losses(loss):
    assert loss(jnp.zeros((0, 3)), jnp.zeros((0,), jnp.int32)).shape == (0,)
