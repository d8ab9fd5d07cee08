"""Mixing of examples: mixup and cutmix, which change images and targets together.

A mixing is a pure function `(keys, images, targets, mask, *, options) -> (images, targets)`; `MIXINGS` is the table of
those that a config's `data.augment` may name beside the augmentations. An example's partner is the one before it in the
batch, the last one for the first: in the shuffled batches of training that is as good as drawn at random, and only one
image crosses from device to device. How much of the partner comes in depends on the example's own key alone, but who
the partner is depends on the batch. This is the one exception from the rule that the pixels of an example are the same
for every batch size. They still are for every number of devices, except where each device works alone on its share of
the batch (`pmap`): there the partner is of that share.

Padding is never mixed in, nor an example with itself: whoever has such a partner stays as it is.
"""

import functools
from collections.abc import Callable
from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
from pydantic import Field

Alpha: TypeAlias = Annotated[float, Field(gt=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]

MIXED, COEFFICIENT, CENTRE, CHOICE = range(4)
"""What an example's key is folded with, one number for each thing that is drawn."""


def mixup(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    targets: Float[Array, "B K"],
    mask: Float[Array, "B"],
    *,
    alpha: Alpha = 0.2,
    probability: Share = 1.0,
) -> tuple[Float[Array, "B *space C"], Float[Array, "B K"]]:
    r"""Each image and its target become $\lambda$ of their own and $1 - \lambda$ of their partner's.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", Section 2, with $\lambda \sim
    \mathrm{Beta}(\alpha, \alpha)$. The paper's code draws one $\lambda$ for a whole batch, this one for every example.

    Args:
      keys: one per example.
      images: `[B, *space, C]`, of any range.
      targets: probabilities of the classes; every row has the sum 1.
      mask: 0 for padding.
      alpha: the larger, the nearer $\lambda$ is to 1/2; the paper takes 0.1 to 0.4 on ImageNet and 1 on CIFAR-10.
      probability: of being mixed at all.

    Returns:
      The mixed images, and their targets, whose rows have the sum 1.
    """
    kept = jnp.where(_mixed(keys, mask, probability), _coefficients(keys, alpha), 1.0)
    return _blend(images, _over_space(kept, images)), _blend(targets, _over_space(kept, targets))


def cutmix(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    targets: Float[Array, "B K"],
    mask: Float[Array, "B"],
    *,
    alpha: Alpha = 1.0,
    probability: Share = 1.0,
) -> tuple[Float[Array, "B *space C"], Float[Array, "B K"]]:
    r"""A box of each image is replaced by the same box of its partner, and as much of its target.

    Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", Eqs. 1 and
    2: $\lambda \sim \mathrm{Beta}(\alpha, \alpha)$, the box has the share $1 - \lambda$ of the image, and the same share
    of each of its sides; its centre is uniform, and what lies outside of the image is cut off. As in the authors' code,
    the target then takes the share of the pixels that were in fact replaced. One $\lambda$ and one box per example,
    where their code has one for a batch.

    Args:
      keys: one per example.
      images: `[B, *space, C]`, of any range; with one or three axes of space the box is an interval or a cuboid.
      targets: probabilities of the classes; every row has the sum 1.
      mask: 0 for padding.
      alpha: of the distribution of the boxes' sizes; 1, uniform, is the paper's.
      probability: of being mixed at all; the paper takes 0.5 on CIFAR and 1 on ImageNet.

    Returns:
      The mixed images, and their targets, whose rows have the sum 1.
    """
    outside, kept = _boxes(keys, images, alpha)
    mixed = _mixed(keys, mask, probability)
    outside = jnp.where(_over_space(mixed, images), outside, 1.0)
    return _blend(images, outside), _blend(targets, _over_space(jnp.where(mixed, kept, 1.0), targets))


def mixup_or_cutmix(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    targets: Float[Array, "B K"],
    mask: Float[Array, "B"],
    *,
    mixup_alpha: Alpha = 0.8,
    cutmix_alpha: Alpha = 1.0,
    cutmix_share: Share = 0.5,
    probability: Share = 1.0,
) -> tuple[Float[Array, "B *space C"], Float[Array, "B K"]]:
    """Either `mixup` or `cutmix`, drawn for each example.

    The defaults are those of DeiT (Touvron et al. 2021, Table 9), whose code draws once for a batch.

    Args:
      keys: one per example.
      images: `[B, *space, C]`, of any range.
      targets: probabilities of the classes; every row has the sum 1.
      mask: 0 for padding.
      mixup_alpha: as in `mixup`.
      cutmix_alpha: as in `cutmix`.
      cutmix_share: how often it is cutmix, of the times that an example is mixed.
      probability: of being mixed at all.

    Returns:
      The mixed images, and their targets, whose rows have the sum 1.
    """
    cut = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, CHOICE), cutmix_share))(keys)
    coefficients = _coefficients(keys, mixup_alpha)
    outside, outside_share = _boxes(keys, images, cutmix_alpha)
    kept = jnp.where(cut, outside_share, coefficients)
    kept_pixels = jnp.where(_over_space(cut, images), outside, _over_space(coefficients, images))
    mixed = _mixed(keys, mask, probability)
    kept_pixels = jnp.where(_over_space(mixed, images), kept_pixels, 1.0)
    return _blend(images, kept_pixels), _blend(targets, _over_space(jnp.where(mixed, kept, 1.0), targets))


