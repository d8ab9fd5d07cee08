"""What automatic policies choose from: AutoAugment's learnt sub-policies, and the magnitudes that a bin stands for."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from cnn_jax.data.augment.operations import OperationName

PolicyName: TypeAlias = Literal["cifar10", "imagenet", "svhn"]

SIGNED = (
    *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness"),
)
"""Operations whose magnitude is positive or negative at random."""

Step: TypeAlias = tuple[OperationName, float, int | None]
"""Operation, its probability, and the bin of its magnitude out of 10; None where it has none."""

SUB_POLICIES: dict[PolicyName, tuple[tuple[Step, Step], ...]] = {
    # Cubuk et al. 2019, Table 7.
    "cifar10": (
        (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
        (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
        (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
        (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
        (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
        (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
        (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
        (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
        (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
        (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
        (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
        (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
        (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
        (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
        (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
        (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
        (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
        (("Color", 0.9, 9), ("Equalize", 0.6, None)),
        (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
        (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
        (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
        (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
        (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
        (("Equalize", 0.8, None), ("Invert", 0.1, None)),
        (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
    ),
    # Cubuk et al. 2019, Table 9.
    "imagenet": (
        (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
        (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
        (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
        (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
        (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
        (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
        (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
        (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
        (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
        (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
        (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
        (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
        (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
        (("Invert", 0.6, None), ("Equalize", 1.0, None)),
        (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
        (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
        (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
        (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
        (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
        (("Color", 0.4, 0), ("Equalize", 0.6, None)),
        (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
        (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
        (("Invert", 0.6, None), ("Equalize", 1.0, None)),
        (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
        (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    ),
    # Cubuk et al. 2019, Table 8.
    "svhn": (
        (("ShearX", 0.9, 4), ("Invert", 0.2, None)),
        (("ShearY", 0.9, 8), ("Invert", 0.7, None)),
        (("Equalize", 0.6, None), ("Solarize", 0.6, 6)),
        (("Invert", 0.9, None), ("Equalize", 0.6, None)),
        (("Equalize", 0.6, None), ("Rotate", 0.9, 3)),
        (("ShearX", 0.9, 4), ("AutoContrast", 0.8, None)),
        (("ShearY", 0.9, 8), ("Invert", 0.4, None)),
        (("ShearY", 0.9, 5), ("Solarize", 0.2, 6)),
        (("Invert", 0.9, None), ("AutoContrast", 0.8, None)),
        (("Equalize", 0.6, None), ("Rotate", 0.9, 3)),
        (("ShearX", 0.9, 4), ("Solarize", 0.3, 3)),
        (("ShearY", 0.8, 8), ("Invert", 0.7, None)),
        (("Equalize", 0.9, None), ("TranslateY", 0.6, 6)),
        (("Invert", 0.9, None), ("Equalize", 0.6, None)),
        (("Contrast", 0.3, 3), ("Rotate", 0.8, 4)),
        (("Invert", 0.8, None), ("TranslateY", 0.0, 2)),
        (("ShearY", 0.7, 6), ("Solarize", 0.4, 8)),
        (("Invert", 0.6, None), ("Rotate", 0.8, 4)),
        (("ShearY", 0.3, 7), ("TranslateX", 0.9, 3)),
        (("ShearX", 0.1, 6), ("Invert", 0.6, None)),
        (("Solarize", 0.7, 2), ("TranslateY", 0.6, 7)),
        (("ShearY", 0.8, 4), ("Invert", 0.8, None)),
        (("ShearX", 0.7, 9), ("TranslateY", 0.8, 3)),
        (("ShearY", 0.8, 5), ("AutoContrast", 0.7, None)),
        (("ShearX", 0.7, 2), ("Invert", 0.1, None)),
    ),
}

Magnitudes: TypeAlias = Mapping[OperationName, Float[np.ndarray, "bins"]]
"""The magnitude of each bin, from the weakest to the strongest; zeros for operations that have none."""


def standard_magnitudes(*, bins: int, size: tuple[int, ...]) -> Magnitudes:
    """Those of AutoAugment, with 10 bins, and of RandAugment (Cubuk et al. 2019, Table 6), as torchvision has them.

    Args:
      bins: the number of magnitudes.
      size: height and width of the images, of which translations are up to 150/331.
    """
    height, width = size
    return {
        "ShearX": np.linspace(0, 0.3, bins),
        "ShearY": np.linspace(0, 0.3, bins),
        "TranslateX": np.linspace(0, 150 / 331 * width, bins),
        "TranslateY": np.linspace(0, 150 / 331 * height, bins),
        "Rotate": np.linspace(0, 30, bins),
        "Brightness": np.linspace(0, 0.9, bins),
        "Color": np.linspace(0, 0.9, bins),
        "Contrast": np.linspace(0, 0.9, bins),
        "Sharpness": np.linspace(0, 0.9, bins),
        "Posterize": 8 - np.round(np.linspace(0, 4, bins)),
        "Solarize": np.linspace(255, 0, bins),
        "AutoContrast": np.zeros(bins),
        "Equalize": np.zeros(bins),
        "Invert": np.zeros(bins),
    }


def wide_magnitudes(*, bins: int) -> Magnitudes:
    """Those of TrivialAugment's wide search space (Müller & Hutter 2021, Table 7), as torchvision has them.

    Translations are up to 32 pixels at any size of the images.
    """
    return {
        "Identity": np.zeros(bins),
        "ShearX": np.linspace(0, 0.99, bins),
        "ShearY": np.linspace(0, 0.99, bins),
        "TranslateX": np.linspace(0, 32, bins),
        "TranslateY": np.linspace(0, 32, bins),
        "Rotate": np.linspace(0, 135, bins),
        "Brightness": np.linspace(0, 0.99, bins),
        "Color": np.linspace(0, 0.99, bins),
        "Contrast": np.linspace(0, 0.99, bins),
        "Sharpness": np.linspace(0, 0.99, bins),
        "Posterize": 8 - np.round(np.linspace(0, 6, bins)),
        "Solarize": np.linspace(255, 0, bins),
        "AutoContrast": np.zeros(bins),
        "Equalize": np.zeros(bins),
    }


def augmix_magnitudes(*, size: tuple[int, ...], all_operations: bool) -> Magnitudes:
    """AugMix's ten magnitudes of each operation, as torchvision has them.

    Args:
      size: height and width of the images, of which translations are up to a third.
      all_operations: with brightness, colour, contrast and sharpness.
    """
    height, width = size
    magnitudes: Magnitudes = {
        **standard_magnitudes(bins=10, size=size),
        "TranslateX": np.linspace(0, width / 3, 10),
        "TranslateY": np.linspace(0, height / 3, 10),
        "Posterize": 4 - np.round(np.linspace(0, 4, 10)),
    }
    left_out = ("Invert",) if all_operations else ("Invert", "Brightness", "Color", "Contrast", "Sharpness")
    return {name: values for name, values in magnitudes.items() if name not in left_out}


def signed_choices(magnitudes: Magnitudes) -> list[tuple[OperationName, float]]:
    """Every operation with every magnitude and both signs.

    There are equally many of each operation: one drawn uniformly is a uniform operation with a uniform bin and a random
    sign.
    """
    return [
        (name, float(value) * (sign if name in SIGNED else 1))
        for name, values in magnitudes.items()
        for value in values
        for sign in (1, -1)
    ]
