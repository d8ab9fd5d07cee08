"""Numbers of channels: scaled by a width multiplier and rounded to what hardware likes."""

import math

from cnn_jax.errors import UserError


def scaled_channels(channels: int, *, multiplier: float = 1.0, divisor: int = 8) -> int:
    """Channels times a multiplier, rounded to the nearest multiple of a divisor that is at least 90 % of the product.

    Source: `_make_divisible` in the authors' code of MobileNetV2 and in torchvision.

    Args:
      channels: before scaling.
      multiplier: above 0.
      divisor: of the result, which is at least this.

    Example:
      >>> scaled_channels(24, multiplier=0.5), scaled_channels(24, multiplier=0.75), scaled_channels(32, multiplier=1.4)
      (16, 24, 48)
    """
    scaled = channels * multiplier
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def require_width_multiplier(width_multiplier: float) -> None:
    """Checks that a width multiplier is above 0 and finite.

    Raises:
      UserError: it is not.
    """
    if not 0 < width_multiplier < math.inf:
        raise UserError(f"width_multiplier is {width_multiplier}; it must be above 0, for example 0.5 or 1.4")
