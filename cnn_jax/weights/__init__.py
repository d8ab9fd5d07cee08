"""Pretrained parameters in, exported models out."""

from cnn_jax.weights.convert import convert, to_torch

__all__ = ["convert", "to_torch"]
