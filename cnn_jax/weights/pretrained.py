"""Published weights by name: where they are, what they expect of an image, and their reported accuracy."""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cnn_jax.errors import UserError, unknown_name
from cnn_jax.weights.preprocess import Preprocessing

TABLE = "pretrained.json"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """One published file of weights.

    Attributes:
      name: such as "resnet50.IMAGENET1K_V2" (torchvision's) or "timm/resnet50.a1_in1k".
      model: the key of `MODELS` that they are for.
      url: of the file.
      sha256: first digits of the file's SHA-256 in hexadecimal; None where its publisher does not say.
      data: what it was trained on and measured with, such as "ImageNet-1K"; None where that is not known.
      accuracy: in percent, as published: "top-1" and "top-5" of a classifier, "mean IoU" and "pixels" of a
        segmentation; empty where it is not known.
      preprocessing: what the network expects of an image.
    """

    name: str
    model: str
    url: str
    sha256: str | None
    data: str | None
    accuracy: Mapping[str, float]
    preprocessing: Preprocessing

    @property
    def top1(self) -> float | None:
        """Published top-1 accuracy in percent."""
        return self.accuracy.get("top-1")

    @property
    def file(self) -> str:
        """The name under which the file is kept: its own, if that tells it from others."""
        own = self.url.rpartition("/")[2]
        return own if self.sha256 else f"{self.name.replace('/', '_')}.{own.rpartition('.')[2]}"


@functools.cache
def table() -> Mapping[str, Pretrained]:
    """All published weights by name."""
    text = importlib.resources.files("cnn_jax.weights").joinpath(TABLE).read_text(encoding="utf-8")
    return MappingProxyType({name: _entry(name, row) for name, row in json.loads(text).items()})


def of_model(model: str) -> tuple[Pretrained, ...]:
    """The published weights of a model, those of highest top-1 accuracy first."""
    found = [entry for entry in table().values() if entry.model == model]
    return tuple(sorted(found, key=lambda entry: -(entry.top1 or 0.0)))


def best_published(model: str) -> Pretrained | None:
    """The published weights of highest top-1 accuracy; None if the model has no published weights."""
    return next(iter(of_model(model)), None)


def find(name: str, *, model: str | None = None) -> Pretrained:
    """The published weights of this name.

    Args:
      name: a key of `table()`.
      model: if given, they must be for it.

    Raises:
      UserError: there are none of this name, or they are for another model.
    """
    names = [entry.name for entry in of_model(model)] if model else list(table())
    if name not in table():
        raise unknown_name(f"weights of {model}" if model else "weights", name, names)
    entry = table()[name]
    if model and entry.model != model:
        raise UserError(
            f"the weights {name!r} are of the model {entry.model!r}, not of {model!r};"
            f" its own: {', '.join(names) or 'none are known'}"
        )
    return entry


def _entry(name: str, row: Mapping[str, Any]) -> Pretrained:
    how = row["preprocessing"]
    return Pretrained(
        name=name,
        model=row["model"],
        url=row["url"],
        sha256=row["sha256"],
        data=row["data"],
        accuracy=MappingProxyType(row["accuracy"]),
        preprocessing=Preprocessing(
            resize=how["resize"] if isinstance(how["resize"], int) else tuple(how["resize"]),
            crop=how["crop"] and tuple(how["crop"]),
            interpolation=how["interpolation"],
            mean=tuple(how["mean"]),
            std=tuple(how["std"]),
        ),
    )
