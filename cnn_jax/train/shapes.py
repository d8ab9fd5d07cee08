"""Shapes of a model's variables for images of one size."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.types import PyTree


def abstract_variables(model: nn.Module, image_shape: Sequence[int], *, name: str) -> PyTree:
    """Shapes and types of a model's variables, without computing any.

    Args:
      model: the network.
      image_shape: `[*space, C]`.
      name: model and data, for errors.

    Raises:
      UserError: the images do not fit the network; for small ones the message has the smallest size that works.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
