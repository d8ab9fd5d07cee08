"""Checks of constructor arguments: each raises a one-line `UserError` with the offending value and the allowed ones."""

from collections.abc import Iterable

from cnn_jax.errors import UserError, unknown_name

DTYPES = ("float32", "bfloat16")
"""Compute types; parameters, normalisation statistics and logits are float32 under both."""


def require_known(what: str, value: str, known: Iterable[str]) -> None:
    """Checks that a name is in its table.

    Args:
      what: what the name stands for, for example "padding".
      value: the name.
      known: the names that exist.

    Raises:
      UserError: the name is unknown; the message lists the known ones and the nearest.

    Example:
      >>> require_known("pool", "max", ("max", "average"))
    """
    known = tuple(known)
    if value not in known:
        raise unknown_name(what, value, known)


def require_positive(what: str, *values: int) -> None:
    """Checks that every value is 1 or more.

    Raises:
      UserError: one is not.
    """
    for value in values:
        if value < 1:
            raise UserError(f"{what} is {value}; it must be 1 or more")


def require_rate(what: str, value: float) -> None:
    """Checks that a dropout rate is in [0, 1).

    Raises:
      UserError: it is not.
    """
    if not 0 <= value < 1:
        raise UserError(f"{what} is {value}; it must be at least 0 and below 1")


def require_classifier(*, num_classes: int, in_channels: int, dropout_rate: float, dtype: str) -> None:
    """Checks the arguments that every classifier preset has.

    Raises:
      UserError: fewer than one class or channel, a dropout rate outside [0, 1), or a dtype not in `DTYPES`.
    """
    require_positive("num_classes", num_classes)
    require_positive("in_channels", in_channels)
    require_rate("dropout_rate", dropout_rate)
    require_known("dtype", dtype, DTYPES)


def require_stages(remat: Iterable[str], stages: Iterable[str]) -> None:
    """Checks that every stage to be rematerialised is one of the network's.

    Raises:
      UserError: one is not; the message lists the stages.
    """
    stages = tuple(stages)
    for stage in remat:
        require_known("stage to rematerialise", stage, stages)
