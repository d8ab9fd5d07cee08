"""Filters that decorrelate the patches of images."""

import itertools

import numpy as np
from jaxtyping import Float

CHUNK = 500


def whitening_filters(
    images: Float[np.ndarray, "N *space C"], *, window: tuple[int, ...], epsilon: float
) -> Float[np.ndarray, "*window C F"]:
    """The eigenvectors of the patches' second moments, each divided by √(λ + ε), and their negatives.

    With D = window · C numbers in a patch there are F = 2 D filters. The responses of the first D over these images
    have second moments λ / (λ + ε), and no correlation.

    Args:
      images: normalised.
      window: size of a patch along each axis of space.
      epsilon: keeps directions without variance small.

    Source: Jordan 2024 (arXiv:2404.00498), Section 3.1; the moments are not centred, as in its code.
    """
    space, channels = images.shape[1:-1], images.shape[-1]
    size = channels * int(np.prod(window))
    moments, count = np.zeros((size, size)), 0
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        shifted = [
            chunk[(slice(None), *(slice(o, o + n - w + 1) for o, n, w in zip(offset, space, window, strict=True)))]
            for offset in itertools.product(*(range(w) for w in window))
        ]
        # window arrays [n, *out, C] -> [n, *out, window, C] -> [n * out, window * C]
        patches = np.stack(shifted, axis=-2).reshape(-1, size)
        moments += patches.T @ patches
        count += len(patches)
    eigenvalues, eigenvectors = np.linalg.eigh(moments / count)
    filters = eigenvectors / np.sqrt(eigenvalues + epsilon)  # [D, D], a filter a column
    # [window * C, 2 D] -> [*window, C, 2 D]
    return np.concatenate([filters, -filters], axis=1).reshape(*window, channels, 2 * size).astype(np.float32)
