"""What an image goes through on the host, in the processes that decode: one image to one of another size.

`HOST_TRANSFORMS` is the table that a config looks up. A transform is a function `(image, *, options) -> image`, and an
image is what its decoder gave: pixels, or Pillow's image of mode L, RGB or RGBA, which becomes an array only once, when
few pixels are left. Those in RANDOM take a NumPy generator first. Everything else belongs on the device: see
`cnn_jax.data.augment`. No device is started here: worker processes have none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from cnn_jax.errors import UserError
from cnn_jax.ops.image_files import Interpolation, check_pixels, middle, resized_size
from cnn_jax.ops.pixels import check_channels, from_pixels, to_pixels

Pixels = Annotated[int, Field(ge=1)]
Size = Pixels | tuple[Pixels, Pixels]
TRIES = 10

Picture: TypeAlias = Any
"""uint8 `[H, W, C]`, or `PIL.Image.Image`: Pillow is imported where it is used; signatures are read for the options."""


def resize(image: Picture, *, size: Size = 256, interpolation: Interpolation = "bilinear") -> Picture:
    """Resize as Pillow does, with antialiasing.

    Args:
      image: as the module says.
      size: pixels of the shortest side, the longer one keeps the ratio, rounded down; or (height, width).
      interpolation: the filter.

    Raises:
      UserError: the result would not fit in memory.
    """
    return _resized(image, resized_size(_size_of(image), size), interpolation)


def center_crop(image: Picture, *, size: Size = 224) -> Picture:
    """The middle of an image; one that is smaller gets black around it, as by torchvision's CenterCrop.

    Args:
      image: as the module says.
      size: pixels of both sides, or (height, width).
    """
    height, width = _both(size)
    rows, columns = _size_of(image)
    check_pixels(height, width, before=(rows, columns))
    return _cut(image, middle(rows, height), middle(columns, width), height, width)


def random_crop(
    generator: np.random.Generator,
    image: Picture,
    *,
    size: Size = 224,
    padding: Annotated[int, Field(ge=0)] = 0,
) -> Picture:
    """A window at a uniformly random place; an image that is smaller gets black around it first.

    Args:
      generator: of random numbers.
      image: as the module says.
      size: pixels of both sides, or (height, width).
      padding: rows and columns of black that are put on every side before.
    """
    height, width = _both(size)
    rows, columns = _size_of(image)
    check_pixels(height, width, before=(rows, columns))
    starts = []
    for have, wanted in ((rows + 2 * padding, height), (columns + 2 * padding, width)):
        missing = max(wanted - have, 0)
        starts.append(int(generator.integers(have + missing - wanted + 1)) - missing // 2 - padding)
    top, left = starts
    return _cut(image, top, left, height, width)


def random_resized_crop(
    generator: np.random.Generator,
    image: Picture,
    *,
    size: Size = 224,
    scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.08, 1.0),
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bilinear",
) -> Picture:
    """A window of random area and shape, resized: the usual training augmentation of ImageNet.

    The share of the area is uniform in `scale`, the logarithm of width over height uniform in that of `ratio`, the
    place uniform. A window that does not fit is drawn again, ten times at most; then it is the largest in the middle
    whose shape is within `ratio`. Szegedy et al. 2015 (section 6), as torchvision's RandomResizedCrop samples it.

    Args:
      generator: of random numbers.
      image: as the module says.
      size: pixels of both sides of the result, or (height, width).
      scale: smallest and largest share of the image's area.
      ratio: smallest and largest width over height.
      interpolation: the filter of resizing.

    Raises:
      UserError: a range ends before it begins.
    """
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if low > high:
            raise UserError(f"random_resized_crop: {name} {(low, high)} ends before it begins; give (least, most)")
    # Cut first: with a `box`, Pillow's filter would see pixels outside of the window.
    return _resized(_cut(image, *_window(generator, _size_of(image), scale, ratio)), _both(size), interpolation)


def _window(
    generator: np.random.Generator, space: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a window for `random_resized_crop`."""
    rows, columns = space
    for _ in range(TRIES):
        area = rows * columns * generator.uniform(*scale)
        shape = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < width <= columns and 0 < height <= rows:
            top, left = generator.integers(rows - height + 1), generator.integers(columns - width + 1)
            return int(top), int(left), height, width
    height, width = rows, columns
    if columns / rows < ratio[0]:
        height = max(1, round(columns / ratio[0]))
    elif columns / rows > ratio[1]:
        width = max(1, round(rows * ratio[1]))
    return (rows - height) // 2, (columns - width) // 2, height, width


