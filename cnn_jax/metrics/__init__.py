"""Metrics that merge: `empty`, `update` on the device, `merge` anywhere, `compute` on the host."""

from cnn_jax.metrics.classification import ConfusionMatrix, ExpectedCalibrationError, TopKAccuracy
from cnn_jax.metrics.mean import WeightedMean
from cnn_jax.metrics.metric import Metric, State, Values, add_states

__all__ = [
    "ConfusionMatrix",
    "ExpectedCalibrationError",
    "Metric",
    "State",
    "TopKAccuracy",
    "Values",
    "WeightedMean",
    "add_states",
]
