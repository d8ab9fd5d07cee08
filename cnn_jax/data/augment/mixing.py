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

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
from pydantic import Field

from cnn_jax.data.augment.draws import Probability, per_example, uniforms

Alpha: TypeAlias = Annotated[float, Field(gt=0)]


def mixup(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    targets: Float[Array, "B K"],
    mask: Float[Array, "B"],
    *,
    alpha: Alpha = 0.2,
    probability: Probability = 1.0,
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
    draws = _draws(keys, rank=images.ndim - 2)
    kept = jnp.where(_mixed(draws, mask, probability), _coefficients(draws, alpha), 1.0)
    return _blend(images, per_example(kept, like=images)), _blend(targets, per_example(kept, like=targets))


def cutmix(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    targets: Float[Array, "B K"],
    mask: Float[Array, "B"],
    *,
    alpha: Alpha = 1.0,
    probability: Probability = 1.0,
) -> tuple[Float[Array, "B *space C"], Float[Array, "B K"]]:
    r"""A box of each image is replaced by the same box of its partner, and as much of its target.

    Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", Eqs. 1 and
    2: $\lambda \sim \mathrm{Beta}(\alpha, \alpha)$, the box has the share $1 - \lambda$ of the image and its
    proportions, its centre is uniform, and what lies outside of the image is cut off. As in the authors' code, the
    target then takes the share of the pixels that were in fact replaced. Every example has a box of its own, where
    their code has one for a batch.

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
    draws = _draws(keys, rank=images.ndim - 2)
    outside, kept = _boxes(draws, images, alpha)
    mixed = _mixed(draws, mask, probability)
    outside = jnp.where(per_example(mixed, like=images), outside, 1.0)
    return _blend(images, outside), _blend(targets, per_example(jnp.where(mixed, kept, 1.0), like=targets))


def mixup_or_cutmix(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    targets: Float[Array, "B K"],
    mask: Float[Array, "B"],
    *,
    mixup_alpha: Alpha = 0.8,
    cutmix_alpha: Alpha = 1.0,
    cutmix_share: Probability = 0.5,
    probability: Probability = 1.0,
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
    draws = _draws(keys, rank=images.ndim - 2)
    cut = draws.choice < cutmix_share
    coefficients = _coefficients(draws, mixup_alpha)
    outside, outside_share = _boxes(draws, images, cutmix_alpha)
    kept = jnp.where(cut, outside_share, coefficients)
    kept_pixels = jnp.where(per_example(cut, like=images), outside, per_example(coefficients, like=images))
    mixed = _mixed(draws, mask, probability)
    kept_pixels = jnp.where(per_example(mixed, like=images), kept_pixels, 1.0)
    return _blend(images, kept_pixels), _blend(targets, per_example(jnp.where(mixed, kept, 1.0), like=targets))


MIXINGS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "mixup": mixup,
    "cutmix": cutmix,
    "mixup_or_cutmix": mixup_or_cutmix,
}


class _Draws(NamedTuple):
    """Uniform numbers in [0, 1) for every example: of whether, how, how much and where it is mixed."""

    whether: Float[Array, "B"]
    choice: Float[Array, "B"]
    coefficient: Float[Array, "B 4"]
    centre: Float[Array, "B D"]


def _draws(keys: Key[Array, "B"], *, rank: int) -> _Draws:
    drawn = uniforms(keys, count=6 + rank)
    return _Draws(drawn[:, 0], drawn[:, 1], drawn[:, 2:6], drawn[:, 6:])


def _mixed(draws: _Draws, mask: Float[Array, "B"], probability: float) -> Bool[Array, "B"]:
    """Which examples are mixed: drawn, and neither they nor their partners are padding."""
    if len(mask) == 1:  # its partner is itself: the blend would be the same but for rounding
        return jnp.zeros(1, bool)
    return (draws.whether < probability) & (mask > 0) & (_partners(mask) > 0)


def _coefficients(draws: _Draws, alpha: float) -> Float[Array, "B"]:
    r"""Draws of $\mathrm{Beta}(\alpha, \alpha)$ in a fixed number of operations, where rejection would loop.

    For $\alpha + 1$ a draw $y$ is the shadow of a point on a sphere (Ulrich 1984; Devroye 1986, Section IX.4.1),
    $$y = \tfrac12 \left(1 + \sqrt{1 - u_1^{2 / (2 \alpha + 1)}} \cos 2 \pi u_2 \right),$$
    and because $\mathrm{Gamma}(\alpha) = \mathrm{Gamma}(\alpha + 1)\, u^{1 / \alpha}$ the odds of the result are
    $y / (1 - y) \cdot (u_3 / u_4)^{1 / \alpha}$.
    """
    # In (0, 1]: no logarithm of 0. [B, 4] -> [4, B]
    u1, u2, u3, u4 = (1.0 - draws.coefficient).T
    shadow = jnp.sqrt(-jnp.expm1(2.0 / (2.0 * alpha + 1.0) * jnp.log(u1))) * jnp.cos(2.0 * jnp.pi * u2)
    return jax.nn.sigmoid(2.0 * jnp.arctanh(shadow) + (jnp.log(u3) - jnp.log(u4)) / alpha)


def _boxes(
    draws: _Draws, images: Float[Array, "B *space C"], alpha: float
) -> tuple[Float[Array, "B *space 1"], Float[Array, "B"]]:
    """1 outside of each example's box and 0 inside, and the share of the pixels that are outside."""
    space = images.shape[1:-1]
    sides = (1.0 - _coefficients(draws, alpha)) ** (1.0 / len(space))
    inside, pixels = jnp.ones((), bool), jnp.ones((), jnp.int32)
    for axis, size in enumerate(space):
        half = jnp.floor(size * sides / 2.0).astype(jnp.int32)
        centre = jnp.floor(size * draws.centre[:, axis]).astype(jnp.int32)
        start, stop = jnp.maximum(centre - half, 0), jnp.minimum(centre + half, size)
        pixels = pixels * (stop - start)
        # [size] -> [1, ..., size, ..., 1]
        place = jnp.arange(size).reshape([size if other == axis + 1 else 1 for other in range(images.ndim)])
        inside = inside & (place >= per_example(start, like=images)) & (place < per_example(stop, like=images))
    return 1.0 - inside.astype(jnp.float32), 1.0 - pixels / math.prod(space)


def _partners(values: Array) -> Array:
    """The value of each example's partner, `[B, ...]`."""
    return jnp.roll(values, 1, axis=0)


def _blend(values: Float[Array, "B ..."], kept: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    # Selected: whatever padding holds, 0 times it must not reach its neighbour.
    return jnp.where(kept == 1.0, values, kept * values + (1.0 - kept) * _partners(values))
