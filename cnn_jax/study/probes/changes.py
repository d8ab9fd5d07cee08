"""What probes do to images in [0, 1]: move, occlude and corrupt them, by amounts that are traced."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cnn_jax.data.augment.blur_and_noise import blur
from cnn_jax.data.augment.draws import per_example, uniforms

BLUR_TAPS = 9
"""Pixels of the blur's kernel along each axis: 4 deviations of the widest blur on both sides."""

STRENGTHS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.0, 0.04, 0.06, 0.08, 0.09, 0.10),
    "salt_and_pepper": (0.0, 0.01, 0.02, 0.03, 0.05, 0.07),
    "blur": (0.0, 0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (1.0, 0.75, 0.5, 0.4, 0.3, 0.15),
}
"""Strength of each corruption by severity, 0 (no change) to 5.

Deviation of the noise; share of the values that become 0 or 1; deviation of the blur in pixels; factor of the contrast.
These are CIFAR-10-C's `gaussian_noise`, `impulse_noise`, `gaussian_blur` and `contrast` (Hendrycks & Dietterich 2019,
"Benchmarking neural network robustness to common corruptions and perturbations"; constants in the authors' repository
hendrycks/robustness, `ImageNet-C/create_c/make_cifar_c.py`). There images are rounded down to uint8 afterwards and a
blur repeats the border; here they are not rounded, and outside is the mirror image.
"""


def moved(images: Float[Array, "B *space C"], offset: Int[Array, "rank"]) -> Float[Array, "B *space C"]:
    """Move images by whole pixels; black comes in.

    Args:
      images: `[B, *space, C]`.
      offset: pixels along each axis of space, towards higher indices.
    """
    for axis in range(1, images.ndim - 1):
        pixels = offset[axis - 1]
        images = _where_inside(jnp.roll(images, pixels, axis), -pixels, axis)
    return images


def without_what_leaves(images: Float[Array, "B *space C"], offset: Int[Array, "rank"]) -> Float[Array, "B *space C"]:
    """The images where they are, black in the pixels that `moved` with this offset pushes out."""
    for axis in range(1, images.ndim - 1):
        images = _where_inside(images, offset[axis - 1], axis)
    return images


def occluded(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], side: Int[Array, ""], *, fill: tuple[float, ...]
) -> Float[Array, "B *space C"]:
    """Paint over a square at a random place that lies inside the image; every place is as likely.

    Args:
      keys: one per example.
      images: `[B, *space, C]`.
      side: of the square, in pixels, at most the image's shortest.
      fill: a value for each channel.
    """
    shares = uniforms(keys, count=images.ndim - 2)
    inside = jnp.ones((), bool)
    for axis in range(1, images.ndim - 1):
        # A float32 below 1 times a number of places can round up to it.
        last = images.shape[axis] - side
        start = jnp.minimum(jnp.floor(shares[:, axis - 1] * (last + 1)).astype(jnp.int32), last)
        distance = _pixels(images, axis) - per_example(start, like=images)
        inside = inside & (distance >= 0) & (distance < side)
    # [C] -> [1, ..., 1, C]
    colour = jnp.asarray(fill, images.dtype).reshape(*[1] * (images.ndim - 1), -1)
    return jnp.where(inside, colour, images)


def corrupted(
    keys: Key[Array, "B"], images: Float[Array, "B *space C"], kind: Int[Array, ""], strength: Float[Array, ""]
) -> Float[Array, "B *space C"]:
    """Corrupt images; the same key draws the same noise at every strength.

    Args:
      keys: one per example.
      images: `[B, *space, C]` in [0, 1].
      kind: index in `STRENGTHS`.
      strength: see there.
    """
    return jax.lax.switch(kind, [CORRUPTIONS[name] for name in STRENGTHS], keys, images, strength)


def _gaussian_noise(keys: Array, images: Array, strength: Array) -> Array:
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
    return jnp.clip(images + strength * noise, 0, 1)


def _salt_and_pepper(keys: Array, images: Array, strength: Array) -> Array:
    draws = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(keys)
    return jnp.where(draws < strength / 2, 0.0, jnp.where(draws < strength, 1.0, images))


def _blur(keys: Array, images: Array, strength: Array) -> Array:
    del keys  # Corruptions have one signature.
    # So narrow a Gaussian is a single tap, and 0 / 0 would be NaN.
    return blur(images, jnp.full(len(images), jnp.maximum(strength, 1e-3)), kernel_size=BLUR_TAPS)


def _contrast(keys: Array, images: Array, strength: Array) -> Array:
    del keys
    mean = images.mean(axis=tuple(range(1, images.ndim - 1)), keepdims=True)
    return jnp.where(strength == 1, images, jnp.clip((images - mean) * strength + mean, 0, 1))


CORRUPTIONS = {
    "gaussian_noise": _gaussian_noise,
    "salt_and_pepper": _salt_and_pepper,
    "blur": _blur,
    "contrast": _contrast,
}
"""Functions of (keys, images, strength)."""


def _where_inside(images: Array, offset: Int[Array, ""], axis: int) -> Array:
    """The pixels whose index plus the offset is one of the image, black elsewhere."""
    target = _pixels(images, axis) + offset
    return jnp.where((target >= 0) & (target < images.shape[axis]), images, 0.0)


def _pixels(images: Array, axis: int) -> Int[Array, "..."]:
    """Indices along an axis, `[1, ..., n, ..., 1]`."""
    return jax.lax.broadcasted_iota(jnp.int32, [n if i == axis else 1 for i, n in enumerate(images.shape)], axis)
