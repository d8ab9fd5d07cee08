"""Augmentation on the device, inside the step; `AUGMENTATIONS` is the table that a config's `data.augment` looks up.

An augmentation is a pure function `(keys, images, *, options) -> images` with one key per example, so that the pixels
of example i in epoch e are the same for every batch size, device count and restart. Images are float32 in [0, 1],
`[B, *space, C]`, before normalisation, and stay so.
"""

from collections.abc import Callable

from jaxtyping import Array

from cnn_jax.data.augment.augmix import augmix
from cnn_jax.data.augment.blur_and_noise import gaussian_blur, gaussian_noise
from cnn_jax.data.augment.colour import colour_jitter, random_grey
from cnn_jax.data.augment.erase import cutout, random_erasing
from cnn_jax.data.augment.flip_and_crop import (
    alternating_flip,
    alternating_flip_matrices,
    random_crop,
    random_crop_matrices,
    random_flip,
    random_flip_matrices,
)
from cnn_jax.data.augment.geometry import (
    random_rotation,
    random_rotation_matrices,
    random_shear,
    random_shear_matrices,
    random_translation,
    random_translation_matrices,
    random_zoom,
    random_zoom_matrices,
)
from cnn_jax.data.augment.policies import (
    auto_augment,
    auto_augment_matrices,
    rand_augment,
    rand_augment_matrices,
    trivial_augment,
    trivial_augment_matrices,
)
from cnn_jax.data.augment.resized_crop import random_resized_crop, random_resized_crop_matrices
from cnn_jax.data.augment.views import simclr_view, simclr_view_matrices

AUGMENTATIONS: dict[str, Callable[..., Array]] = {
    "random_flip": random_flip,
    "alternating_flip": alternating_flip,
    "random_crop": random_crop,
    "random_resized_crop": random_resized_crop,
    "random_rotation": random_rotation,
    "random_translation": random_translation,
    "random_shear": random_shear,
    "random_zoom": random_zoom,
    "colour_jitter": colour_jitter,
    "random_grey": random_grey,
    "gaussian_blur": gaussian_blur,
    "gaussian_noise": gaussian_noise,
    "cutout": cutout,
    "random_erasing": random_erasing,
    "simclr_view": simclr_view,
    "auto_augment": auto_augment,
    "rand_augment": rand_augment,
    "trivial_augment": trivial_augment,
    "augmix": augmix,
}

GEOMETRIC: dict[str, Callable[..., Array]] = {
    "random_flip": random_flip_matrices,
    "alternating_flip": alternating_flip_matrices,
    "random_crop": random_crop_matrices,
    "random_resized_crop": random_resized_crop_matrices,
    "random_rotation": random_rotation_matrices,
    "random_translation": random_translation_matrices,
    "random_shear": random_shear_matrices,
    "random_zoom": random_zoom_matrices,
    "simclr_view": simclr_view_matrices,
    "auto_augment": auto_augment_matrices,
    "rand_augment": rand_augment_matrices,
    "trivial_augment": trivial_augment_matrices,
}
"""What augmentations that move pixels do to boxes and segmentation maps: `(keys, *, size, options) -> matrices`.

`size` is the images' height and width before, `target` after; the options are those of the augmentation.
"""

IN_PLACE = ("colour_jitter", "random_grey", "gaussian_blur", "gaussian_noise", "cutout", "random_erasing")
"""Augmentations that move no pixels: boxes and segmentation maps stay as they are."""

GIVEN = ("keys", "images", "epoch", "targets", "mask")
"""Parameters of augmentations and mixings that the transform passes itself: no options of a config."""

BY_EPOCH = ("alternating_flip",)
"""Augmentations that take the epoch itself, and keys that depend on the example alone."""
