"""Probes that ask how answers change with the images: shifts, position, corruption and occlusion."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field

from cnn_jax.errors import UserError
from cnn_jax.study.probes.answers import agreement, answers, correct, image_shape
from cnn_jax.study.probes.changes import STRENGTHS, corrupted, moved, occluded, without_what_leaves
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.state import TrainState

Pixels: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
Offsets: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Kind: TypeAlias = Literal["gaussian_noise", "salt_and_pepper", "blur", "contrast"]
Severity: TypeAlias = Annotated[int, Field(ge=0, le=5)]


def shift_consistency(experiment: Experiment, state: TrainState, *, shifts: Pixels = (1, 2, 3, 4)) -> dict[str, float]:
    """The share of images whose class stays the same when they are shifted (Zhang 2019, Section 3.1).

    Both views show the same part of the image: what is left of it when s pixels go out of the window on one side, once
    where it is and once moved by s pixels to that side, the rest black in both. So neither has a pixel that the other
    one lacks, and a difference is one of place alone. Averaged over the directions: both ways along each axis of space.

    Args:
      experiment: what was trained.
      state: with the parameters.
      shifts: pixels.

    Returns:
      Each shift's share, and their mean under "".

    Raises:
      UserError: a shift as long as the image.
    """
    space = image_shape(experiment)[:-1]
    _require_below("shift_consistency.shifts", shifts, space, largest="shift")
    offsets = [_directions(shift, rank=len(space)) for shift in shifts]
    settings = [
        {"offset": offset, "moved": np.bool_(is_moved)}
        for directions in offsets
        for offset in directions
        for is_moved in (False, True)
    ]

    def change(keys: Array, images: Array, setting: dict[str, Any]) -> Array:
        del keys  # Nothing here is random.
        offset = setting["offset"]
        return jnp.where(setting["moved"], moved(images, offset), without_what_leaves(images, offset))

    classes, _ = answers(experiment, state, change, settings, purpose="shift_consistency")
    same = agreement(classes[0::2], classes[1::2]).mean(axis=1)
    # [shifts * directions] -> [shifts, directions]
    return _with_mean(shifts, same.reshape(len(shifts), -1).mean(axis=1))


def accuracy_by_position(
    experiment: Experiment, state: TrainState, *, offsets: Offsets = (0, 2, 4, 6)
) -> dict[str, float]:
    """Accuracy on images that are moved; black comes in, and what leaves the window is lost.

    Averaged over the directions: both ways along each axis of space.

    Args:
      experiment: what was trained.
      state: with the parameters.
      offsets: pixels.

    Returns:
      Each offset's accuracy, and their mean under "".

    Raises:
      UserError: an offset as long as the image.
    """
    space = image_shape(experiment)[:-1]
    _require_below("accuracy_by_position.offsets", offsets, space, largest="offset")
    directions = [_directions(offset, rank=len(space)) for offset in offsets]

    def change(keys: Array, images: Array, setting: Array) -> Array:
        del keys  # Nothing here is random.
        return moved(images, setting)

    settings = [offset for group in directions for offset in group]
    shares = correct(*answers(experiment, state, change, settings, purpose="accuracy_by_position"))
    # [offsets * directions] -> [offsets, directions]
    return _with_mean(offsets, shares.reshape(len(offsets), -1).mean(axis=1))


def corruption_accuracy(
    experiment: Experiment,
    state: TrainState,
    *,
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("gaussian_noise", "salt_and_pepper", "blur", "contrast"),
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (1, 2, 3, 4, 5),
) -> dict[str, float]:
    """Accuracy on corrupted images, as on CIFAR-10-C (Hendrycks & Dietterich 2019): see `changes.STRENGTHS`.

    Args:
      experiment: what was trained.
      state: with the parameters.
      kinds: of corruption.
      severities: 1 to 5; 0 leaves the images as they are.

    Returns:
      `kind/severity`, the mean over severities under `kind`, and the mean over kinds under "".
    """
    cells = [(kind, severity) for kind in kinds for severity in severities]
    settings = [
        {"kind": np.int32(list(STRENGTHS).index(kind)), "strength": np.float32(STRENGTHS[kind][severity])}
        for kind, severity in cells
    ]

    def change(keys: Array, images: Array, setting: dict[str, Any]) -> Array:
        return corrupted(keys, images, setting["kind"], setting["strength"])

    shares = correct(*answers(experiment, state, change, settings, purpose="corruption"))
    found = {f"{kind}/{severity}": float(share) for (kind, severity), share in zip(cells, shares, strict=True)}
    # [kinds * severities] -> [kinds, severities]
    means = shares.reshape(len(kinds), -1).mean(axis=1)
    return {**found, **_with_mean(kinds, means)}


def occlusion_accuracy(experiment: Experiment, state: TrainState, *, sizes: Pixels = (4, 8, 12)) -> dict[str, float]:
    """Accuracy on images of which a square is painted over with the mean colour of the training images.

    The square lies inside the image, at a place that is a function of the example: the same for every network.

    Args:
      experiment: what was trained.
      state: with the parameters.
      sizes: sides of the square, in pixels.

    Returns:
      Each size's accuracy, and their mean under "".

    Raises:
      UserError: a square that is larger than the image.
    """
    _require_below("occlusion_accuracy.sizes", sizes, [n + 1 for n in image_shape(experiment)[:-1]], largest="square")

    def change(keys: Array, images: Array, setting: Array) -> Array:
        return occluded(keys, images, setting, fill=experiment.mean)

    settings = [np.int32(size) for size in sizes]
    return _with_mean(sizes, correct(*answers(experiment, state, change, settings, purpose="occlusion")))


def _directions(pixels: int, *, rank: int) -> list[Int[np.ndarray, "rank"]]:
    """Offsets of this length, both ways along each axis."""
    return [sign * pixels * row for row in np.eye(rank, dtype=np.int32) for sign in (1, -1)]


def _with_mean(names: Sequence[Any], values: Float[np.ndarray, "values"]) -> dict[str, float]:
    """Each value under its name, and the mean of all under ""."""
    return {"": float(np.mean(values)), **{str(name): float(v) for name, v in zip(names, values, strict=True)}}


def _require_below(option: str, pixels: Sequence[int], space: Sequence[int], *, largest: str) -> None:
    if max(pixels) >= min(space):
        raise UserError(
            f"study.probes: {option} has {max(pixels)}, too many pixels for these images; the largest {largest} is"
            f" {min(space) - 1}"
        )