MIXINGS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "mixup": mixup,
    "cutmix": cutmix,
    "mixup_or_cutmix": mixup_or_cutmix,
}


def _mixed(keys: Key[Array, "B"], mask: Float[Array, "B"], probability: float) -> Bool[Array, "B"]:
    """Which examples are mixed: drawn, and neither they nor their partners are padding."""
    if len(keys) == 1:  # its partner is itself: the blend would be the same but for rounding
        return jnp.zeros(1, bool)
    drawn = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, MIXED), probability))(keys)
    return drawn & (mask > 0) & (_partners(mask) > 0)


def _coefficients(keys: Key[Array, "B"], alpha: float) -> Float[Array, "B"]:
    return jax.vmap(lambda key: jax.random.beta(jax.random.fold_in(key, COEFFICIENT), alpha, alpha))(keys)


def _boxes(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], alpha: float
) -> tuple[Float[Array, "B *space 1"], Float[Array, "B"]]:
    """1 outside of each example's box and 0 inside, and the share of the pixels that are outside."""
    space = jnp.array(images.shape[1:-1])

    def box(key: Key[Array, ""], coefficient: Float[Array, ""]) -> tuple[Array, Array]:
        half = jnp.floor(space * (1.0 - coefficient) ** (1.0 / len(space)) / 2.0).astype(jnp.int32)
        centre = jax.random.randint(jax.random.fold_in(key, CENTRE), space.shape, 0, space)
        start, stop = jnp.maximum(centre - half, 0), jnp.minimum(centre + half, space)
        places = jnp.meshgrid(*map(jnp.arange, images.shape[1:-1]), indexing="ij", sparse=True)
        along = [(place >= start[axis]) & (place < stop[axis]) for axis, place in enumerate(places)]
        inside = functools.reduce(jnp.logical_and, along)
        return 1.0 - inside[..., None].astype(jnp.float32), 1.0 - jnp.prod(stop - start) / jnp.prod(space)

    return jax.vmap(box)(keys, _coefficients(keys, alpha))


def _partners(values: Array) -> Array:
    """The value of each example's partner, `[B, ...]`."""
    return jnp.roll(values, 1, axis=0)


def _blend(values: Float[Array, "B ..."], kept: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    return kept * values + (1.0 - kept) * _partners(values)


def _over_space(values: Array, like: Array) -> Array:
    """One value per example, for each of its pixels."""
    # [B] -> [B, 1, ..., 1]
    return values.reshape(-1, *[1] * (like.ndim - 1))
