"""Mirror images, and crop windows of padded ones: what nearly every recipe for small images begins with.

These copy pixels and take any rank; their matrices move what goes with two-dimensional images (`warp.py`).
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field

from cnn_jax.data.augment.draws import Probability, where_chosen
from cnn_jax.data.augment.geometry import translation_matrices
from cnn_jax.data.augment.warp import Border, affine


def random_flip(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], *, probability: Probability = 0.5
) -> Float[Array, "B *space C"]:
    """Mirror each image along its last spatial axis (left to right) with the given probability."""
    return where_chosen(_random_sides(keys, probability), jnp.flip(images, axis=-2), images)


def random_flip_matrices(keys: Key[Array, "B"], *, size: tuple[int, int], probability: float) -> Float[Array, "B 3 3"]:
    """What `random_flip` does to images of this height and width with the same keys."""
    return flip_matrices(_random_sides(keys, probability), size=size)


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
    return where_chosen(_alternating_sides(keys, epoch), jnp.flip(images, axis=-2), images)


def alternating_flip_matrices(
    keys: Key[Array, "B"], *, size: tuple[int, int], epoch: Int[Array, "B"]
) -> Float[Array, "B 3 3"]:
    """What `alternating_flip` does to images of this height and width with the same keys."""
    return flip_matrices(_alternating_sides(keys, epoch), size=size)


def flip_matrices(flip: Bool[Array, "B"], *, size: tuple[int, int]) -> Float[Array, "B 3 3"]:
    """Mirror left to right where the flag is set."""
    zero = jnp.zeros(flip.shape)
    return affine([zero + 1, zero, zero, zero, jnp.where(flip, -1.0, 1.0), jnp.where(flip, size[1] - 1.0, 0.0)])


def random_crop(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    padding: Annotated[int, Field(ge=1)] = 4,
    mode: Border = "zero",
) -> Float[Array, "B *space C"]:
    """Pad every spatial side by `padding` pixels, then crop a window of the original size at a random place.

    He et al. 2016, section 4.2, with 4 pixels of zeros. Zero is black: augmentation comes before normalisation.
    """
    rank = images.ndim - 2
    width = [(0, 0), *[(padding, padding)] * rank, (0, 0)]
    padded = jnp.pad(images, width, mode="constant" if mode == "zero" else "reflect")

    def crop(start: Int[Array, "rank"], image: Float[Array, "*padded C"]) -> Float[Array, "*space C"]:
        return jax.lax.dynamic_slice(image, (*start, 0), images.shape[1:])

    return jax.vmap(crop)(_random_starts(keys, rank, padding), padded)


def random_crop_matrices(keys: Key[Array, "B"], *, size: tuple[int, int], padding: int) -> Float[Array, "B 3 3"]:
    """What `random_crop` does to images of this height and width with the same keys."""
    y, x = (padding - _random_starts(keys, len(size), padding)).astype(jnp.float32).T
    return translation_matrices(y, x)


def _random_sides(keys: Key[Array, "B"], probability: float) -> Bool[Array, "B"]:
    """Which examples `random_flip` mirrors."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)


def _alternating_sides(keys: Key[Array, "B"], epoch: Int[Array, "B"]) -> Bool[Array, "B"]:
    """Which examples `alternating_flip` mirrors."""
    return jax.vmap(jax.random.bernoulli)(keys) ^ (epoch % 2 == 1)


def _random_starts(keys: Key[Array, "B"], rank: int, padding: int) -> Int[Array, "B rank"]:
    """Where `random_crop`'s windows begin in the padded images."""
    return jax.vmap(lambda key: jax.random.randint(key, (rank,), 0, 2 * padding + 1))(keys)
