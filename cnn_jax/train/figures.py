"""The figures of a run directory: curves, confusion matrix, worst mistakes and first-layer filters."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from cnn_jax.train.experiment import Experiment
from cnn_jax.train.optim import parameter_path
from cnn_jax.train.report import class_names
from cnn_jax.train.run_directory import RunDirectory
from cnn_jax.train.writers import read_rows
from cnn_jax.types import PyTree

ANNOTATED_CLASSES = 20
MISTAKES = 16
FILTERS = 64
CURVE_POINTS = 2000
DOTS_PER_INCH = 120


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
        if data.images.ndim == 4:
            probabilities = predictions.get("probabilities")
            if probabilities is not None:  # not every task predicts classes
                names = class_names(experiment, probabilities.shape[1])
                drawn["most_confidently_wrong"] = most_confidently_wrong(
                    data.images, data.labels, probabilities, names, data.origin
                )
    kernel = _first_kernel(params, experiment.splits["train"].images.shape[-1])
    if kernel is not None:
        drawn["first_layer_filters"] = first_layer_filters(kernel)
    files = []
    for name, figure in drawn.items():
        files.append(directory.figures / f"{name}.png")
        figure.savefig(files[-1], dpi=DOTS_PER_INCH)
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
    axes.plot(steps, np.asarray(jax.vmap(schedule)(jnp.asarray(steps))))
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
        for (row, column), value in np.ndenumerate(matrix):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{value}" if value else "", ha="center", va="center", color=colour, fontsize=8)
    return figure


def most_confidently_wrong(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str], origin: str
) -> Figure:
    """The wrong predictions with the highest probability, with true and predicted class.

    Args:
      images: uint8 `[N, H, W, C]`.
      labels: `[N]`.
      probabilities: `[N, K]`.
      names: one per class.
      origin: of the split.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    columns = 8
    rows = max(1, -(-len(worst) // columns))
    figure = Figure(figsize=(1.5 * columns, 1.95 * rows + 0.5), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(labels)} wrong on {_literal(origin)}", fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index in zip(grid, worst, strict=False):
        axes.imshow(_shown(images[index]), cmap="gray", vmin=0, vmax=255)
        true, guess = _literal(names[labels[index]]), _literal(names[predicted[index]])
        axes.set_title(f"#{index}: {true}\nas {guess} {confidence[index]:.2f}", fontsize=8)
    return figure


def first_layer_filters(kernel: np.ndarray) -> Figure:
    """Kernels `[H, W, C, F]`: in colour for three channels, else the first channel in grey; zero is the middle."""
    count = min(kernel.shape[-1], FILTERS)
    columns = min(count, 16)
    rows = -(-count // columns)
    figure = Figure(figsize=(0.6 * columns + 0.2, 0.6 * rows + 0.5), layout="constrained")
    figure.suptitle(
        f"{kernel.shape[0]}×{kernel.shape[1]}×{kernel.shape[2]}, {count} of {kernel.shape[-1]} filters", fontsize=8
    )
    limit = np.abs(kernel).max() or 1.0
    for index, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.axis("off")
        if index < count:
            weights = kernel[..., index]
            if weights.shape[-1] == 3:
                axes.imshow(0.5 + 0.5 * weights / limit)
            else:
                axes.imshow(weights[..., 0], cmap="gray", vmin=-limit, vmax=limit)
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
    """An image as matplotlib takes it: `[H, W]` for grey, `[H, W, 3]` for colour."""
    return image if image.shape[-1] == 3 else image[..., 0]
