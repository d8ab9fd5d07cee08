"""Paint over a part of each image: cutout and random erasing. Boxes and segmentation maps stay as they are."""

from typing import Annotated, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
from pydantic import Field

from cnn_jax.data.augment.draws import Probability, per_example, uniforms, where_chosen
from cnn_jax.data.augment.geometry import image_size
from cnn_jax.data.augment.resized_crop import Areas, Ratios, random_windows
from cnn_jax.errors import UserError

Level: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Paint: TypeAlias = Literal["zero", "mean"] | tuple[Level, ...]
"""Black; the mean of the image's own channels; or a value for each channel, such as the means of the data set."""


def cutout(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    length: Annotated[int, Field(ge=1)] = 16,
    fill: Paint = "zero",
    probability: Probability = 1.0,
) -> Float[Array, "B *space C"]:
    """Paint over a square whose centre is any pixel, so that it may lie partly outside.

    DeVries & Taylor 2017, section 3.2. A segment or a cube where there are one or three spatial axes. The paper's zeros
    come after the normalisation: they are the means of the data set as `fill`.

    Args:
      keys: one per example.
      images: `[B, *space, C]` in [0, 1].
      length: side of the square in pixels; 16 is the paper's for CIFAR-10, 8 for CIFAR-100.
      fill: "zero", "mean" (of the image, for each channel) or one value per channel.
      probability: of being painted at all.

    Raises:
      UserError: not as many fill values as channels.
    """
    chance, *centres = uniforms(keys, count=images.ndim - 1).T
    starts = [
        jnp.floor(centre * pixels) - length // 2 for centre, pixels in zip(centres, images.shape[1:-1], strict=True)
    ]
    inside = _inside(images, starts, [start + length for start in starts])
    painted = jnp.where(inside, _paint("cutout", images, fill), images)
    return where_chosen(chance < probability, painted, images)


def random_erasing(
    keys: Key[Array, "B"],
    images: Float[Array, "B *space C"],
    *,
    scale: Areas = (0.02, 0.4),
    ratio: Ratios = (0.3, 1 / 0.3),
    fill: Paint | Literal["noise"] = "noise",
    probability: Probability = 0.5,
) -> Float[Array, "B *space C"]:
    """Paint over a rectangle of random area and shape that lies inside the image (Zhong et al. 2017, algorithm 1).

    The defaults are the paper's (section 4.2). As in torchvision the shape is drawn on a logarithmic scale, so that
    wide is as likely as tall, and an image stays as it is where none of 10 attempts fits.

    Args:
      keys: one per example.
      images: `[B, H, W, C]` in [0, 1].
      scale: the smallest and the largest area, as shares of the image's; drawn evenly.
      ratio: the smallest and the largest width over height.
      fill: "noise" (every value drawn evenly from [0, 1]), "zero", "mean" (of the image, for each channel), or one
        value per channel.
      probability: of being painted at all.

    Raises:
      UserError: not as many fill values as channels, or the images do not have two axes of space.
    """
    size = image_size("random_erasing", images)
    chance = uniforms(keys, count=1)[:, 0]
    windows, found = random_windows(_other(keys, 1), size=size, scale=scale, ratio=ratio)
    y0, x0, y1, x1 = windows.T
    if fill == "noise":
        paint = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(_other(keys, 2))
    else:
        paint = _paint("random_erasing", images, fill)
    painted = jnp.where(_inside(images, [y0, x0], [y1, x1]), paint, images)
    return where_chosen(found & (chance < probability), painted, images)


def _other(keys: Key[Array, "B"], stream: int) -> Key[Array, "B"]:
    """Keys for another draw of the same examples."""
    return jax.vmap(lambda key: jax.random.fold_in(key, stream))(keys)


def _inside(images: Array, starts: list[Array], stops: list[Array]) -> Bool[Array, "B *space 1"]:
    """Which pixels lie in each example's box: from start up to, not including, stop along every spatial axis."""
    inside = jnp.ones((), bool)
    for axis, (start, stop) in enumerate(zip(starts, stops, strict=True), start=1):
        # [length] -> [1, ..., length, ..., 1]
        shape = [length if i == axis else 1 for i, length in enumerate(images.shape)]
        pixel = jnp.arange(images.shape[axis]).reshape(shape)
        inside = inside & (per_example(start, like=images) <= pixel) & (pixel < per_example(stop, like=images))
    return inside


def _paint(name: str, images: Float[Array, "B *space C"], fill: Paint) -> Array:
    """What is painted, in a shape that broadcasts to the images'."""
    if fill == "mean":
        return images.mean(axis=tuple(range(1, images.ndim - 1)), keepdims=True)
    values = (0.0,) * images.shape[-1] if fill == "zero" else fill
    if len(values) != images.shape[-1]:
        raise UserError(f"{name}.fill has {len(values)} values, the images {images.shape[-1]} channels: {values}")
    # [C] -> [1, ..., 1, C]
    return jnp.asarray(values, jnp.float32).reshape(*[1] * (images.ndim - 1), -1)
