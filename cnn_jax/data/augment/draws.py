"""What a random augmentation draws: a few uniform numbers from each example's own key, and whether to act at all."""

from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
from pydantic import AfterValidator, Field

from cnn_jax.errors import UserError


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise UserError(f"should be (smallest, largest), got {ends}; swap them")
    return ends


Ascending = AfterValidator(_ascending)
"""Marks a pair of options as the ends of a range, so that configs with swapped ones are refused."""

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""The share of the examples that an operation changes."""


def uniforms(keys: Key[Array, "B"], *, count: int) -> Float[Array, "B count"]:
    """Numbers in [0, 1), `count` for each example, from its own key alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)


def between(share: Float[Array, "*B"], low: float, high: float) -> Float[Array, "*B"]:
    """A share of 0 becomes `low`, a share of 1 `high`."""
    return low + (high - low) * share


def per_example(values: Array, *, like: Array) -> Array:
    """`[B]` to `[B, 1, ..., 1]` with the rank of `like`, for arithmetic with a batch of images."""
    # [B] -> [B, 1, ..., 1]
    return values.reshape(-1, *[1] * (like.ndim - 1))


def where_chosen(
    chosen: Bool[Array, "B"], changed: Float[Array, "B *space C"], images: Float[Array, "B *space C"]
) -> Float[Array, "B *space C"]:
    """The changed image of the examples whose flag is set, the image as it was of the others."""
    return jnp.where(per_example(chosen, like=images), changed, images)
