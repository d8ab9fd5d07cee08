"""Mirror images, and crop windows of padded ones: what nearly every recipe for small images begins with."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field


def random_flip(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], *, probability: Annotated[float, Field(ge=0, le=1)] = 0.5
) -> Float[Array, "B *space C"]:
    """Mirror each image along its last spatial axis (left to right) with the given probability."""
    return _mirror(jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys), images)


def alternating_flip(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], *, epoch: Int[Array, "B"]
) -> Float[Array, "B *space C"]:
    """Mirror a random half of the examples in even epochs and the other half in odd ones.

    In any two epochs that follow each other the network sees both sides of every example, where independent flips
    repeat a side half of the time (Jordan 2024, Section 3.6).

    Args:
      keys: one per example, the same in every epoch.
      images: `[B, *space, C]`.
      epoch: the pass over the data that each example is in.
    """
    first = jax.vmap(jax.random.bernoulli)(keys)
    return _mirror(first ^ (epoch % 2 == 1), images)


def _mirror(flip: Bool[Array, "B"], images: Float[Array, "B *space C"]) -> Float[Array, "B *space C"]:
    """Mirror the images whose flag is set along their last spatial axis."""
    # [B] -> [B, 1, ..., 1]
    flip = flip.reshape(-1, *[1] * (images.ndim - 1))
    return jnp.where(flip, jnp.flip(images, axis=-2), images)


def random_crop(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    padding: Annotated[int, Field(ge=1)] = 4,
    mode: Literal["zero", "reflect"] = "zero",
) -> Float[Array, "B *space C"]:
    """Pad every spatial side by `padding` pixels, then crop a window of the original size at a random place.

    He et al. 2016, section 4.2, with 4 pixels of zeros. Zero is black: augmentation comes before normalisation.
    """
    rank = images.ndim - 2
    width = [(0, 0), *[(padding, padding)] * rank, (0, 0)]
    padded = jnp.pad(images, width, mode="constant" if mode == "zero" else "reflect")

    def crop(key: Key[Array, ""], image: Float[Array, "*padded C"]) -> Float[Array, "*space C"]:
        start = jax.random.randint(key, (rank,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(image, (*start, 0), images.shape[1:])

    return jax.vmap(crop)(keys, padded)
