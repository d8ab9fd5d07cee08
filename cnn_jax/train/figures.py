"""The figures of a run directory: curves, confusion matrix, worst mistakes and first-layer filters."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from cnn_jax.train.data_figures import save_figure
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.optim import parameter_path
from cnn_jax.train.report import class_names
from cnn_jax.train.run_directory import RunDirectory
from cnn_jax.train.writers import read_rows
from cnn_jax.types import PyTree

ANNOTATED_CLASSES = 20
MISTAKES = 16
MISTAKES_IN_A_ROW = 8
FILTERS = 64
CURVE_POINTS = 2000


def draw_figures(
    experiment: Experiment,
    directory: RunDirectory,
    values: Mapping[str, Mapping[str, Any]],
    *,
    params: PyTree,
    predictions: Mapping[str, np.ndarray],
) -> list[pathlib.Path]:
    """Draw everything that applies to this run; returns the files, in the order of the report.

    Args:
      experiment: what was run.
      directory: where the log is, and where figures go.
      values: split to its metrics.
      params: what was evaluated, on the host.
      predictions: the task's, for every example of the last split that was evaluated.
    """
    directory.figures.mkdir(exist_ok=True)
    rows = read_rows(directory.metrics)
    drawn = {
        "learning_curves": learning_curves(rows),
        "learning_rate": learning_rate(experiment.schedule, experiment.plan.total),
    }
    if experiment.evaluation_splits:
        split = experiment.evaluation_splits[-1]
        data = experiment.splits[split]
        if "confusion_matrix" in values[split]:
            matrix = np.asarray(values[split]["confusion_matrix"])
            drawn["confusion_matrix"] = confusion_matrix(matrix, class_names(experiment, len(matrix)), data.origin)
        if len(data.image_shape) == 3:
            probabilities = predictions.get("probabilities")
            if probabilities is not None:  # not every task predicts classes
                names = class_names(experiment, probabilities.shape[1])
                drawn["most_confidently_wrong"] = most_confidently_wrong(
                    data.read, data.labels, probabilities, names, data.origin
                )
    kernel = _first_kernel(params, experiment.splits["train"].image_shape[-1])
    if kernel is not None:
        drawn["first_layer_filters"] = first_layer_filters(kernel)
    files = []
    for name, figure in drawn.items():
        files.append(directory.figures / f"{name}.png")
        save_figure(figure, files[-1])
    return files


def learning_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and accuracy over steps, for training and validation.

    Args:
      rows: of `metrics.jsonl`.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, style in (
            ("train", {"alpha": 0.8, "linewidth": 1}),
            ("validation", {"marker": "o", "markersize": 3}),
        ):
            points = [
                (row["step"], row[f"{split}/{metric}"]) for row in rows if row.get(f"{split}/{metric}") is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), label=split, **style)
        axes.set(xlabel="step", ylabel=metric, title=metric)
        if axes.lines:
            axes.legend()
        axes.grid(alpha=0.3)
    return figure


def learning_rate(schedule: optax.Schedule, total_steps: int) -> Figure:
    """The learning rate of every step of the plan; at most `CURVE_POINTS` points of it.

    Args:
      schedule: step to rate.
      total_steps: length of the plan; a run that stopped early did not see the end.
    """
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    steps = np.unique(np.linspace(0, total_steps - 1, min(total_steps, CURVE_POINTS)).round().astype(np.int32))
    axes.plot(steps, np.asarray(jax.jit(jax.vmap(schedule))(jnp.asarray(steps))))
    axes.set(xlabel="step", ylabel="learning rate")
    axes.grid(alpha=0.3)
    return figure


def confusion_matrix(matrix: np.ndarray, names: Sequence[str], origin: str) -> Figure:
    """Counts `[K, K]`, rows the true class; shaded by the share of the row."""
    count = len(matrix)
    side = min(12.0, 3.0 + 0.42 * count)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true", title=_literal(origin))
    if count <= ANNOTATED_CLASSES:
        labels = [_literal(name) for name in names]
        axes.set_xticks(range(count), labels, rotation=45, ha="right")
        axes.set_yticks(range(count), labels)
        for row, column in np.argwhere(matrix):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def most_confidently_wrong(
    read: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    origin: str,
) -> Figure:
    """The wrong predictions with the highest probability, with true and predicted class.

    Args:
      read: indices `[M]` to images uint8 `[M, H, W, C]`.
      labels: `[N]`.
      probabilities: `[N, K]`; an example of NaN was skipped.
      names: one per class.
      origin: of the split.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero((predicted != labels) & np.isfinite(confidence))
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    images = read(worst) if len(worst) else read(np.arange(1))  # without any, the size of one counts
    height, width = images.shape[1:3]
    # One image of all: matplotlib takes a second to lay out as many axes.
    above, aside = -(-2 * width // 5), -(-width // 4)
    shown = _mosaic(
        [_shown(image) for image in images[: len(worst)]], MISTAKES_IN_A_ROW, above=above, aside=aside, ground=255.0
    )
    inches = 1.5 * MISTAKES_IN_A_ROW / shown.shape[1]
    figure = Figure(figsize=(inches * shown.shape[1], inches * shown.shape[0] + 0.4), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(labels)} wrong on {_literal(origin)}", fontsize=10)
    axes = figure.subplots()
    axes.axis("off")
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
    for place, index in enumerate(worst):
        row, column = divmod(place, MISTAKES_IN_A_ROW)
        true, guess = _literal(names[labels[index]]), _literal(names[predicted[index]])
        axes.text(
            column * (width + aside) + aside + width / 2 - 0.5,
            row * (height + above) + 0.9 * above - 0.5,
            f"#{index}: {true}\nas {guess} {confidence[index]:.2f}",
            ha="center",
            va="bottom",
            fontsize=8,
        )
    return figure


def first_layer_filters(kernel: np.ndarray) -> Figure:
    """Kernels `[H, W, C, F]`: in colour for three channels, else the first channel in grey; zero is the middle."""
    count = min(kernel.shape[-1], FILTERS)
    columns = min(count, 16)
    limit = np.abs(kernel).max() or 1.0
    weights = 0.5 + 0.5 * np.moveaxis(kernel, -1, 0)[:count] / limit
    shown = _mosaic([_shown(one) for one in weights], columns, above=1, aside=1, ground=1.0)
    inches = 0.6 * columns / shown.shape[1]
    size = max(2.0, inches * shown.shape[1]) + 0.2, inches * shown.shape[0] + 0.5
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(
        f"{kernel.shape[0]}×{kernel.shape[1]}×{kernel.shape[2]}, {count} of {kernel.shape[-1]} filters", fontsize=8
    )
    axes = figure.subplots()
    axes.axis("off")
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1)
    return figure


