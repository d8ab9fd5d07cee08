"""The splits of an experiment: loaded into memory or streamed, and what is measured of them before training."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cnn_jax.data.inspection import level_counts, moments
from cnn_jax.data.sources import LabelledImages, Source
from cnn_jax.data.stream import StreamedImages, open_stream
from cnn_jax.errors import UserError
from cnn_jax.train.config import Data
from cnn_jax.train.config_file import Node

Split: TypeAlias = LabelledImages | StreamedImages


def open_splits(source: Source, data: Data, *, seed: int) -> dict[str, Split]:
    """Every split that a config names, in memory or as a stream.

    Args:
      source: the data set.
      data: with checked nodes.
      seed: the run's, for random transforms on the host.

    Raises:
      UserError: a split, or an image, that cannot be read.
    """
    named = {name: spec for name, spec in data.splits.model_dump().items() if spec is not None}
    wrappers: Mapping[str, Sequence[Node]] = {name: getattr(data.wrappers, name) for name in named}
    if data.stream is None:
        return {
            name: source.load(
                spec,
                wrappers=wrappers[name],
                transforms=data.transforms.train if name == "train" else data.transforms.evaluation,
                channels=data.channels,
                on_corrupt=data.on_corrupt,
                max_corrupt=data.max_corrupt,
            )
            for name, spec in named.items()
        }
    return {
        name: open_stream(
            source,
            spec,
            wrappers=wrappers[name],
            channels=data.channels,
            training_transforms=data.transforms.train,
            evaluation_transforms=data.transforms.evaluation,
            seed=seed,
            workers=data.stream.workers,
            on_corrupt=data.on_corrupt,
            max_corrupt=data.max_corrupt,
        )
        for name, spec in named.items()
    }


def normalisation(data: Data, train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel, as configured or measured on the training split.

    Raises:
      UserError: not as many as there are channels, or none for a stream.
    """
    channels = train.image_shape[-1]
    for name in ("mean", "std"):
        configured = getattr(data, name)
        if configured is not None and len(configured) != channels:
            raise UserError(f"config.data.{name} has {len(configured)} values, the images have {channels} channels")
    if data.mean is not None and data.std is not None:
        return data.mean, data.std
    if isinstance(train, StreamedImages):
        raise UserError(
            "config.data.mean and data.std are not measured on a stream; give them: experiments/inspect_data.py tells"
            " them"
        )
    # From whole numbers: the result, which is part of the config's digest, is the same on every processor.
    measured_mean, measured_std = moments(level_counts(train.images))
    return data.mean or measured_mean, data.std or measured_std
