"""Classification: one label per image, any loss of `cnn_jax.losses`."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError
from jaxtyping import Array, Float, Key
from pydantic import Field

from cnn_jax.errors import UserError
from cnn_jax.metrics import ConfusionMatrix, ExpectedCalibrationError, Metric, TopKAccuracy, WeightedMean
from cnn_jax.nn.heads import Classifier
from cnn_jax.nn.segmentation_heads import Segmenter
from cnn_jax.ops.random import named_key
from cnn_jax.tasks.task import Output
from cnn_jax.tasks.views import CROP_SHARE, OF_OTHER_SIZES, SCALES, Views, average_over_views
from cnn_jax.types import Batch, PyTree


@dataclasses.dataclass(frozen=True)
class Classification:
    """Images to one of K classes.

    Attributes:
      model: logits `[B, K]` from images `[B, *space, C]`.
      loss_function: `(logits, labels, *, class_weights) -> float32[B]`, each example's loss times its class weight;
        labels are classes `[B]`, or their probabilities `[B, K]` where the batch has `target`.
      num_classes: K.
      class_weights: one weight per class, or None for equal ones.
      divide_by_weights: the mean loss divides by the sum of the examples' class weights, as torch's cross-entropy does,
        instead of by their number; `losses.DIVIDED_BY_WEIGHTS` says for which losses. With `target` it is their number
        also in torch.
      views: what evaluation and prediction average logits over, see `tasks.views`.
      crop_share: sides of the views "five_crop" and "ten_crop", as shares of the image's; the network is then shown
        images of that size.
      scales: sides of the views "scales", likewise.
      top_k: which top-k accuracies evaluation reports, besides top-1.
      auxiliary_weight: in training, the loss of each of the model's auxiliary heads is added with this weight, as part
        of each example's loss; evaluation is of the main head alone. GoogLeNet was trained with 0.3 (Szegedy et al.
        2015, Section 5), torchvision trains Inception-v3 with 0.4. With 0 such heads get no
        gradient; weight decay still acts on them.

    Raises:
      UserError: the number of class weights is not K, all are 0, a k is not between 2 and K, an auxiliary weight for a
        model without auxiliary heads, or a model that classifies every pixel.
    """

    model: nn.Module
    loss_function: Callable[..., Float[Array, "B"]]
    num_classes: int
    divide_by_weights: bool
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    views: Views = "one"
    crop_share: Annotated[float, Field(gt=0, le=1)] = CROP_SHARE
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = SCALES
    top_k: tuple[int, ...] = ()
    auxiliary_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def __post_init__(self):
        if isinstance(self.model, Segmenter):
            raise UserError(
                "config.task classifies whole images, but config.model classifies every pixel, with logits"
                f" [B, *space, {self.num_classes}]: choose a network for classification, or another task"
            )
        if self.class_weights is not None and len(self.class_weights) != self.num_classes:
            raise UserError(
                f"config.task.class_weights has {len(self.class_weights)} values; there are {self.num_classes} classes"
            )
        if self.class_weights is not None and not any(self.class_weights):
            raise UserError("config.task.class_weights are all 0: no example would count")
        for k in self.top_k:
            if not 2 <= k <= self.num_classes:
                raise UserError(f"config.task.top_k has {k}; it must lie between 2 and the {self.num_classes} classes")
        if not 0 <= self.auxiliary_weight < math.inf:
            raise UserError(
                f"config.task.auxiliary_weight is {self.auxiliary_weight}; it must be 0 or more, and finite"
            )
        if self.auxiliary_weight and not (isinstance(self.model, Classifier) and self.model.auxiliary):
            raise UserError(
                f"config.task.auxiliary_weight is {self.auxiliary_weight}, but the model has no auxiliary heads; leave"
                " it out, or build a model that has them, such as 'googlenet' with auxiliary=True"
            )

    def init(self, key: Key[Array, ""], batch: Batch) -> tuple[PyTree, PyTree]:
        """Parameters and statistics for images of this batch's shape.

        Raises:
          UserError: the network cannot take the views of evaluation.
        """
        variables = dict(self.model.init({"params": named_key(key, "params")}, batch["image"], train=False))
        params = variables.pop("params")
        if self.views in OF_OTHER_SIZES:
            # Shapes alone, and now: the first evaluation may be hours away.
            try:
                jax.eval_shape(self._logits, params, variables, batch)
            except ScopeParamShapeError:
                raise UserError(
                    f"config.task.views {self.views!r} shows the network images of other sizes than it is made for;"
                    " choose 'mirror', or a network that averages over space before its dense layers"
                ) from None
        return params, variables

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""], *, train: bool
    ) -> tuple[Float[Array, ""], Output]:
        """The weighted mean loss over the examples whose mask is 1, of `target` where the batch has it, or `label`."""
        auxiliary: Mapping[str, Array] = {}
        if train:
            result: Any = self.model.apply(
                {"params": params, **model_state},
                batch["image"],
                train=True,
                rngs={"dropout": named_key(key, "dropout")},
                mutable=list(model_state),
                method="with_auxiliary" if self.auxiliary_weight else None,
            )
            outputs, updated = result
            logits, auxiliary = outputs if self.auxiliary_weight else (outputs, {})
            model_state = {**model_state, **updated}
        else:
            logits = self._logits(params, model_state, batch)
        labels, mask = batch["label"], batch["mask"]
        weights = None if self.class_weights is None else jnp.asarray(self.class_weights, jnp.float32)
        learnt = batch.get("target", labels)
        losses = self.loss_function(logits, learnt, class_weights=weights)
        for extra in auxiliary.values():
            losses = losses + self.auxiliary_weight * self.loss_function(extra, learnt, class_weights=weights)
        example_weight = jnp.ones_like(mask)
        if weights is not None and self.divide_by_weights and "target" not in batch:
            # A masked label may be anything; index 0 keeps the look-up in range.
            example_weight = weights[jnp.where(mask > 0, labels, 0)]
        total_weight = jnp.sum(mask * example_weight)
        # `where`, not a product: a masked NaN must not reach the sum.
        total = jnp.sum(jnp.where(mask > 0, losses, 0.0))
        mean = total / jnp.maximum(total_weight, jnp.finfo(jnp.float32).tiny)
        values = {"logits": logits, "label": labels, "mask": mask, "loss": losses, "weight": example_weight}
        return mean, Output(model_state=model_state, weight=total_weight, values=values)

    def predict(self, params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """`logits` `[B, K]` and `probabilities` `[B, K]` (softmax)."""
        logits = self._logits(params, model_state, batch)
        return {"logits": logits, "probabilities": jax.nn.softmax(logits, axis=-1)}

    def _logits(self, params: PyTree, model_state: PyTree, batch: Batch) -> Float[Array, "B K"]:
        """The logits of evaluation, averaged over the views."""
        variables = {"params": params, **model_state}

        def logits(images: Array) -> Any:
            return self.model.apply(variables, images, train=False)

        return average_over_views(
            logits, batch["image"], views=self.views, crop_share=self.crop_share, scales=self.scales
        )

    def metrics(self) -> Mapping[str, Metric]:
        """Loss, accuracies, confusion matrix with per-class scores, and calibration error."""
        top_k = {f"top{k}_accuracy": TopKAccuracy(k) for k in self.top_k}
        return {
            **self.training_metrics(),
            **top_k,
            "confusion": ConfusionMatrix(self.num_classes),
            "calibration": ExpectedCalibrationError(),
        }

    def training_metrics(self) -> Mapping[str, Metric]:
        """Loss and top-1 accuracy."""
        return {"loss": WeightedMean("loss"), "accuracy": TopKAccuracy(1)}
