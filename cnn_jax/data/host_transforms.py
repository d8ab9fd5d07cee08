"""What an image goes through on the host, in the processes that decode: one image to one of another size.

`HOST_TRANSFORMS` is the table that a config looks up. A transform is a function `(image, *, options) -> image` on
Pillow's images of mode L, RGB or RGBA, so that pixels become an array only once, when few are left; those in RANDOM
take a NumPy generator first. Everything else belongs on the device: see `cnn_jax.data.augment`. No device is started
here: worker processes have none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from cnn_jax.errors import UserError
from cnn_jax.ops.image_files import Interpolation, check_pixels, from_pixels, middle, resized_size, to_pixels

Pixels = Annotated[int, Field(ge=1)]
Size = Pixels | tuple[Pixels, Pixels]
TRIES = 10

PILImage: TypeAlias = Any
"""`PIL.Image.Image`: Pillow is imported where it is used, and options are read from these signatures."""


def resize(image: PILImage, *, size: Size = 256, interpolation: Interpolation = "bilinear") -> PILImage:
    """Resize as Pillow does, with antialiasing.

    Args:
      image: Pillow's.
      size: pixels of the shortest side, the longer one keeps the ratio, rounded down; or (height, width).
      interpolation: the filter.

    Raises:
      UserError: the result would not fit in memory.
    """
    return _resized(image, resized_size((image.height, image.width), size), interpolation)


def center_crop(image: PILImage, *, size: Size = 224) -> PILImage:
    """The middle of an image; one that is smaller gets black around it, as by torchvision's CenterCrop.

    Args:
      image: Pillow's.
      size: pixels of both sides, or (height, width).
    """
    height, width = _both(size)
    check_pixels(height, width, before=(image.height, image.width))
    top, left = middle(image.height, height), middle(image.width, width)
    return image.crop((left, top, left + width, top + height))


def random_crop(
    generator: np.random.Generator,
    image: PILImage,
    *,
    size: Size = 224,
    padding: Annotated[int, Field(ge=0)] = 0,
) -> PILImage:
    """A window at a uniformly random place; an image that is smaller gets black around it first.

    Args:
      generator: of random numbers.
      image: Pillow's.
      size: pixels of both sides, or (height, width).
      padding: rows and columns of black that are put on every side before.
    """
    height, width = _both(size)
    check_pixels(height, width, before=(image.height, image.width))
    starts = []
    for have, wanted in ((image.height + 2 * padding, height), (image.width + 2 * padding, width)):
        missing = max(wanted - have, 0)
        starts.append(int(generator.integers(have + missing - wanted + 1)) - missing // 2 - padding)
    top, left = starts
    return image.crop((left, top, left + width, top + height))  # what lies outside is black


def random_resized_crop(
    generator: np.random.Generator,
    image: PILImage,
    *,
    size: Size = 224,
    scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.08, 1.0),
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bilinear",
) -> PILImage:
    """A window of random area and shape, resized: the usual training augmentation of ImageNet.

    The share of the area is uniform in `scale`, the logarithm of width over height uniform in that of `ratio`, the
    place uniform. A window that does not fit is drawn again, ten times at most; then it is the largest in the middle
    whose shape is within `ratio`. Szegedy et al. 2015 (section 6), as torchvision's RandomResizedCrop samples it.

    Args:
      generator: of random numbers.
      image: Pillow's.
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
    top, left, height, width = _window(generator, (image.height, image.width), scale, ratio)
    # Cut first: with a `box`, Pillow's filter would see pixels outside of the window.
    return _resized(image.crop((left, top, left + width, top + height)), _both(size), interpolation)


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
    generator: np.random.Generator, image: PILImage, *, probability: Annotated[float, Field(ge=0, le=1)] = 0.5
) -> PILImage:
    """Mirror left to right with the given probability."""
    from PIL import Image

    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < probability else image


def grey(image: PILImage) -> PILImage:
    """Luma (ITU-R 601-2) in place of all colours; the image keeps its channels, so that networks keep their shape.

    Args:
      image: Pillow's; one without colours stays as it is.
    """
    return image if image.mode == "L" else image.convert("LA" if image.mode == "RGBA" else "L").convert(image.mode)


def permute_pixels(image: PILImage, *, seed: Annotated[int, Field(ge=0)] = 0) -> PILImage:
    """The pixels in another order, one and the same for all images of a size: what is near is near no longer.

    Args:
      image: Pillow's.
      seed: of the order.
    """
    pixels = to_pixels(image)
    height, width, channels = pixels.shape
    order = np.random.Generator(np.random.Philox(seed)).permutation(height * width)
    flat = pixels.reshape(height * width, channels)  # [H, W, C] -> [H * W, C]
    return from_pixels(flat[order].reshape(pixels.shape))


HOST_TRANSFORMS: dict[str, Callable[..., PILImage]] = {
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
    image: PILImage,
    nodes: Sequence[Mapping[str, Any]],
    *,
    generator: np.random.Generator | None,
) -> UInt8[np.ndarray, "H W C"]:
    """Apply transforms in order.

    Args:
      image: Pillow's, of mode L, RGB or RGBA, or pixels uint8 `[h, w, C]` with 1, 3 or 4 channels.
      nodes: checked `{name, **options}` nodes; names are those of HOST_TRANSFORMS.
      generator: of the example and epoch; needed where a name is in RANDOM.

    Returns:
      uint8, contiguous in memory; it may be read-only.

    Raises:
      UserError: a random transform and no generator, other channels, or as the transforms.
    """
    if isinstance(image, np.ndarray):
        image = from_pixels(image)
    for node in nodes:
        options = {name: value for name, value in node.items() if name != "name"}
        function = HOST_TRANSFORMS[node["name"]]
        if node["name"] not in RANDOM:
            image = function(image, **options)
        elif generator is None:
            raise UserError(f"host transform {node['name']!r} is random; only a streamed training split can have it")
        else:
            image = function(generator, image, **options)
    return to_pixels(image)


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _resized(image: PILImage, size: tuple[int, int], interpolation: Interpolation) -> PILImage:
    from PIL import Image

    height, width = size
    check_pixels(height, width, before=(image.height, image.width))
    if size == (image.height, image.width):
        return image
    return image.resize((width, height), Image.Resampling[interpolation.upper()])
