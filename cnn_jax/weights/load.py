"""Variables of a model from a file of weights, or from published weights by name."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.paths import expanded
from cnn_jax.weights import pretrained
from cnn_jax.weights.convert import convert, flat_to_torch, key_map_of
from cnn_jax.weights.download import fetch
from cnn_jax.weights.files import read, read_metadata

ORIGIN = "weights"
"""The metadata of a safetensors file under which `experiments/convert.py` keeps the name of published weights."""
COLLECTIONS = ("params/", "batch_stats/")
"""How names of our own variables start; torch has no such keys."""


def load(
    model: str,
    path_or_name: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    new_head: jax.Array | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """The variables of a model with published weights, or with those of a file.

    Args:
      model: a key of `MODELS` that torch weights are known for.
      path_or_name: a `.safetensors` file with torch's names or ours, a torch file (`.pth`, `.pt`), or the name of
        published weights such as "resnet50.IMAGENET1K_V2" or "timm/resnet50.a1_in1k" (`weights.pretrained.table()`),
        which are downloaded once into the folder that CNN_JAX_WEIGHTS names.
      num_classes: None: as many as the weights have.
      in_channels: None: as many as the weights have; see `weights.convert`.
      new_head: the key from which the layers behind the features are initialised where `num_classes` is not the
        weights'; without it they are refused.
      **arguments: of the model.

    Returns:
      `{"params": ..., "batch_stats": ...}`, the latter where the model has statistics.

    Raises:
      UserError: an unknown model or name, weights of another model, a file that cannot be read or downloaded, is
        damaged, asks for anything but tensors, or does not fit.
    """
    key_map_of(model)
    path = locate(model, path_or_name)
    state = read(path)
    try:
        if is_ours(state):
            given = {key: value for key, value in arguments.items() if key != "auxiliary"}  # the file says it
            state = flat_to_torch(model, state, **given)
        return convert(model, state, num_classes=num_classes, in_channels=in_channels, new_head=new_head, **arguments)
    except UserError as error:
        raise UserError(f"{str(path)!r}: {error}") from None


def locate(model: str, path_or_name: str | os.PathLike[str]) -> pathlib.Path:
    """The file of these weights, downloaded if they have a published name and it is not there yet.

    Raises:
      UserError: neither a file nor published weights of the model, or a download that fails.
    """
    if isinstance(path_or_name, str) and path_or_name in pretrained.table():
        return fetch(pretrained.find(path_or_name, model=model))
    path = expanded(path_or_name)
    if path.exists():
        return path
    names = [entry.name for entry in pretrained.of_model(model)]
    raise UserError(
        f"{str(path_or_name)!r} is neither a file nor published weights of {model!r};"
        f" those are: {', '.join(names) or 'none'}"
    )


def published(model: str, path_or_name: str | os.PathLike[str]) -> pretrained.Pretrained | None:
    """What these weights were published as, if a name, the name of their file or its metadata says so.

    Raises:
      UserError: a name of another model's weights, or a file that cannot be read.
    """
    if isinstance(path_or_name, str) and path_or_name in pretrained.table():
        return pretrained.find(path_or_name, model=model)
    path = expanded(path_or_name)
    origin = read_metadata(path).get(ORIGIN)
    for entry in pretrained.of_model(model):
        if entry.name == origin or path.name == entry.file:
            return entry
    return None


def is_ours(state: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are those of our variables, `params/head/output/kernel`, rather than torch's."""
    return bool(state) and all(name.startswith(COLLECTIONS) for name in state)
