"""Test-time augmentation: several views of an image, whose logits are averaged."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.errors import UserError

Crops: TypeAlias = Literal["five_crop", "ten_crop"]
Views: TypeAlias = Literal["one", "mirror", "mirror_translate", "scales"] | Crops

OF_OTHER_SIZES: tuple[Views, ...] = ("five_crop", "ten_crop", "scales")
"""Views for which the network is given images of other sizes."""

CROP_SHARE = 0.875
SCALES = (0.875, 1.0, 1.125)


def average_over_views(
    logits: Callable[[Array], Array],
    images: Float[Array, "B *space C"],
    *,
    views: Views,
    crop_share: float = CROP_SHARE,
    scales: Sequence[float] = SCALES,
) -> Float[Array, "B K"]:
    """The weighted mean of the logits of several views of each image.

    - "one": the image as it is.
    - "mirror": half of the image, half of its mirror image (left to right).
    - "mirror_translate": half of "mirror"; the other half is "mirror" of the image moved by one pixel along every axis
      of space, forwards and backwards, with the border reflected: six views (Jordan 2024, Section 3.5).
    - "five_crop": windows at the four corners and in the centre, as torchvision's `FiveCrop` cuts them.
    - "ten_crop": these, and those of the mirror image (Krizhevsky et al. 2012, Section 4.1, which averages the softmax
      instead of the logits).
    - "scales": the image in several sizes, resized linearly with antialiasing (Simonyan & Zisserman 2015, Section 4.2).

    Args:
      logits: images to logits `[B, K]`; of other sizes than `images` where the views are crops or scales.
      images: `[B, *space, C]`.
      views: which ones.
      crop_share: sides of a crop, as shares of the image's; 0.875 is 224 pixels of 256.
      scales: sides of each resized image, as shares of the image's.

    Raises:
      UserError: crops of images that do not have two axes of space, or a crop or a resized image without a pixel.
    """
    if views == "one":
        return logits(images)
    if views == "scales":
        found = [logits(_resized(images, scale)) for scale in scales]
        return jnp.mean(jnp.stack(found), axis=0)
    shown, weights = [images], [1.0]
    if views in get_args(Crops):
        # Of the mirrored image, not mirrored: the centre of an odd rest lies elsewhere.
        of = (images,) if views == "five_crop" else (images, jnp.flip(images, axis=-2))
        shown = [crop for image in of for crop in _five_crops(image, crop_share)]
        weights = [1.0] * len(shown)
    elif views == "mirror_translate":
        rank = images.ndim - 2
        padded = jnp.pad(images, ((0, 0), *((1, 1),) * rank, (0, 0)), mode="reflect")
        for start in (0, 2):
            place = tuple(slice(start, start + size) for size in images.shape[1:-1])
            shown.append(padded[(slice(None), *place)])
        weights = [0.5, 0.25, 0.25]
    if views not in get_args(Crops):
        shown, weights = [*shown, *(jnp.flip(view, axis=-2) for view in shown)], 2 * weights
    stacked = jnp.stack(shown)  # [V, B, *space, C]
    shares = np.array(weights, np.float32) / np.float32(sum(weights))
    # One view after the other: the memory of one, and the network is compiled once.
    return jnp.einsum("v,vbk->bk", shares, jax.lax.map(logits, stacked))


def _resized(images: Float[Array, "B *space C"], scale: float) -> Float[Array, "B *scaled C"]:
    shape = [images.shape[0], *_sides(images, scale, "scales"), images.shape[-1]]
    return jax.image.resize(images, shape, "linear")


def _five_crops(images: Float[Array, "B *space C"], share: float) -> list[Array]:
    """Windows `[B, height, width, C]`: four corners and the centre."""
    if images.ndim != 4:
        raise UserError(
            f"config.task.views: five_crop and ten_crop are of images [B, H, W, C], not of {images.ndim - 2} axes of"
            " space; choose 'mirror'"
        )
    height, width = _sides(images, share, "crop_share")
    below, right = images.shape[1] - height, images.shape[2] - width
    # Halves are rounded to the even neighbour, as torchvision's `CenterCrop` does.
    corners = [(0, 0), (0, right), (below, 0), (below, right), (round(below / 2), round(right / 2))]
    return [images[:, top : top + height, left : left + width] for top, left in corners]


def _sides(images: Float[Array, "B *space C"], share: float, option: str) -> list[int]:
    """The nearest whole sides to a share of the image's."""
    sides = [round(share * side) for side in images.shape[1:-1]]
    if min(sides) < 1:
        raise UserError(f"config.task.{option} {share} leaves no pixel of images of {images.shape[1:-1]}; choose more")
    return sides
