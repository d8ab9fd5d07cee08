"""The figures of an inspection: class balance, sizes of images, and samples before and after augmentation."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from cnn_jax.data.inspection import Inspection
from cnn_jax.ops.image_files import resize_image

NAMED_CLASSES = 40
SIZES_AS_BARS = 12
CELL, SMALL_CELL = 128, 64
"""Pixels of the longest side of a sample, at most and at least."""
GAP = 4
GROUND = 208
"""Grey, on which black and white images have an edge."""
DOTS_PER_INCH = 120


def save_figure(figure: Figure, path: pathlib.Path) -> None:
    """Write a figure. Names of classes may be in any script: what the font lacks is a box, and no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        figure.savefig(path, dpi=DOTS_PER_INCH)


def class_balance(inspections: Mapping[str, Inspection], names: Sequence[str]) -> Figure:
    """The share of each class in each split: bars with names, or sorted curves where there are many classes.

    Args:
      inspections: of each split.
      names: one per class.
    """
    shares = {
        f"{split} ({len(one):,})": 100 * one.class_counts / max(len(one), 1) for split, one in inspections.items()
    }
    if len(names) > NAMED_CLASSES:
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for label, share in shares.items():
            axes.plot(np.arange(1, len(names) + 1), np.sort(share)[::-1], label=label)
        axes.set(xlabel="rank of the class in the split", ylabel="share of the split [%]", ylim=(0, None))
    else:
        thick = 0.8 / len(shares)
        figure = Figure(figsize=(8, 1.3 + len(names) * max(0.26, 0.13 * len(shares))), layout="constrained")
        axes = figure.subplots()
        rows = np.arange(len(names))
        for place, (label, share) in enumerate(shares.items()):
            offset = (place - (len(shares) - 1) / 2) * thick
            axes.barh(rows + offset, share, height=thick, label=label)
            for row in np.flatnonzero(share == 0):
                axes.text(0, row + offset, " none", va="center", fontsize=7, color="tab:red")
        axes.set_yticks(rows, list(names), parse_math=False)
        axes.invert_yaxis()
        axes.set(xlabel="share of the split [%]", xlim=(0, None))
    axes.grid(alpha=0.3, axis="y" if len(names) > NAMED_CLASSES else "x")
    figure.legend(loc="outside lower center", ncols=len(shares), frameon=False)
    figure.suptitle("Class balance", fontsize=11)
    return figure


def image_sizes(inspections: Mapping[str, Inspection]) -> Figure:
    """How many images have which size: bars, or width over height where there are many sizes of plane images.

    Args:
      inspections: of each split.
    """
    total = {split: sum(one.sizes.values()) for split, one in inspections.items()}
    sizes = {size for one in inspections.values() for size in one.sizes}
    if len(sizes) > SIZES_AS_BARS and all(len(size) == 2 for size in sizes):
        return _size_histograms(inspections)
    common = sorted(sizes, key=lambda size: (-sum(one.sizes.get(size, 0) for one in inspections.values()), size))
    shown = common[:SIZES_AS_BARS]
    figure = Figure(figsize=(8, 1.3 + 0.4 * (len(shown) + 1)), layout="constrained")
    axes = figure.subplots()
    thick = 0.8 / len(inspections)
    labels = ["×".join(map(str, size)) for size in shown] + ["others"] * (len(common) > len(shown))
    for place, (split, one) in enumerate(inspections.items()):
        counts = [one.sizes.get(size, 0) for size in shown]
        counts += [total[split] - sum(counts)] * (len(common) > len(shown))
        offset = (place - (len(inspections) - 1) / 2) * thick
        bars = axes.barh(np.arange(len(labels)) + offset, counts, height=thick, label=split)
        axes.bar_label(bars, [f"{count:,}" if count else "" for count in counts], fontsize=7, padding=2)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set(xlabel="images")
    axes.margins(x=0.1)
    figure.legend(loc="outside lower center", ncols=len(inspections), frameon=False)
    figure.suptitle("Sizes as stored, height × width", fontsize=11)
    return figure


