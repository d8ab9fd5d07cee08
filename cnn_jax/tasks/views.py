"""Test-time augmentation: several views of an image, whose logits are averaged."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Views: TypeAlias = Literal["one", "mirror", "mirror_translate"]


def average_over_views(
    logits: Callable[[Array], Array], images: Float[Array, "B *space C"], *, views: Views
) -> Float[Array, "B K"]:
    """The weighted mean of the logits of several views of each image.

    - "one": the image as it is.
    - "mirror": half of the image, half of its mirror image (left to right).
    - "mirror_translate": half of "mirror"; the other half is "mirror" of the image moved by one pixel along every axis
      of space, forwards and backwards, with the border reflected: six views (Jordan 2024, Section 3.5).

    Args:
      logits: images to logits `[B, K]`.
      images: `[B, *space, C]`.
      views: which ones.
    """
    if views == "one":
        return logits(images)
    shown, weights = [images], [1.0]
    if views == "mirror_translate":
        rank = images.ndim - 2
        padded = jnp.pad(images, ((0, 0), *((1, 1),) * rank, (0, 0)), mode="reflect")
        for start in (0, 2):
            place = tuple(slice(start, start + size) for size in images.shape[1:-1])
            shown.append(padded[(slice(None), *place)])
        weights = [0.5, 0.25, 0.25]
    stacked = jnp.stack([*shown, *(jnp.flip(view, axis=-2) for view in shown)])  # [V, B, *space, C]
    shares = np.array(2 * weights, np.float32) / 2
    # One view after the other: the memory of one, and the network is compiled once.
    return jnp.einsum("v,vbk->bk", shares, jax.lax.map(logits, stacked))
