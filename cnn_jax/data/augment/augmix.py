"""AugMix: the image mixed with several chains of random operations on it (Hendrycks et al. 2020)."""

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
from pydantic import Field

from cnn_jax.data.augment.operations import apply_choices, from_levels, to_levels
from cnn_jax.data.augment.policy_tables import augmix_magnitudes, signed_choices
from cnn_jax.data.augment.warp import Interpolation

RANDOM_DEPTH = 3
"""The most operations of a chain whose number is random."""


def augmix(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    severity: Annotated[int, Field(ge=1, le=10)] = 3,
    width: Annotated[int, Field(ge=1)] = 3,
    depth: Annotated[int, Field(ge=1)] | None = None,
    alpha: Annotated[float, Field(gt=0)] = 1.0,
    all_operations: bool = True,
    interpolation: Interpolation = "bilinear",
) -> Float[Array, "B *space C"]:
    """Mix each image with chains of random operations on it (Hendrycks et al. 2020, Algorithm 1, `AugmentAndMix`).

    `m image + (1 - m) Σ w chain(image)` with w ~ Dirichlet(alpha, …) and m ~ Beta(alpha, alpha). The operations and
    their magnitudes are those of torchvision's `AugMix`; the mixture is rounded to the nearest level, where
    torchvision's cuts, which takes half a level of brightness away. The paper's loss, which compares several such views
    of an image, is no part of it.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1], grey (C = 1) or red, green and blue (C = 3).
      severity: each operation's magnitude is drawn from the weakest so many of ten.
      width: how many chains.
      depth: operations in a chain; None draws 1 to 3 for each chain.
      alpha: of both distributions: small ones take mostly a single chain, and mostly it or mostly the image.
      all_operations: with brightness, colour, contrast and sharpness, which overlap with the corruptions of
        ImageNet-C and CIFAR-10-C: the paper leaves them out.
      interpolation: for shears and rotations.

    Returns:
      Images in [0, 1], multiples of 1/255.

    Raises:
      UserError: the images have another rank or number of channels.
    """
    levels = to_levels(images)
    magnitudes = augmix_magnitudes(size=levels.shape[1:3], all_operations=all_operations)
    choices = signed_choices({name: values[:severity] for name, values in magnitudes.items()})
    longest = depth or RANDOM_DEPTH

    def draw(key: Key[Array, ""]) -> tuple[Int[Array, "width longest"], Float[Array, "width"], Float[Array, ""]]:
        row_key, depth_key, weight_key, share_key = jax.random.split(key, 4)
        rows = jax.random.randint(row_key, (width, longest), 0, len(choices))
        if depth is None:
            length = jax.random.randint(depth_key, (width, 1), 1, RANDOM_DEPTH + 1)
            # Identity comes after all other choices.
            rows = jnp.where(jnp.arange(longest)[None] < length, rows, len(choices))
        weights = jax.random.dirichlet(weight_key, jnp.full(width, alpha, jnp.float32))
        return rows, weights, jax.random.beta(share_key, alpha, alpha)

    rows, weights, share = jax.vmap(draw)(keys)
    # [B, H, W, C] -> [B width, H, W, C] and [B, width, longest] -> [B width, longest]
    chains = apply_choices(
        jnp.repeat(levels, width, axis=0),
        rows.reshape(-1, longest),
        choices=[*choices, ("Identity", 0)],
        interpolation=interpolation,
    )
    # [B width, H, W, C] -> [B, width, H, W, C]
    chains = chains.reshape(-1, width, *levels.shape[1:])
    mixed = jnp.sum(weights[:, :, None, None, None] * chains, axis=1)
    share = share[:, None, None, None]
    return from_levels(jnp.round(share * levels + (1 - share) * mixed).astype(jnp.int32))
