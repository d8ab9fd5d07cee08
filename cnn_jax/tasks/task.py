"""The protocol between training and what a batch means: `train/` knows nothing else of models, losses and metrics."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import flax.struct
from jaxtyping import Array, Float, Key

from cnn_jax.metrics import Metric
from cnn_jax.types import Batch, Leaf, PyTree


class Output(flax.struct.PyTreeNode):
    """What a loss hands back beside its scalar.

    Attributes:
      model_state: the collections that the forward pass updated (BatchNorm statistics), whole.
      weight: the denominator of the mean loss, float32 `[]`, so that microbatches can be averaged exactly.
      values: per-example arrays with leading axis B for the metrics: `logits`, `label`, `mask`, `loss`, `weight`.
    """

    model_state: PyTree
    weight: Leaf
    values: Mapping[str, Leaf]


@runtime_checkable
class Task(Protocol):
    """What a batch means: how parameters start, what is minimised, what is predicted and what is measured.

    An entry of TASKS is built with the keywords `model`, `loss_function`, `num_classes` and `divide_by_weights`, and
    with the options of the config's `task` node.
    """

    def init(self, key: Key[Array, ""], batch: Batch) -> tuple[PyTree, PyTree]:
        """Initial (params, model_state) for batches like this one."""
        ...

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""], *, train: bool
    ) -> tuple[Float[Array, ""], Output]:
        """The mean loss over the examples whose mask is 1."""
        ...

    def predict(self, params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Predictions of one batch, each with leading axis B."""
        ...

    def metrics(self) -> Mapping[str, Metric]:
        """Everything that evaluation measures."""
        ...

    def training_metrics(self) -> Mapping[str, Metric]:
        """The cheap part of `metrics`, measured on every training batch."""
        ...
