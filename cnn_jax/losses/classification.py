"""Losses of a classifier: one float32 number per example, never reduced here.

Labels are validated on the host, where an error can name the file and the value. Inside `jit` nothing can be raised, so
a bad label gives NaN for its example, in the loss and in every entry of the gradient: training stops at the next check
instead of learning a wrong class. (Indexing alone would wrap -1 to the last class, and a one-hot row of zeros has a
gradient that is finite and wrong.)

What this asks of the caller: padding needs a label in range. A reducer that selects with the mask hides the NaN of a
padded example in the value, but not in the gradient, because 0 x NaN is NaN.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int
from pydantic import Field

from cnn_jax.errors import UserError
from cnn_jax.types import Array


def softmax_cross_entropy(
    logits: Float[Array, "B K"],
    labels: Int[Array, "B"] | Float[Array, "B K"],
    *,
    label_smoothing: Annotated[float, Field(ge=0, le=1)] = 0.0,
    class_weights: Float[Array, "K"] | None = None,
) -> Float32[jax.Array, "B"]:
    r"""Cross-entropy of the softmax, as `torch.nn.CrossEntropyLoss(reduction="none")` computes it.

    With log-probabilities $\ell = \log\mathrm{softmax}(z)$, label $y$, smoothing $\epsilon$ and class weights $w$
    $$L = -(1 - \epsilon)\, w_y \ell_y - \frac{\epsilon}{K} \sum_k w_k \ell_k.$$
    The smoothed target is that of Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7: the true
    class keeps `1 - label_smoothing + label_smoothing / K`. Each class's term has that class's own weight, so with
    smoothing the weight of the true class does not factor out. With probabilities $t$ instead of a label
    $$L = -\sum_k w_k \left[ (1 - \epsilon)\, t_k + \epsilon / K \right] \ell_k.$$

    With class weights, torch's mean divides by the sum of `class_weights[labels]`, not by the number of examples; a
    reducer that wants torch's value must do the same. With probabilities it divides by the number of examples.

    Args:
      logits: scores before the softmax, of any floating type; computed in float32. Minus infinity excludes a class.
      labels: the true class `[B]`, in `[0, K)`, or the probabilities of the classes `[B K]`, as mixup makes them: each
        in [0, 1], and their sum no further than 0.001 from 1. An example with anything else has a NaN loss and
        gradient. (torch takes such probabilities as they are.)
      label_smoothing: share of the target that is spread evenly over all K classes, in [0, 1].
      class_weights: a factor for each class's term; `None` means ones.

    Returns:
      The loss of each example, in nats.

    Raises:
      UserError: `label_smoothing` is not in [0, 1].

    Example:
      >>> softmax_cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 3, 4]))
      Array([1.3862944, 1.3862944,       nan], dtype=float32)
    """
    _check_label_smoothing(label_smoothing)
    num_classes = logits.shape[1]
    log_probabilities = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32), axis=-1)
    if labels.ndim == 2:
        targets = jnp.asarray(labels, jnp.float32)
        valid = _probabilities(targets) & (jnp.abs(jnp.sum(targets, axis=1) - 1.0) <= 1e-3)
        targets = (1.0 - label_smoothing) * targets + label_smoothing / num_classes
        # A class that a mask excludes adds nothing where its target is 0: 0 x -inf would be NaN.
        excluded = (targets == 0.0) & jnp.isneginf(log_probabilities)
        terms = _weigh(targets * jnp.where(excluded, 0.0, log_probabilities), class_weights)
        return -jnp.sum(terms, axis=1) * _one_or_nan(valid)
    log_probabilities = _weigh(log_probabilities, class_weights)
    # The index is clipped, not dropped, so that the NaN factor below reaches the logits through it.
    index = jnp.clip(jnp.asarray(labels, jnp.int32), 0, num_classes - 1)
    # A look-up, not a product with a one-hot row: 0 x -inf would be NaN for a class that a mask excludes. [B 1] -> [B]
    loss = -(1.0 - label_smoothing) * jnp.take_along_axis(log_probabilities, index[:, None], axis=1)[:, 0]
    if label_smoothing:
        loss = loss - label_smoothing / num_classes * jnp.sum(log_probabilities, axis=-1)
    return loss * _one_or_nan(_in_range(labels, num_classes))


def sigmoid_binary_cross_entropy(
    logits: Float[Array, "B K"],
    labels: Int[Array, "B"] | Int[Array, "B K"] | Float[Array, "B K"],
    *,
    label_smoothing: Annotated[float, Field(ge=0, le=1)] = 0.0,
    one_of_k: bool = False,
    class_weights: Float[Array, "K"] | None = None,
) -> Float32[jax.Array, "B"]:
    r"""K independent yes-or-no questions: binary cross-entropy of the sigmoid, mean over the classes.

    With targets $t$
    $$L = \frac{1}{K} \sum_k w_k \left[ t_k \log(1 + e^{-z_k}) + (1 - t_k) \log(1 + e^{z_k}) \right],$$
    the row mean of `torch.nn.BCEWithLogitsLoss(weight=class_weights, reduction="none")`. Both logarithms are softplus,
    which neither overflows nor cancels. A reducer divides by the number of examples, with or without class weights.

    A class index asks "this class or another" K times, as Wightman et al. 2021, "ResNet strikes back", train on
    ImageNet. Label smoothing draws the targets towards ignorance, which differs between the two kinds of label:

    * class index: `(1 - s) * one_hot + s / K`, as timm's `BinaryCrossEntropy` (one of K classes is true);
    * multi-hot: `(1 - s) * labels + s / 2`, as Keras's `BinaryCrossentropy` (each class is true or false).

    Targets `[B K]` that mixup made of class indices are of the first kind: `one_of_k` says so.

    Args:
      logits: scores before the sigmoid, of any floating type; computed in float32.
      labels: a class index `[B]` in `[0, K)`, or the multi-hot targets or probabilities `[B K]` in [0, 1]. An example
        with any other value has a NaN loss and gradient.
      label_smoothing: `s` above, in [0, 1].
      one_of_k: targets `[B K]` are the probabilities of one class of K, and smoothed as class indices are.
      class_weights: a factor for each class's term; `None` means ones. It does not change the divisor K.

    Returns:
      The loss of each example, in nats.

    Raises:
      UserError: `label_smoothing` is not in [0, 1].

    Example:
      >>> sigmoid_binary_cross_entropy(jnp.array([[1e4, -1e4], [0.0, 0.0]]), jnp.array([1, 1]))
      Array([1.000000e+04, 6.931472e-01], dtype=float32)
    """
    _check_label_smoothing(label_smoothing)
    logits = jnp.asarray(logits, jnp.float32)
    if labels.ndim == 1:
        targets = _one_hot(labels, logits.shape[1])
        valid = _in_range(labels, logits.shape[1])
        ignorance = 1.0 / logits.shape[1]
    else:
        targets = jnp.asarray(labels, jnp.float32)
        valid = _probabilities(targets)
        ignorance = 1.0 / logits.shape[1] if one_of_k else 0.5
    targets = (1.0 - label_smoothing) * targets + label_smoothing * ignorance
    terms = targets * jax.nn.softplus(-logits) + (1.0 - targets) * jax.nn.softplus(logits)
    return jnp.mean(_weigh(terms, class_weights), axis=-1) * _one_or_nan(valid)


def mean_squared_error(
    logits: Float[Array, "B K"],
    labels: Int[Array, "B"] | Float[Array, "B K"],
    *,
    class_weights: Float[Array, "K"] | None = None,
) -> Float32[jax.Array, "B"]:
    r"""Squared distance of the outputs from the one-hot target, mean over the classes.

    $$L = \frac{1}{K} \sum_k w_k (z_k - t_k)^2$$
    on the raw outputs, with no softmax: the square loss of Hui & Belkin 2021, "Evaluation of neural architectures
    trained with square loss vs cross-entropy in classification tasks", without their rescaling for many classes. With
    targets `[B K]` it is `torch.nn.MSELoss(reduction="none")`, mean over K. A reducer divides by the number of
    examples, with or without class weights.

    Args:
      logits: the network's outputs, of any floating type; computed in float32.
      labels: a class index `[B]` in `[0, K)` (any other value gives NaN for that example, in the loss and the
        gradient), or real-valued targets `[B K]`.
      class_weights: a factor for each class's term; `None` means ones. It does not change the divisor K.

    Returns:
      The loss of each example.

    Example:
      >>> mean_squared_error(jnp.array([[0.0, 3.0]]), jnp.array([1]))
      Array([2.], dtype=float32)
    """
    logits = jnp.asarray(logits, jnp.float32)
    if labels.ndim == 1:
        targets = _one_hot(labels, logits.shape[1])
        valid = _in_range(labels, logits.shape[1])
    else:
        targets = jnp.asarray(labels, jnp.float32)
        valid = jnp.full(logits.shape[:1], True)
    return jnp.mean(_weigh(jnp.square(logits - targets), class_weights), axis=-1) * _one_or_nan(valid)


def margin_loss(
    logits: Float[Array, "B K"],
    labels: Int[Array, "B"] | Float[Array, "B K"],
    *,
    present: float = 0.9,
    absent: float = 0.1,
    absent_share: float = 0.5,
    class_weights: Float[Array, "K"] | None = None,
) -> Float32[jax.Array, "B"]:
    r"""How far the lengths of capsules fall short of being long for the class and short for the others.

    With lengths $z$ and targets $t$
    $$L = \sum_k w_k \left[ t_k \max(0, m^+ - z_k)^2 + \lambda (1 - t_k) \max(0, z_k - m^-)^2 \right],$$
    Eq. 4 of Sabour et al. 2017, "Dynamic routing between capsules", summed over the classes as there. A reducer divides
    by the number of examples, with or without class weights.

    Args:
      logits: lengths, of any floating type; computed in float32.
      labels: a class index `[B]` in `[0, K)` (any other value gives NaN for that example, in the loss and the
        gradient), or multi-hot targets `[B K]`, for images with several objects.
      present: $m^+$, the length that is long enough.
      absent: $m^-$, the length that is short enough.
      absent_share: $\lambda$, the factor for classes that are not there, so that they do not shrink all capsules first.
      class_weights: a factor for each class's term; `None` means ones.

    Returns:
      The loss of each example.

    Example:
      >>> [round(loss, 4) for loss in margin_loss(jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([0, 0])).tolist()]
      [0.24, 0.0]
    """
    lengths = jnp.asarray(logits, jnp.float32)
    if labels.ndim == 1:
        targets = _one_hot(labels, lengths.shape[1])
        valid = _in_range(labels, lengths.shape[1])
    else:
        targets = jnp.asarray(labels, jnp.float32)
        valid = jnp.full(lengths.shape[:1], True)
    # Spoilt here, because the gradient of a margin that is kept is a 0 that is selected. [B] -> [B 1]
    lengths = lengths * _one_or_nan(valid)[:, None]
    terms = targets * jnp.square(jax.nn.relu(present - lengths))
    terms = terms + absent_share * (1.0 - targets) * jnp.square(jax.nn.relu(lengths - absent))
    return jnp.sum(_weigh(terms, class_weights), axis=-1)


def _check_label_smoothing(label_smoothing: float) -> None:
    # Written so that NaN fails too.
    if not 0.0 <= label_smoothing <= 1.0:
        raise UserError(f"label_smoothing is {label_smoothing!r}; it is a share of the target and lies in [0, 1]")


def _one_hot(labels: Int[Array, "B"], num_classes: int) -> Float32[jax.Array, "B K"]:
    return jax.nn.one_hot(jnp.asarray(labels, jnp.int32), num_classes, dtype=jnp.float32)


def _in_range(labels: Int[Array, "B"], num_classes: int) -> jax.Array:
    """Which labels are classes, bool `[B]`."""
    labels = jnp.asarray(labels, jnp.int32)
    return (labels >= 0) & (labels < num_classes)


def _probabilities(targets: Float32[jax.Array, "B K"]) -> jax.Array:
    """Which rows lie in [0, 1], bool `[B]`."""
    return jnp.all((targets >= 0.0) & (targets <= 1.0), axis=1)


def _one_or_nan(valid: jax.Array) -> Float32[jax.Array, "B"]:
    """The factor that spoils an invalid example; selecting NaN instead would leave a gradient of 0 behind."""
    return jnp.where(valid, jnp.float32(1.0), jnp.float32(jnp.nan))


def _weigh(terms: Float32[jax.Array, "B K"], class_weights: Float[Array, "K"] | None) -> Float32[jax.Array, "B K"]:
    if class_weights is None:
        return terms
    return terms * jnp.asarray(class_weights, jnp.float32)[None, :]  # [K] -> [1 K]
