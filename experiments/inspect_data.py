"""Look at the data of a config: counts, balance, moments, sizes, duplicates, leakage, damaged files, augmented samples.

Examples:
  python experiments/inspect_data.py --config=configs/quickstart.py --workdir=runs/inspect/quickstart
  python experiments/inspect_data.py --config=configs/quickstart.py --config.data.directory=DIR --strict
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import rich.box
import rich.console
import rich.markup
import rich.progress
import rich.table
import rich.text

from cnn_jax import command
from cnn_jax.errors import UserError
from cnn_jax.paths import work_directory_path
from cnn_jax.train.run_directory import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnn_jax.data.examples import Examples
    from cnn_jax.data.inspection import Inspection
    from cnn_jax.data.source import Selection, Source
    from cnn_jax.train.config import Config, Data
    from cnn_jax.train.data_report import Section

FIGURES = ("samples.png", "balance.png", "sizes.png")
FILES = ("data.json", "data.md", *FIGURES)
PROBE = FILES[0] + ".tmp"
"""What a start that was killed may leave."""
SHOWN_ROWS, SHOWN_LINES = 30, 10
"""Of a table and of a list, on the terminal."""
WIDE = 160
"""Characters of a table in a file."""
CLASSES, PER_CLASS, EPOCHS = 10, 2, 3
"""In the figure of samples."""


def main(arguments: Sequence[str]) -> int:
    """Print the report and, with a work directory, write it with its figures."""
    parser = command.config_parser("Look at the data of a config: every image of its splits is read once.")
    parser.add_argument(
        "--workdir", metavar="DIR", help=f"write {', '.join(FILES)} there; other files it must not hold"
    )
    help_strict = "exit with 1 on leakage, images that cannot be read, or classes without an example"
    parser.add_argument("--strict", action="store_true", help=help_strict)
    known, config = command.parse(parser, arguments)
    # After the arguments are known to be good: these start JAX.
    from cnn_jax.train import run
    from cnn_jax.train.config import resolve
    from cnn_jax.train.data_report import describe, markdown, sections

    checked = resolve(config)
    data = run.check_data(checked.data)
    checked = checked.model_copy(update={"data": data})
    source = run.open_data(checked)
    opened = open_selections(source, data)
    directory = None if known.workdir is None else work_directory(known.workdir)  # before the images are read
    inspections = inspect(source, opened, data)
    found = describe(
        inspections,
        origins={split: one.selection.origin for split, one in opened.items()},
        class_names=source.class_names,
        name_of=lambda split, place: opened[split].examples[int(opened[split].selection.indices[place])].name,
    )
    parts = list(sections(found))
    show(parts)
    if directory is not None:
        figures = draw(checked, source, opened["train"], inspections)
        store(directory, found, markdown(f"The data of {source.name}", parts), figures)
    return 1 if known.strict and found["findings"] else 0


class Opened(NamedTuple):
    """Which examples make a split, and where they are."""

    selection: "Selection"
    examples: "Examples"


def work_directory(name: str) -> pathlib.Path:
    """The directory to write into, made if it is not there; a run's or anybody else's is refused."""
    directory = work_directory_path(name, example="runs/data")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        others = sorted({path.name for path in directory.iterdir()} - {*FILES, PROBE})
        if others:
            raise UserError(f"work directory {str(directory)!r} holds {others[0]!r}; choose an empty --workdir")
        (directory / PROBE).touch()
        (directory / PROBE).unlink()
    except OSError as error:
        raise UserError(
            f"work directory {str(directory)!r} is not writable: {error.strerror}; choose another --workdir"
        ) from None
    return directory


def open_selections(source: "Source", data: "Data") -> dict[str, Opened]:
    """The splits that a config names; those of one base split share its examples."""
    bases: dict[str, Examples] = {}
    opened = {}
    for split, spec in data.splits:
        if spec is not None:
            selection = source.select(spec, dict(data.wrappers)[split])
            if selection.split not in bases:
                bases[selection.split] = source.examples(selection.split)
            opened[split] = Opened(selection, bases[selection.split])
    return opened


def inspect(source: "Source", opened: Mapping[str, Opened], data: "Data") -> dict[str, "Inspection"]:
    """Read all images, with a bar on a terminal."""
    from cnn_jax.data.inspection import inspect_split

    inspections = {}
    console = rich.console.Console(stderr=True)
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
    with rich.progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {split: progress.add_task(split, total=len(one.selection)) for split, one in opened.items()}
        for split, one in opened.items():
            # Random ones, which only the training of a stream has, would make the levels random.
            in_memory = split == "train" and data.stream is None
            inspections[split] = inspect_split(
                one.examples,
                one.selection.indices,
                one.selection.labels,
                classes=len(source.class_names),
                channels=data.channels or source.channels,
                transforms=data.transforms.train if in_memory else data.transforms.evaluation,
                progress=functools.partial(progress.advance, tasks[split]),
            )
    return inspections


def draw(
    config: "Config", source: "Source", train: Opened, inspections: Mapping[str, "Inspection"]
) -> dict[str, "Figure"]:
    """File names to figures."""
    from cnn_jax.train.data_figures import class_balance, image_sizes

    figures = {
        "samples.png": draw_samples(config, source, train, inspections["train"]),
        "balance.png": class_balance(inspections, source.class_names),
        "sizes.png": image_sizes(inspections),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def draw_samples(config: "Config", source: "Source", train: Opened, inspection: "Inspection") -> "Figure | None":
    """Training examples before and after augmentation; None where no plane image can be read."""
    import jax
    import numpy as np

    from cnn_jax.data.examples import pixels_of
    from cnn_jax.data.samples import augmented, batches_in_memory, choose_samples, streamed_batches
    from cnn_jax.data.stream import StreamedImages
    from cnn_jax.train.data_figures import samples
    from cnn_jax.train.splits import open_splits

    data, (selection, examples) = config.data, train
    classes = len(source.class_names)
    usable = inspection.readable & (selection.labels >= 0) & (selection.labels < classes)
    if not usable.any() or any(len(size) != 2 for size in inspection.sizes):
        return None
    channels = data.channels or source.channels
    positions = choose_samples(selection.labels, usable, per_class=PER_CLASS, classes=CLASSES, seed=config.seed)
    stored = [pixels_of(examples[int(index)], channels=channels) for index in selection.indices[positions]]
    if data.stream is None:
        # Training numbers the images that it could read.
        kept = np.flatnonzero(inspection.readable)
        batches = batches_in_memory(
            examples,
            selection.indices[kept],
            selection.labels[kept],
            positions=np.searchsorted(kept, positions),
            channels=channels,
            transforms=data.transforms.train,
            epochs=EPOCHS,
        )
    else:
        split = open_splits(source, data, seed=config.seed)["train"]
        assert isinstance(split, StreamedImages)
        split = dataclasses.replace(split, workers=0)  # processes would take longer to start than these images to read
        batches = streamed_batches(split, positions=positions, seed=config.seed, epochs=EPOCHS)
    labels = selection.labels[positions].tolist()
    title = f"{selection.origin}, before and after host transforms and augmentation"
    try:
        after = list(
            augmented(
                jax.random.key(config.seed),
                batches,
                augmentations=data.augment,
                num_classes=config.model.get("num_classes", classes),
            )
        )
    except UserError as error:
        after, title = [], f"{selection.origin}, as stored: training refuses the images"
        print(f"samples.png shows no augmented images: {error}")
    return samples(stored, [np.asarray(images) for images in after], labels, source.class_names, title=title)


def show(parts: Sequence["Section"]) -> None:
    """The report on the terminal, where the end is what stays in sight; long tables and lists are cut."""
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console = rich.console.Console(highlight=False, width=WIDE)
    for part in (*parts[1:], parts[0]):
        console.print(rich.text.Text(part.title, style="bold"), soft_wrap=True)
        if part.columns:
            table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for place, name in enumerate(part.columns):
                table.add_column(
                    rich.markup.escape(name), justify="left" if place < part.texts else "right", overflow="fold"
                )
            for row in part.rows[:SHOWN_ROWS]:
                table.add_row(*map(rich.markup.escape, row))
            console.print(table)
        hidden = ((len(part.rows) - SHOWN_ROWS, "rows"), (len(part.lines) - SHOWN_LINES, "lines"))
        for line in part.lines[:SHOWN_LINES]:
            console.print(f"  {line}", soft_wrap=True, markup=False)
        for count, what in hidden:
            if count > 0:
                console.print(f"  … {count:,} more {what}; --workdir=DIR writes all", soft_wrap=True)
        console.print()


def store(directory: pathlib.Path, found: Mapping[str, Any], text: str, figures: Mapping[str, "Figure"]) -> None:
    """Write everything, `data.json` last; what an earlier inspection left is replaced."""
    from cnn_jax.train.data_figures import save_figure

    try:
        for name in FIGURES:
            (directory / name).unlink(missing_ok=True)
        for name, figure in figures.items():
            save_figure(figure, directory / name)
            text += f"\n![{pathlib.Path(name).stem}]({name})\n"
        (directory / "data.md").write_text(text, encoding="utf-8")
        write_json(directory / "data.json", found)
    except OSError as error:
        raise UserError(f"the report could not be stored in {str(directory)!r}: {error.strerror}") from None
    print(f"Stored in {directory}: {', '.join(sorted(path.name for path in directory.iterdir()))}")


if __name__ == "__main__":
    command.run(main)