def random_flip(
    generator: np.random.Generator, image: Picture, *, probability: Annotated[float, Field(ge=0, le=1)] = 0.5
) -> Picture:
    """Mirror left to right with the given probability."""
    if generator.random() >= probability:
        return image
    if isinstance(image, np.ndarray):
        mirrored = np.empty_like(image, order="C")
        for channel in range(image.shape[-1]):  # five times as fast as all at once, in steps of three bytes
            mirrored[..., channel] = image[:, ::-1, channel]
        return mirrored
    from PIL import Image

    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def grey(image: Picture) -> Picture:
    """Luma (ITU-R 601-2) in place of all colours; the image keeps its channels, so that networks keep their shape.

    Args:
      image: one without colours stays as it is.
    """
    image = _as_pillow(image)
    return image if image.mode == "L" else image.convert("LA" if image.mode == "RGBA" else "L").convert(image.mode)


def permute_pixels(image: Picture, *, seed: Annotated[int, Field(ge=0)] = 0) -> Picture:
    """The pixels in another order, one and the same for all images of a size: what is near is near no longer.

    Args:
      image: as the module says.
      seed: of the order.
    """
    pixels = to_pixels(image)
    height, width, channels = pixels.shape
    order = np.random.Generator(np.random.Philox(seed)).permutation(height * width)
    flat = pixels.reshape(height * width, channels)  # [H, W, C] -> [H * W, C]
    return from_pixels(flat[order].reshape(pixels.shape))


HOST_TRANSFORMS: dict[str, Callable[..., Picture]] = {
    "resize": resize,
    "center_crop": center_crop,
    "random_crop": random_crop,
    "random_resized_crop": random_resized_crop,
    "random_flip": random_flip,
    "grey": grey,
    "permute_pixels": permute_pixels,
}

RANDOM = ("random_crop", "random_resized_crop", "random_flip")
"""Transforms that take a generator first."""


def transform_image(
    image: Picture,
    nodes: Sequence[Mapping[str, Any]],
    *,
    generator: np.random.Generator | None,
) -> UInt8[np.ndarray, "H W C"]:
    """Apply transforms in order.

    Args:
      image: pixels uint8 `[h, w, C]` with 1, 3 or 4 channels, or Pillow's image of mode L, RGB or RGBA.
      nodes: checked `{name, **options}` nodes; names are those of HOST_TRANSFORMS.
      generator: of the example and epoch; needed where a name is in RANDOM.

    Returns:
      uint8, contiguous in memory; it may be read-only, or what was given.

    Raises:
      UserError: a random transform and no generator, other channels, or as the transforms.
    """
    if isinstance(image, np.ndarray):
        check_channels(image)
    for node in nodes:
        options = {name: value for name, value in node.items() if name != "name"}
        function = HOST_TRANSFORMS[node["name"]]
        if node["name"] not in RANDOM:
            image = function(image, **options)
        elif generator is None:
            raise UserError(f"host transform {node['name']!r} is random; only a streamed training split can have it")
        else:
            image = function(generator, image, **options)
    if not isinstance(image, np.ndarray):
        return to_pixels(image)
    # A part of an image is copied while it is at hand, so that the whole is not held.
    is_part = isinstance(image.base, np.ndarray) and image.nbytes < image.base.nbytes
    return image.copy() if is_part else np.ascontiguousarray(image)


def _size_of(image: Picture) -> tuple[int, int]:
    """(height, width)."""
    return image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)


def _as_pillow(image: Picture) -> Picture:
    return from_pixels(image) if isinstance(image, np.ndarray) else image


def _cut(image: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """A window; what lies outside of the image is black, and without colour where there is transparency."""
    if not isinstance(image, np.ndarray):
        return image.crop((left, top, left + width, top + height))
    channels = image.shape[-1]
    inside = image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    if inside.shape[:2] == (height, width):
        return inside
    window = np.zeros((height, width, channels), np.uint8)
    below, right = max(-top, 0), max(-left, 0)
    window[below : below + inside.shape[0], right : right + inside.shape[1]] = inside
    return window


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _resized(image: Picture, size: tuple[int, int], interpolation: Interpolation) -> Picture:
    from PIL import Image

    before = _size_of(image)
    check_pixels(*size, before=before)
    if tuple(size) == tuple(before):
        return image
    height, width = size
    return _as_pillow(image).resize((width, height), Image.Resampling[interpolation.upper()])
