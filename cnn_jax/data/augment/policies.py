"""Automatic augmentation policies: AutoAugment, RandAugment and TrivialAugment, with torchvision's search spaces.

Operations equal Pillow's (see `apply_choices`), and so torchvision's on Pillow images. Images are rounded to 256 levels
first; what a geometric operation brings into view from outside of an image is black. Each policy comes with a function
of the same draws that returns the matrices by which boxes and segmentation maps move with the pixels.
"""

from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from pydantic import Field

from cnn_jax.data.augment.operations import (
    OperationName,
    apply_choices,
    choice_matrices,
    from_levels,
    to_levels,
)
from cnn_jax.data.augment.policy_tables import (
    SUB_POLICIES,
    PolicyName,
    signed_choices,
    standard_magnitudes,
    wide_magnitudes,
)
from cnn_jax.data.augment.warp import Interpolation
from cnn_jax.errors import UserError

Bins: TypeAlias = Annotated[int, Field(ge=2)]
Rows: TypeAlias = tuple[Int[Array, "B N"], list[tuple[OperationName, float]]]
"""The operations of each example as places in a list, and the list."""


def auto_augment(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    policy: PolicyName = "imagenet",
    interpolation: Interpolation = "nearest",
) -> Float[Array, "B *space C"]:
    """Apply one of the 25 sub-policies that AutoAugment learnt on a data set (Cubuk et al. 2019, Tables 7 to 9).

    A sub-policy is two operations in turn, each with its own probability and magnitude, and with a random sign where
    the magnitude can have one.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1], grey (C = 1) or red, green and blue (C = 3).
      policy: the data set that the sub-policies were learnt on.
      interpolation: for shears and rotations.

    Returns:
      Images in [0, 1], multiples of 1/255.

    Raises:
      UserError: the images have another rank or number of channels.
    """
    levels = to_levels(images)
    rows, choices = _auto_augment_rows(keys, size=levels.shape[1:3], policy=policy)
    return from_levels(apply_choices(levels, rows, choices=choices, interpolation=interpolation))


def auto_augment_matrices(keys: Key[Array, "B"], *, size: tuple[int, ...], policy: PolicyName) -> Float[Array, "B 3 3"]:
    """How `auto_augment` moves the pixels of images of this height and width with the same keys."""
    rows, choices = _auto_augment_rows(keys, size=size, policy=policy)
    return choice_matrices(rows, choices=choices, size=size)


def _auto_augment_rows(keys: Key[Array, "B"], *, size: tuple[int, ...], policy: PolicyName) -> Rows:
    """Two operations for each example: those of a sub-policy with random signs, or identity."""
    magnitudes = standard_magnitudes(bins=10, size=size)
    steps = [step for pair in SUB_POLICIES[policy] for step in pair]
    choices: list[tuple[OperationName, float]] = []
    for name, _, place in steps:
        choices += signed_choices({name: magnitudes[name][[place or 0]]})
    probabilities = jnp.asarray([probability for _, probability, _ in steps], jnp.float32)

    def draw(key: Key[Array, ""]) -> Int[Array, "2"]:
        policy_key, probability_key, sign_key = jax.random.split(key, 3)
        step = 2 * jax.random.randint(policy_key, (), 0, len(SUB_POLICIES[policy])) + jnp.arange(2)
        chosen = jax.random.uniform(probability_key, (2,)) < probabilities[step]
        # Identity comes after both signs of every step.
        return jnp.where(chosen, 2 * step + jax.random.randint(sign_key, (2,), 0, 2), len(choices))

    return jax.vmap(draw)(keys), [*choices, ("Identity", 0.0)]


def rand_augment(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    operations: Annotated[int, Field(ge=1)] = 2,
    magnitude: Annotated[int, Field(ge=0)] = 9,
    bins: Bins = 31,
    interpolation: Interpolation = "nearest",
) -> Float[Array, "B *space C"]:
    """Apply several random operations in turn, all with the same magnitude (Cubuk et al. 2020, Algorithm 1).

    Each operation is drawn from 14, identity among them, with a random sign where its magnitude can have one.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1], grey (C = 1) or red, green and blue (C = 3).
      operations: how many, the paper's N.
      magnitude: the bin, from 0 to bins - 1. The paper's M counts in 30ths, as the default number of bins makes it.
      bins: the number of magnitudes from none to the strongest.
      interpolation: for shears and rotations.

    Returns:
      Images in [0, 1], multiples of 1/255.

    Raises:
      UserError: the magnitude is no bin, or the images have another rank or number of channels.
    """
    levels = to_levels(images)
    rows, choices = _rand_augment_rows(
        keys, size=levels.shape[1:3], operations=operations, magnitude=magnitude, bins=bins
    )
    return from_levels(apply_choices(levels, rows, choices=choices, interpolation=interpolation))


def rand_augment_matrices(
    keys: Key[Array, "B"], *, size: tuple[int, ...], operations: int, magnitude: int, bins: int
) -> Float[Array, "B 3 3"]:
    """How `rand_augment` moves the pixels of images of this height and width with the same keys."""
    rows, choices = _rand_augment_rows(keys, size=size, operations=operations, magnitude=magnitude, bins=bins)
    return choice_matrices(rows, choices=choices, size=size)


def _rand_augment_rows(
    keys: Key[Array, "B"], *, size: tuple[int, ...], operations: int, magnitude: int, bins: int
) -> Rows:
    """Uniformly drawn operations of one magnitude."""
    if magnitude >= bins:
        raise UserError(f"rand_augment: magnitude {magnitude} is none of {bins} bins; set it to {bins - 1} or less")
    standard = standard_magnitudes(bins=bins, size=size)
    one = {name: values[[magnitude]] for name, values in standard.items() if name != "Invert"}
    choices = signed_choices({"Identity": np.zeros(1), **one})
    return _uniform_rows(keys, operations=operations, choices=len(choices)), choices


def trivial_augment(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    bins: Bins = 31,
    interpolation: Interpolation = "nearest",
) -> Float[Array, "B *space C"]:
    """Apply one random operation with a random magnitude: TrivialAugment Wide (Müller & Hutter 2021, Algorithm 1).

    The operation is drawn from 14, identity among them, with a random sign where its magnitude can have one.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1], grey (C = 1) or red, green and blue (C = 3).
      bins: the number of magnitudes from none to the strongest.
      interpolation: for shears and rotations.

    Returns:
      Images in [0, 1], multiples of 1/255.

    Raises:
      UserError: the images have another rank or number of channels.
    """
    levels = to_levels(images)
    rows, choices = _trivial_augment_rows(keys, bins=bins)
    return from_levels(apply_choices(levels, rows, choices=choices, interpolation=interpolation))


def trivial_augment_matrices(keys: Key[Array, "B"], *, size: tuple[int, ...], bins: int) -> Float[Array, "B 3 3"]:
    """How `trivial_augment` moves the pixels of images of this height and width with the same keys."""
    rows, choices = _trivial_augment_rows(keys, bins=bins)
    return choice_matrices(rows, choices=choices, size=size)


def _trivial_augment_rows(keys: Key[Array, "B"], *, bins: int) -> Rows:
    """One uniformly drawn operation and magnitude for each example."""
    choices = signed_choices(wide_magnitudes(bins=bins))
    return _uniform_rows(keys, operations=1, choices=len(choices)), choices


def _uniform_rows(keys: Key[Array, "B"], *, operations: int, choices: int) -> Int[Array, "B N"]:
    """Uniformly drawn places in a list of choices."""
    return jax.vmap(lambda key: jax.random.randint(key, (operations,), 0, choices))(keys)
