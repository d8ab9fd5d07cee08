"""Several views of one image, for learning without labels: SimCLR's recipe, and two independent draws of any recipe."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cnn_jax.data.augment.blur_and_noise import gaussian_blur
from cnn_jax.data.augment.colour import Strength, colour_jitter, random_grey
from cnn_jax.data.augment.draws import Probability
from cnn_jax.data.augment.flip_and_crop import random_flip, random_flip_matrices
from cnn_jax.data.augment.resized_crop import (
    Areas,
    Length,
    Ratios,
    random_resized_crop,
    random_resized_crop_matrices,
)

CROP, FLIP, JITTER, GREY, BLUR = range(5)
"""What an example's key is folded with for each part of the recipe."""


def simclr_view(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    strength: Strength = 1.0,
    blur_probability: Probability = 0.5,
    scale: Areas = (0.08, 1.0),
    ratio: Ratios = (3 / 4, 4 / 3),
    size: tuple[Length, Length] | None = None,
) -> Float[Array, "B *out C"]:
    """A random view of each image, as SimCLR makes two of (Chen et al. 2020, Appendix A).

    A random resized crop, mirrored in half of the cases; in 80 % of them colour jitter, with brightness, contrast and
    saturation of 0.8 times the strength and hue of 0.2 times; in 20 % grey; in half of them Gaussian blur with a
    deviation of 0.1 to 2 pixels and a kernel as long as a tenth of the shorter side. On CIFAR-10 the paper takes
    strength 0.5 and no blur (Appendix B.9).

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1], C one or three.
      strength: of the colour jitter, at most 2.5.
      blur_probability: of the blur.
      scale: the smallest and the largest area of the crop, as shares of the image's.
      ratio: its smallest and its largest width over height.
      size: height and width of the view; the image's where it is None.

    Raises:
      UserError: the images do not have two axes of space, or neither one channel nor three.
    """
    views = random_resized_crop(_part(keys, CROP), images, scale=scale, ratio=ratio, size=size)
    views = random_flip(_part(keys, FLIP), views)
    colour, hue = 0.8 * strength, 0.2 * strength
    views = colour_jitter(
        _part(keys, JITTER), views, brightness=colour, contrast=colour, saturation=colour, hue=hue, probability=0.8
    )
    views = random_grey(_part(keys, GREY), views, probability=0.2)
    # As the authors' code rounds a tenth to an odd number of pixels.
    kernel_size = min(views.shape[1:-1]) // 10 // 2 * 2 + 1
    return gaussian_blur(
        _part(keys, BLUR), views, sigma=(0.1, 2.0), kernel_size=kernel_size, probability=blur_probability
    )


def simclr_view_matrices(
    keys: Key[Array, "B"],
    *,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    target: tuple[int, int],
) -> Float[Array, "B 3 3"]:
    """What `simclr_view` does to images of height and width `size`, which become `target`, with these keys."""
    crop = random_resized_crop_matrices(_part(keys, CROP), size=size, scale=scale, ratio=ratio, target=target)
    flip = random_flip_matrices(_part(keys, FLIP), size=target, probability=0.5)
    # From the output back to the input: the flip, which came last, is undone first.
    return jnp.einsum("bij,bjk->bik", crop, flip, precision="highest")


def two_views(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    recipe: Callable[[Key[Array, "B"], Float[Array, "B *space C"]], Float[Array, "B *out C"]],
) -> tuple[Float[Array, "B *out C"], Float[Array, "B *out C"]]:
    """Two views of each image with independent draws, each a function of the example's own key.

    Args:
      keys: one per example.
      images: `[B, *space, C]` in [0, 1].
      recipe: `(keys, images) -> images` of any number of examples, such as
        `functools.partial(simclr_view, strength=0.5)`.

    Example:
      >>> import functools
      >>> keys, images = jax.random.split(jax.random.key(0), 2), jnp.ones((2, 8, 8, 3)) / 2
      >>> views = jax.eval_shape(functools.partial(two_views, recipe=simclr_view), keys, images)
      >>> [view.shape for view in views]
      [(2, 8, 8, 3), (2, 8, 8, 3)]
    """

    def doubled(values: Array) -> Array:
        # [B, ...] -> [B, 2, ...] -> [2 B, ...]: side by side, so that a divided batch stays on its devices.
        return jnp.stack([values, values], axis=1).reshape(-1, *values.shape[1:])

    # As one batch the recipe is compiled once. [B] -> [B, 2] -> [2 B]
    separate = jnp.stack([_part(keys, view) for view in range(2)], axis=1).reshape(-1)
    views = recipe(separate, doubled(images))
    return views[0::2], views[1::2]


def _part(keys: Key[Array, "B"], part: int) -> Key[Array, "B"]:
    """Keys for one of several draws that do not depend on each other."""
    return jax.vmap(lambda key: jax.random.fold_in(key, part))(keys)
