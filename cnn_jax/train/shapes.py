"""Shapes of a model's variables and of augmented images, for images of one size, without computing any."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.data.transform import training_transform
from cnn_jax.errors import UserError
from cnn_jax.train.config import Data
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


def check_augmentations(data: Data, image_shape: Sequence[int], *, num_classes: int) -> None:
    """Refuse augmentations that do not suit the images, before anything is written.

    Args:
      data: with checked nodes.
      image_shape: `[*space, C]`.
      num_classes: K.

    Raises:
      UserError: as the augmentations.
    """
    batch_size = data.batch_size
    ints = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.uint8),
        "mask": jax.ShapeDtypeStruct((batch_size,), jnp.float32),
        **dict.fromkeys(("label", "id", "epoch"), ints),
    }
    zeros, ones = (0.0,) * image_shape[-1], (1.0,) * image_shape[-1]
    options: dict[str, Any] = {"augmentations": data.augment, "num_classes": num_classes, "mean": zeros, "std": ones}
    jax.eval_shape(functools.partial(training_transform, **options), jax.random.key(0), batch)
