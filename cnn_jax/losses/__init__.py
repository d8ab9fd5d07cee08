"""Losses per example, unreduced: the caller masks and reduces them once.

A loss takes logits and labels and returns float32 `[B]`; `LOSSES` is the table that a config's `loss.name` looks up.
"""

from cnn_jax.losses.classification import (
    margin_loss,
    mean_squared_error,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
)

LOSSES = {
    "margin_loss": margin_loss,
    "mean_squared_error": mean_squared_error,
    "sigmoid_binary_cross_entropy": sigmoid_binary_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}

__all__ = ["LOSSES", "margin_loss", "mean_squared_error", "sigmoid_binary_cross_entropy", "softmax_cross_entropy"]

DIVIDED_BY_WEIGHTS = frozenset({"softmax_cross_entropy"})
"""Losses whose mean over examples divides by the sum of the labels' class weights, as torch's does; the others weigh
every class's term of every example, and divide by the number of examples."""

ONE_OF_K_OR_SEVERAL = frozenset({"sigmoid_binary_cross_entropy"})
"""Losses whose targets `[B, K]` may be of one class or of several at once; their option `one_of_k` says which."""