def _size_histograms(inspections: Mapping[str, Inspection]) -> Figure:
    figure = Figure(figsize=(4.5 * len(inspections), 4.3), layout="constrained")
    row = figure.subplots(1, len(inspections), squeeze=False)[0]
    largest = max(length for one in inspections.values() for size in one.sizes for length in size)
    for axes, (split, one) in zip(row, inspections.items(), strict=True):
        heights, widths = np.array(list(one.sizes) or np.zeros((0, 2))).T
        counts = np.array(list(one.sizes.values()), np.float64)
        areas = 6 + 250 * counts / max(counts.sum(), 1)
        axes.scatter(widths, heights, s=areas, alpha=0.5, linewidths=0)
        axes.plot([0, largest], [0, largest], color="grey", linewidth=0.8, linestyle=":")
        limits = (0, 1.05 * largest)
        axes.set(xlabel="width [pixels]", ylabel="height [pixels]", xlim=limits, ylim=limits, aspect="equal")
        axes.set_title(f"{split}: {len(one.sizes):,} sizes", fontsize=10)
        axes.grid(alpha=0.3)
    figure.suptitle("Sizes as stored; areas are numbers of images", fontsize=11)
    return figure


def samples(
    stored: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    labels: Sequence[int],
    names: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Examples of each class as they are stored, and beside each what training makes of it.

    Args:
      stored: M images uint8 `[h, w, C]` of any size, those of a class behind each other.
      after: for each epoch float32 `[M, H, W, C]` in [0, 1]; none where training refuses the images.
      labels: of the M images.
      names: one per class.
      title: of the figure.
    """
    tiles = [
        [np.round(255 * np.clip(images[m], 0, 1)).astype(np.uint8) for images in after] for m in range(len(stored))
    ]
    cell = _cell(after[0].shape[1:3] if len(after) else (CELL, CELL))
    shown = list(dict.fromkeys(labels))
    most = max(list(labels).count(label) for label in shown)
    forms = 1 + len(after)
    down, across = cell[0] + GAP, cell[1] + GAP
    # Between two examples of a class there is more room than between the forms of one.
    sample = across * forms + 3 * GAP
    starts = [[sample * number + across * form for form in range(forms)] for number in range(most)]
    picture = np.full((down * len(shown) - GAP, sample * most - 4 * GAP, 3), GROUND, np.uint8)
    used = dict.fromkeys(shown, 0)
    for image, changed, label in zip(stored, tiles, labels, strict=True):
        top = down * shown.index(label)
        for left, tile in zip(starts[used[label]], (image, *changed), strict=True):
            picture[top : top + cell[0], left : left + cell[1]] = _fitted(tile, cell)
        used[label] += 1
    inches = 0.95 / max(cell)
    figure = Figure(figsize=(inches * picture.shape[1] + 1.4, inches * picture.shape[0] + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)
    axes = figure.subplots()
    axes.imshow(picture)
    middles = [down * row + (cell[0] - 1) / 2 for row in range(len(shown))]
    axes.set_yticks(middles, [names[label] for label in shown], fontsize=9, parse_math=False)
    heads = ["stored", *(f"epoch {epoch}" for epoch in range(len(after)))] * most
    axes.xaxis.tick_top()
    axes.set_xticks([left + (cell[1] - 1) / 2 for row in starts for left in row], heads, fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _cell(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a tile: whole multiples of small images, large ones smaller."""
    longest = max(size)
    if longest < SMALL_CELL:
        return size[0] * -(-SMALL_CELL // longest), size[1] * -(-SMALL_CELL // longest)
    factor = min(1.0, CELL / longest)
    return max(1, round(factor * size[0])), max(1, round(factor * size[1]))


def _fitted(image: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """`[h, w, C]` as `[*cell, 3]`, its shape kept, in the middle of the ground; what has no colours as grey."""
    image = image[..., :3] if image.shape[-1] in (3, 4) else np.repeat(image[..., :1], 3, axis=-1)
    factor = min(cell[0] / image.shape[0], cell[1] / image.shape[1])
    size = max(1, int(factor * image.shape[0])), max(1, int(factor * image.shape[1]))
    image = resize_image(image, size, interpolation="nearest" if factor > 1 else "bilinear")
    tile = np.full((*cell, 3), GROUND, np.uint8)
    top, left = (cell[0] - size[0]) // 2, (cell[1] - size[1]) // 2
    tile[top : top + size[0], left : left + size[1]] = image
    return tile
