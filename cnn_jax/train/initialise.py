"""Initial values that depend on training images: a table of functions of (shapes of parameters, images)."""

from collections.abc import Callable, Mapping
from typing import Annotated

import jax
import numpy as np
from jaxtyping import Float
from pydantic import Field

from cnn_jax.errors import UserError
from cnn_jax.ops.whitening import whitening_filters
from cnn_jax.train.optim import parameter_path
from cnn_jax.types import PyTree

Values = Mapping[str, np.ndarray]


def whitening(
    params: PyTree,
    images: Float[np.ndarray, "N *space C"],
    *,
    layer: str = "backbone/whiten",
    epsilon: Annotated[float, Field(gt=0)] = 5e-4,
) -> Values:
    """Whitening filters for a convolution that sees the image: `ops.whitening.whitening_filters`.

    Args:
      params: arrays or their shapes.
      images: training images, normalised.
      layer: path of the convolution, whose kernel is `[*window, C, F]` with F = 2 · window · C.
      epsilon: keeps directions without variance small.

    Returns:
      The path of the kernel and its values.

    Raises:
      UserError: there is no such kernel, or it has another number of filters.
    """
    shapes = {parameter_path(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    path = f"{layer}/kernel"
    if path not in shapes:
        kernels = ", ".join(name.removesuffix("/kernel") for name in shapes if name.endswith("/kernel"))
        raise UserError(f"config.init.layer: the model has no kernel {path!r}; layers with one: {kernels}")
    *window, channels, features = shapes[path]
    expected = 2 * channels * int(np.prod(window))
    if channels != images.shape[-1] or features != expected:
        raise UserError(
            f"config.init.layer {layer!r} has a kernel of shape {shapes[path]}; whitening makes filters for the image's"
            f" {images.shape[-1]} channels, {expected} for this window"
        )
    return {path: whitening_filters(images, window=tuple(window), epsilon=epsilon)}


INITIALISERS: dict[str, Callable[..., Values]] = {"whitening": whitening}
"""Each takes (shapes of parameters, normalised training images) and its options; what it returns replaces values."""
