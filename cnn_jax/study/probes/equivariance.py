"""How far feature maps are from moving with the image: the error of equivariance to shifts."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int
from pydantic import Field

from cnn_jax.data.transform import normalise, to_float
from cnn_jax.errors import UserError, unknown_name
from cnn_jax.methods.receptive_field import Field as ReceptiveField
from cnn_jax.methods.receptive_field import receptive_fields
from cnn_jax.study.probes.answers import compiled, image_shape, probed_split
from cnn_jax.study.probes.changes import moved
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.state import TrainState, evaluation_variables
from cnn_jax.types import Batch, PyTree

REGIONS = ("interior", "whole")
Fields: TypeAlias = Mapping[str, ReceptiveField]


def equivariance_error(
    experiment: Experiment,
    state: TrainState,
    *,
    shift: Annotated[int, Field(ge=1)] = 1,
    maps: tuple[str, ...] | None = None,
) -> dict[str, float]:
    """The error |f(shift x) - shift f(x)| / |f(shift x)| of the backbone's feature maps f, for images x.

    The image moves by p pixels along one axis of space, black comes in, and a map of stride t is moved by p / t. Where
    that is no whole number the map is interpolated linearly between its elements, as Zhang 2019 (Section 3.1) compares
    maps of lower resolution than the image's: a strided network is then equivariant to shifts by multiples of its
    stride at best. Both norms run over all images, all axes of space, and

    - `<map>/interior`: elements whose receptive field lies within what both views show of the image. Padding plays no
      part in these, so that for p a multiple of t convolutions and pools are exact up to rounding, and a difference
      comes from what sees the whole image, such as GroupNorm and gates;
    - `<map>/whole`: all elements that have a counterpart in the other view.

    Those are for p = `shift`; `<map>/interior_by_stride` and `<map>/whole_by_stride` are for p = `shift` · t.

    Args:
      experiment: what was trained.
      state: with the parameters.
      shift: pixels, or strides.
      maps: names of feature maps; all whose strides can be told unless given.

    Returns:
      The errors; one is left out where no element is left to compare, as in the interior of a map whose receptive field
      is larger than the image, or where all are 0.

    Raises:
      UserError: a shift as long as the image, an unknown map, or one whose receptive field cannot be told.
    """
    space = image_shape(experiment)[:-1]
    if shift >= min(space):
        raise UserError(
            f"study.probes: equivariance_error.shift is {shift}, but the images have {min(space)} pixels; the largest"
            f" shift is {min(space) - 1}"
        )
    fields = _chosen(feature_fields(experiment), maps, rank=len(space))
    # Map and suffix to its offset along each axis.
    wanted = {
        (name, suffix): tuple(shift * (window.stride if suffix else 1) for window in field)
        for name, field in fields.items()
        for suffix in ("", "_by_stride")
    }
    offsets = {(axis, p) for steps in wanted.values() for axis, p in enumerate(steps) if p < space[axis]}
    sums = _sums(experiment, state, fields, sorted(offsets))
    found = {}
    for (name, suffix), steps in wanted.items():
        for region in REGIONS:
            cells = [sums[axis, p][name][region] for axis, p in enumerate(steps) if (axis, p) in sums]
            difference, size = np.sum(cells, axis=0) if cells else (0.0, 0.0)
            if size > 0:
                found[f"{name}/{region}{suffix}"] = float(np.sqrt(difference / size))
    return found


def feature_fields(experiment: Experiment) -> dict[str, ReceptiveField | None]:
    """The receptive field of every feature map of the backbone, as `receptive_fields` gives them, in order."""
    image = jax.ShapeDtypeStruct((1, *image_shape(experiment)), jnp.float32)
    names: list[str] = []

    def marked(image: Array, params: PyTree, model_state: PyTree) -> list[Array]:
        maps = _features(experiment, params, model_state, image)
        names.extend(maps)
        return [checkpoint_name(values, name) for name, values in maps.items()]

    traced = jax.make_jaxpr(marked)(image, *evaluation_variables(experiment.abstract_state()))
    fields = receptive_fields(traced, 0, range(1, image.ndim - 1))
    return {name: fields.get(name) for name in names}


def squared_errors(
    still: Float[Array, "B ..."],
    shifted: Float[Array, "B ..."],
    mask: Float[Array, "B"],
    offset: Int[Array, "rank"],
    *,
    field: ReceptiveField,
    space: Sequence[int],
) -> dict[str, Float[Array, "2"]]:
    """The two sums of squares behind the error of one feature map, for each region.

    Args:
      still: the map of the images.
      shifted: the map of the moved images.
      mask: which examples count.
      offset: pixels by which the images were moved along each axis; 0 or more.
      field: of the map.
      space: pixels of the image along each axis.

    Returns:
      Region to the sums of (shifted - moved still)² and of shifted².
    """
    still, shifted = still.astype(jnp.float32), shifted.astype(jnp.float32)
    regions = dict.fromkeys(REGIONS, _along(mask > 0, 0, still.ndim))
    for axis, (window, pixels) in enumerate(zip(field, space, strict=True), start=1):
        length, stride, p = still.shape[axis], window.stride, offset[axis - 1]
        index = jnp.arange(length)
        # Element i of the moved map is element i - p / stride of the other one: between `low` and `high`.
        low, rest = jnp.divmod(index * stride - p, stride)
        high = low + (rest > 0)
        share = _along(rest / stride, axis, still.ndim)
        below, above = (jnp.take(still, jnp.clip(i, 0, length - 1), axis) for i in (low, high))
        still = (1 - share) * below + share * above
        whole = (low >= 0) & (high < length)
        # `low` sees furthest back in the image, the moved map's element furthest on: the other windows lie between.
        interior = (low * stride + window.first >= 0) & (index * stride + window.last < pixels)
        regions["whole"] &= _along(whole, axis, still.ndim)
        regions["interior"] &= _along(whole & interior, axis, still.ndim)
    squares = (jnp.square(shifted - still), jnp.square(shifted))
    return {name: jnp.stack([jnp.where(where, x, 0.0).sum() for x in squares]) for name, where in regions.items()}


def _along(values: Array, axis: int, rank: int) -> Array:
    """`[n]` to `[1, ..., n, ..., 1]`."""
    return jnp.expand_dims(values, [i for i in range(rank) if i != axis])


def _chosen(known: Mapping[str, ReceptiveField | None], maps: Sequence[str] | None, *, rank: int) -> Fields:
    """The maps to compare: those that move over the image axis by axis."""
    usable = {
        name: field
        for name, field in known.items()
        if field
        and len(field) == rank
        and all(
            window.stride > 0 and window.steps == tuple(window.stride * (i == axis) for i in range(len(window.steps)))
            for axis, window in enumerate(field, start=1)
        )
    }
    for name in maps or ():
        if name not in known:
            raise unknown_name("study.probes: equivariance_error.maps: feature map", name, known)
        if name not in usable:
            raise UserError(
                f"study.probes: equivariance_error.maps: the strides of {name!r} cannot be told; drop it; usable are"
                f" {', '.join(usable)}"
            )
    return {name: usable[name] for name in usable if maps is None or name in maps}


def _features(experiment: Experiment, params: PyTree, model_state: PyTree, images: Array) -> dict[str, Array]:
    maps: Any = experiment.model.apply({"params": params, **model_state}, images, train=False, method="features")
    return maps


def _sums(
    experiment: Experiment, state: TrainState, fields: Fields, offsets: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], dict[str, dict[str, Float[np.ndarray, "2"]]]]:
    """(axis, pixels) to map to region to the sums of `squared_errors` over all images."""
    space = image_shape(experiment)[:-1]

    def errors(params: PyTree, model_state: PyTree, batch: Batch, offset: Array) -> PyTree:
        images = to_float(batch["image"])
        both = jnp.concatenate([images, moved(images, offset)])  # [B, ...] twice -> [2 * B, ...]
        both = normalise(both, mean=experiment.mean, std=experiment.std)
        maps, count = _features(experiment, params, model_state, both), len(images)

        def error(values: Array, field: ReceptiveField) -> dict[str, Array]:
            still, shifted = values[:count], values[count:]
            return squared_errors(still, shifted, batch["mask"], offset, field=field, space=space)

        return {name: error(maps[name], field) for name, field in fields.items()}

    program, variables = compiled(experiment, errors), evaluation_variables(state)
    unit = np.eye(len(space), dtype=np.int32)
    batches = [
        [program(*variables, batch, p * unit[axis]) for axis, p in offsets]
        for batch in experiment.evaluation_batches(probed_split(experiment))
    ]
    # Added in 64 bits.
    columns = zip(*jax.device_get(batches), strict=True)
    totals = [jax.tree.map(lambda *xs: np.sum(xs, axis=0, dtype=np.float64), *column) for column in columns]
    return dict(zip(offsets, totals, strict=True))