def _first_kernel(params: Any, channels: int) -> np.ndarray | None:
    """The first convolution kernel `[H, W, C, F]` that takes as many channels as the images have."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if parameter_path(path).endswith("kernel") and leaf.ndim == 4 and leaf.shape[-2] == channels:
            return np.asarray(leaf, np.float32)
    return None


def _literal(text: str) -> str:
    """Text from data, as it is: matplotlib would read what stands between two $ as a formula."""
    return text.replace("$", r"\$")


def _shown(image: np.ndarray) -> np.ndarray:
    """`[H, W, C]` as matplotlib takes it: three channels in colour, else the first in grey."""
    return image if image.shape[-1] == 3 else image[..., 0]


def _mosaic(images: Sequence[np.ndarray], columns: int, *, above: int, aside: int, ground: float) -> np.ndarray:
    """Images of one shape, in rows, with so many pixels of the ground above and to the left of each.

    Args:
      images: `[H, W]` or `[H, W, 3]`; without any, one row of the ground is made.
      columns: in a row; the last row may have fewer images.
      above: pixels.
      aside: pixels.
      ground: value of what no image covers.
    """
    rows = max(1, -(-len(images) // columns))
    height, width, *channels = images[0].shape if len(images) else (1, 1)
    whole = np.full(((height + above) * rows, (width + aside) * columns, *channels), ground, np.result_type(*images, 0))
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        top, left = row * (height + above) + above, column * (width + aside) + aside
        whole[top : top + height, left : left + width] = image
    return whole
