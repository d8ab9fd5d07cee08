"""Where labelled images come from: the literal table of sources that a config's `data.source` looks up."""

from collections.abc import Callable

from cnn_jax.data.array_files import array_source
from cnn_jax.data.digits import sklearn_source
from cnn_jax.data.folder import folder_source
from cnn_jax.data.labelled import LabelledImages, check_disjoint, check_labels
from cnn_jax.data.parquet import parquet_source
from cnn_jax.data.source import Selection, Source
from cnn_jax.data.tfds_sets import tfds_source
from cnn_jax.errors import unknown_name

__all__ = ["SOURCES", "LabelledImages", "Selection", "Source", "check_disjoint", "check_labels", "open_source"]

SOURCES: dict[str, Callable[..., Source]] = {
    "sklearn": sklearn_source,
    "tfds": tfds_source,
    "folder": folder_source,
    "arrays": array_source,
    "parquet": parquet_source,
}


def open_source(source: str, name: str, *, directory: str | None = None, split_seed: int = 0) -> Source:
    """The data set of a config's `data.source` and `data.name`.

    Raises:
      UserError: unknown source or name, or data that is not there.
    """
    if source not in SOURCES:
        raise unknown_name("config.data.source", source, SOURCES)
    return SOURCES[source](name, directory=directory, split_seed=split_seed)
