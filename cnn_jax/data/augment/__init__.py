"""Augmentation on the device, inside the step; `AUGMENTATIONS` is the table that a config's `data.augment` looks up.

An augmentation is a pure function `(keys, images, *, options) -> images` with one key per example, so that the pixels
of example i in epoch e are the same for every batch size, device count and restart. Images are float32 in [0, 1],
`[B, *space, C]`, before normalisation, and stay so.
"""

from collections.abc import Callable

from jaxtyping import Array

from cnn_jax.data.augment.flip_and_crop import alternating_flip, random_crop, random_flip

AUGMENTATIONS: dict[str, Callable[..., Array]] = {
    "random_flip": random_flip,
    "alternating_flip": alternating_flip,
    "random_crop": random_crop,
}

BY_EPOCH = ("alternating_flip",)
"""Augmentations that take the epoch itself, and keys that depend on the example alone."""
