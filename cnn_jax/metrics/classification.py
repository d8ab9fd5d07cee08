"""Metrics of a classifier: top-k accuracy, confusion matrix with precision, recall and F1, calibration error.

All agree on what a prediction is: the class with the largest logit, the lowest index among equals, and none at all if
any logit of the example is NaN. (`argmax` alone would point at the NaN: a diverged network would then score the share
of one class, which does not look broken.) A label outside `[0, K)` is never predicted correctly.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from cnn_jax.errors import UserError
from cnn_jax.metrics.metric import State, Values, add_states, counted, ratio
from cnn_jax.types import Array


@dataclasses.dataclass(frozen=True)
class TopKAccuracy:
    """Share of examples whose true class is among the k largest logits, as a stable sort ranks them.

    An example is correct if fewer than k classes have a larger logit, or an equal one and a lower index; so k = 1 is
    `argmax(logits) == label`, and constant logits do not score 100 %. An example with a NaN logit is wrong. With k of
    at least the number of classes everything else is correct.

    Results: `accuracy` for k = 1, otherwise `top{k}_accuracy`.

    Attributes:
      k: how many guesses an example has, at least 1.

    Raises:
      UserError: k is less than 1.

    Example:
      >>> metric = TopKAccuracy(1)
      >>> values = {"logits": jnp.array([[0.0, 1.0], [5.0, 5.0]]), "label": jnp.array([1, 1]), "mask": jnp.ones(2)}
      >>> metric.compute(metric.update(metric.empty(), values))
      {'accuracy': 0.5}
    """

    k: int

    def __post_init__(self) -> None:
        """Refuses a value that would make the metric meaningless."""
        if self.k < 1:
            raise UserError(f"k is {self.k!r}; top-k accuracy needs at least 1 guess")

    def empty(self) -> State:
        """The state of no examples: `correct` and `count`, int32 scalars."""
        return {"correct": jnp.zeros((), jnp.int32), "count": jnp.zeros((), jnp.int32)}

    def update(self, state: State, values: Values) -> State:
        """Counts the examples and the correct ones."""
        keep = counted(values)
        correct = keep & _in_top_k(values["logits"], values["label"], self.k)
        batch = {"correct": jnp.sum(correct, dtype=jnp.int32), "count": jnp.sum(keep, dtype=jnp.int32)}
        return add_states(state, batch)

    def merge(self, a: State, b: State) -> State:
        """The sum of both states."""
        return add_states(a, b)

    def compute(self, state: State) -> dict[str, float | np.ndarray]:
        """The share of correct examples."""
        name = "accuracy" if self.k == 1 else f"top{self.k}_accuracy"
        return {name: float(ratio(state["correct"], state["count"], empty=np.nan))}


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
    """How often each true class was predicted as each class, and what follows from it.

    Results, each as scikit-learn defines it:

    * `confusion_matrix`, int64 `[K K]`: rows are true classes, columns predictions.
    * `per_class_precision`, `per_class_recall`, `per_class_f1`, float64 `[K]`: 0 where the denominator is 0, that is
      the precision of a class that was never predicted, the recall of one that never occurs, the F1 of one that does
      neither (`precision_recall_fscore_support(labels=range(K), zero_division=0)`).
    * `macro_precision`, `macro_recall`, `macro_f1`: their means over all K classes, zeros included (`average="macro"`).
    * `balanced_accuracy`: mean recall over the classes that occur (`balanced_accuracy_score`), so it is larger than
      `macro_recall` if a class is missing.

    With no examples all but the matrix are NaN. An example with a NaN logit has no prediction: it is in no column, but
    its class's recall and F1 count it as missed. An example whose label is outside `[0, K)` is in no row.

    Attributes:
      num_classes: K, at least 1.

    Raises:
      UserError: `num_classes` is less than 1, or (in `update`) differs from the number of logits.

    Example:
      >>> metric = ConfusionMatrix(2)
      >>> values = {"logits": jnp.array([[0.0, 1.0], [5.0, 0.0]]), "label": jnp.array([1, 1]), "mask": jnp.ones(2)}
      >>> metric.compute(metric.update(metric.empty(), values))["confusion_matrix"].tolist()
      [[0, 0], [1, 1]]
    """

    num_classes: int

    def __post_init__(self) -> None:
        """Refuses a value that would make the metric meaningless."""
        if self.num_classes < 1:
            raise UserError(f"num_classes is {self.num_classes!r}; a confusion matrix needs at least 1 class")

    def empty(self) -> State:
        """The state of no examples: int32 `confusion_matrix` `[K K]`, and `no_prediction` `[K]` for NaN logits."""
        num_classes = self.num_classes
        return {
            "confusion_matrix": jnp.zeros((num_classes, num_classes), jnp.int32),
            "no_prediction": jnp.zeros((num_classes,), jnp.int32),
        }

    def update(self, state: State, values: Values) -> State:
        """Counts each example in the cell of its label and its prediction."""
        logits, label = jnp.asarray(values["logits"]), jnp.asarray(values["label"], jnp.int32)
        if logits.shape[1] != self.num_classes:
            raise UserError(f"num_classes is {self.num_classes}, but there are {logits.shape[1]} logits per example")
        keep = counted(values)
        predicted = ~jnp.any(jnp.isnan(logits), axis=1)
        # A negative index would wrap around before "drop" sees it, so what must not count is sent past the end.
        row = jnp.where(label >= 0, label, self.num_classes)
        column = jnp.argmax(logits, axis=1).astype(jnp.int32)
        cells = state["confusion_matrix"].at[row, column].add((keep & predicted).astype(jnp.int32), mode="drop")
        missed = state["no_prediction"].at[row].add((keep & ~predicted).astype(jnp.int32), mode="drop")
        return {"confusion_matrix": cells, "no_prediction": missed}

    def merge(self, a: State, b: State) -> State:
        """The sum of both states."""
        return add_states(a, b)

    def compute(self, state: State) -> dict[str, float | np.ndarray]:
        """The matrix and the scores."""
        matrix = np.asarray(state["confusion_matrix"], np.int64)
        hits, predictions = np.diagonal(matrix), matrix.sum(axis=0)
        occurrences = matrix.sum(axis=1) + np.asarray(state["no_prediction"], np.int64)
        undefined = 0.0 if occurrences.any() else np.nan
        precision = ratio(hits, predictions, empty=undefined)
        recall = ratio(hits, occurrences, empty=undefined)
        f1 = ratio(2 * hits, predictions + occurrences, empty=undefined)
        return {
            "confusion_matrix": matrix,
            "per_class_precision": precision,
            "per_class_recall": recall,
            "per_class_f1": f1,
            "macro_precision": float(precision.mean()),
            "macro_recall": float(recall.mean()),
            "macro_f1": float(f1.mean()),
            # Absent classes have recall 0, so the sum is that of the classes that occur.
            "balanced_accuracy": float(ratio(recall.sum(), np.count_nonzero(occurrences), empty=np.nan)),
        }


@dataclasses.dataclass(frozen=True)
class ExpectedCalibrationError:
    r"""How far confidence is from accuracy: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    $$\mathrm{ECE} = \sum_{m=1}^{M} \frac{|B_m|}{n} \left| \mathrm{acc}(B_m) - \mathrm{conf}(B_m) \right|$$
    where the bin $B_m$ holds the examples with confidence in $((m-1)/M, m/M]$, and confidence is the largest softmax
    probability, computed in float32. A NaN logit in a counted example makes the result NaN.

    Results: `expected_calibration_error`, in [0, 1].

    Attributes:
      num_bins: M, at least 1; the paper uses 15.

    Raises:
      UserError: `num_bins` is less than 1.

    Example:
      >>> metric = ExpectedCalibrationError()
      >>> values = {"logits": jnp.array([[0.0, 0.0], [0.0, 0.0]]), "label": jnp.array([0, 1]), "mask": jnp.ones(2)}
      >>> metric.compute(metric.update(metric.empty(), values))
      {'expected_calibration_error': 0.0}
    """

    num_bins: int = 15

    def __post_init__(self) -> None:
        """Refuses a value that would make the metric meaningless."""
        if self.num_bins < 1:
            raise UserError(f"num_bins is {self.num_bins!r}; the calibration error needs at least 1 bin")

    def empty(self) -> State:
        """The state of no examples, by bin: int32 `count` and `correct`, float32 `confidence` (its sum), each `[M]`."""
        zeros = {"count": jnp.int32, "correct": jnp.int32, "confidence": jnp.float32}
        return {name: jnp.zeros((self.num_bins,), dtype) for name, dtype in zeros.items()}

    def update(self, state: State, values: Values) -> State:
        """Adds each example to its bin."""
        confidence = jnp.max(jax.nn.softmax(jnp.asarray(values["logits"], jnp.float32), axis=1), axis=1)
        correct = _in_top_k(values["logits"], values["label"], 1)
        # side="left": a confidence on an edge belongs to the bin below it. NaN lands in the last bin.
        edges = jnp.asarray(np.arange(1, self.num_bins) / self.num_bins, jnp.float32)
        index = jnp.searchsorted(edges, confidence, side="left").astype(jnp.int32)
        bins = jnp.arange(self.num_bins, dtype=jnp.int32)
        # A sum over a [B M] selection, not a scatter: its order is fixed, so the float sum is equal from run to run.
        member = (index[:, None] == bins[None, :]) & counted(values)[:, None]
        batch = {
            "count": jnp.sum(member, axis=0, dtype=jnp.int32),
            "correct": jnp.sum(member & correct[:, None], axis=0, dtype=jnp.int32),
            "confidence": jnp.sum(jnp.where(member, confidence[:, None], 0.0), axis=0),
        }
        return add_states(state, batch)

    def merge(self, a: State, b: State) -> State:
        """The sum of both states."""
        return add_states(a, b)

    def compute(self, state: State) -> dict[str, float | np.ndarray]:
        """The error; the bins' sizes cancel, so it is a sum of |correct - confidence| over n."""
        gaps = np.abs(np.asarray(state["correct"], np.float64) - np.asarray(state["confidence"], np.float64))
        count = np.asarray(state["count"], np.int64).sum()
        return {"expected_calibration_error": float(ratio(gaps.sum(), count, empty=np.nan))}


def _in_top_k(logits: Float[Array, "B K"], labels: Int[Array, "B"], k: int) -> Bool[jax.Array, "B"]:
    """Whether fewer than k classes rank before the label; false for a NaN logit and for a label outside `[0, K)`."""
    logits, labels = jnp.asarray(logits), jnp.asarray(labels, jnp.int32)
    classes = jnp.arange(logits.shape[1], dtype=jnp.int32)[None, :]  # [1 K]
    index = jnp.clip(labels, 0, logits.shape[1] - 1)[:, None]  # [B 1]
    own = jnp.take_along_axis(logits, index, axis=1)  # [B 1]
    before = (logits > own) | ((logits == own) & (classes < index))
    valid = (labels >= 0) & (labels < logits.shape[1]) & ~jnp.any(jnp.isnan(logits), axis=1)
    return valid & (jnp.sum(before, axis=1, dtype=jnp.int32) < k)
