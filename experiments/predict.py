"""Classify image files with pretrained weights: the most probable classes and their probabilities.

Example:
  python experiments/predict.py --model=resnet50 --weights=resnet50.IMAGENET1K_V2 dog.jpg cat.png
"""

import importlib.resources
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from cnn_jax import command
from cnn_jax.errors import UserError
from cnn_jax.paths import expanded

if TYPE_CHECKING:
    from cnn_jax.weights.preprocess import Preprocessing

IMAGENET_CLASSES, IMAGENET_NAMES = 1000, "imagenet_classes.txt"
BATCH = 32
"""Images that are computed at once."""
WIDE = 200
"""Characters of a table in a file."""


def main(arguments: Sequence[str]) -> int:
    """Print a table; 2 if an image could not be read."""
    parser = command.Parser("Classify image files: the most probable classes, and their probabilities in percent.")
    parser.add_argument("--model", required=True, help="for example resnet50")
    parser.add_argument(
        "--weights", required=True, metavar="FILE_OR_NAME", help=".safetensors, .pth, or such as resnet50.IMAGENET1K_V2"
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes per image; default: 5")
    parser.add_argument("--classes", metavar="FILE", help="one name a line; default: ImageNet's if there are 1000")
    parser.add_argument("--preprocessing", metavar="NAME", help="the published weights whose preprocessing is used")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    known = parser.parse_args(arguments)
    if known.top < 1:
        raise UserError(f"--top={known.top} must be 1 or more")
    from cnn_jax import weights  # after the arguments are known to be good: it starts JAX
    from cnn_jax.weights import pretrained
    from cnn_jax.weights.convert import key_map_of
    from cnn_jax.weights.load import published

    key_map = key_map_of(known.model)
    if len(key_map.image) != 2:
        raise UserError(f"the model {known.model!r} takes videos; this command reads images")
    chosen = known.preprocessing or known.weights
    entry = pretrained.find(chosen) if known.preprocessing else published(known.model, chosen)
    # Weights of one's own: as the model's own published weights, of which the first are the plainest.
    entry = entry or next((row for row in pretrained.table().values() if row.model == known.model), None)
    how = pretrained.Preprocessing() if entry is None else entry.preprocessing
    names, inputs = read_inputs(known.images, how)
    if names:
        variables = weights.load(known.model, known.weights)
        probabilities = classify(known.model, variables, inputs)
        classes = class_names(known.classes, probabilities.shape[1])
        print_table(f"{known.model} with {known.weights}", names, probabilities, classes, top=known.top)
        print(f"Preprocessing{'' if entry is None else f' of {entry.name}'}: {how}.")
    return 0 if len(names) == len(known.images) else 2


def read_inputs(paths: Sequence[str], how: "Preprocessing") -> tuple[list[str], list[np.ndarray]]:
    """The images that can be read, by name and as the network's input; the others are told on stderr."""
    from cnn_jax.weights.preprocess import preprocess, read_image

    if how.crop is None:
        raise UserError("the preprocessing leaves images as large as they are: it is for segmentation, not for classes")
    names, inputs = [], []
    for path in paths:
        try:
            inputs.append(preprocess(read_image(pathlib.Path(path)), how))
            names.append(path)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
    return names, inputs


def classify(name: str, variables: Mapping[str, Any], inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities `[N, K]` of images `[H, W, C]`.

    Raises:
      UserError: a model of another kind.
    """
    import jax

    from cnn_jax import models
    from cnn_jax.weights.convert import sizes_of

    num_classes, in_channels = sizes_of(name, variables)
    if in_channels != inputs[0].shape[-1]:
        raise UserError(f"the weights are for images of {in_channels} channels, these have {inputs[0].shape[-1]}")
    model = models.create(name, num_classes=num_classes, in_channels=in_channels)
    run = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
    # One shape, so that one program is compiled: the last batch is filled with its own first image.
    size = min(BATCH, len(inputs))
    logits = []
    for start in range(0, len(inputs), size):
        batch = list(inputs[start : start + size])
        images = np.stack(batch + batch[:1] * (size - len(batch)))
        logits.append(np.asarray(run(variables, images), np.float64)[: len(batch)])
    scores = np.concatenate(logits)
    if scores.ndim != 2:
        raise UserError(f"the model {name!r} gives classes to pixels, not to images")
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def class_names(file: str | None, count: int) -> list[str]:
    """A name for each of `count` classes: those of the file, ImageNet's, or numbers.

    Raises:
      UserError: a file that cannot be read, or with another number of names.
    """
    if file is None and count != IMAGENET_CLASSES:
        return [str(index) for index in range(count)]
    if file is None:
        text = importlib.resources.files("cnn_jax.weights").joinpath(IMAGENET_NAMES).read_text(encoding="utf-8")
    else:
        try:
            text = expanded(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--classes={file} cannot be read: {error}") from None
    names = text.splitlines()
    if len(names) != count:
        raise UserError(f"--classes={file} has {len(names)} lines, but the weights have {count} classes")
    return names


def print_table(
    title: str, names: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], *, top: int
) -> None:
    """The most probable classes of each image, the first one's row with the image's name."""
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console = rich.console.Console(highlight=False, width=WIDE)
    table = rich.table.Table(
        title=rich.markup.escape(title), box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left"
    )
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability / %", justify="right", no_wrap=True)
    for name, row in zip(names, probabilities, strict=True):
        table.add_section()
        for rank, index in enumerate(np.argsort(-row, kind="stable")[:top]):
            image = rich.markup.escape(name) if rank == 0 else ""
            table.add_row(image, rich.markup.escape(classes[index]), f"{100 * row[index]:.2f}")
    console.print(table)


if __name__ == "__main__":
    command.run(main)
