"""Pretrained parameters in, exported models out."""

from cnn_jax.weights.convert import convert, to_torch
from cnn_jax.weights.load import load
from cnn_jax.weights.pretrained import best_published

__all__ = ["best_published", "convert", "load", "to_torch"]
