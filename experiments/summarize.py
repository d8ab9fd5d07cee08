"""Show the layers of a network: shapes, parameters, multiply-accumulates (MACs), receptive fields and strides.

Examples:
  python experiments/summarize.py --model=resnet50
  python experiments/summarize.py --config=configs/quickstart.py --config.model.depth=20
  python experiments/summarize.py --all --store
"""

import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import rich.box
import rich.console
import rich.table

from cnn_jax import command
from cnn_jax.errors import UserError

if TYPE_CHECKING:
    from cnn_jax.methods.summarize import LayerRow, OwnMacs, Summary
    from cnn_jax.train.config import Config

COLUMNS = ("layer", "type", "output", "parameters", "%", "MACs", "%", "receptive field", "stride")
LEFT = ("layer", "type")
NARROW = (0, 2, 3, 5, 7, 8)
"""Columns of a terminal that has not the room for all."""

NOTES = (
    "MACs: multiply-accumulates of convolutions and dense layers (and RBF units) for one image; biases, norms, pools"
    " and activations count 0.",
    "Receptive field: pixels per axis of the image that one element of the output depends on, padding included, so it"
    " can exceed the image; statistics and gates over the whole image are left out (Araujo et al. 2019, Distill).",
    "Stride: pixels of the image between neighbouring elements; – where the output does not move over it.",
)
ROOM, WIDE = 110, 200
"""Characters that all columns need, and the width of a table in a file."""

ROOT = pathlib.Path(__file__).resolve().parent.parent
ZOO = ROOT / "experiments" / "results" / "zoo.md"
"""Where the table of all networks is kept."""

ZOO_COLUMNS = (
    *("network", "images", "parameters", "statistics", "GMACs"),
    *("receptive field", "stride", "smallest image", "top-1", "weights", "logits"),
)
ZOO_NOTES = (
    "One line for each network of `models.MODELS` but the families' own functions, whose depth or width is free; images"
    " and classes are those on which its reference counts.",
    "Statistics: running means and variances. GMACs: 10⁹ multiply-accumulates of convolutions and dense layers for one"
    " example.",
    "Receptive field and stride: of the last feature map, in pixels per axis of the image.",
    "Smallest image: pixels along every axis.",
    "Top-1: the best published accuracy in percent (ImageNet-1K; video: Kinetics-400), with these weights, as their"
    " publishers measured it, on images of the size that the weights ask for, which can be another one; not ours.",
    "Logits: proven equal to the reference implementation's with converted weights (`tests/weights/test_goldens.py`).",
)


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = command.Parser("Show the layers of a network: shapes, parameters, MACs, receptive fields, strides.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE[:VARIANT]", help="the network of a config; " + command.OVERRIDES)
    what.add_argument("--model", metavar="NAME", help="a network by name; --config.model.KEY=VALUE sets its arguments")
    what.add_argument("--all", action="store_true", help="a line for each network by name (some minutes)")
    help_input = "shape of an image, for example 32,32,3, instead of the data's or, with --model, the reference's"
    parser.add_argument("--input", metavar="SHAPE", help=help_input)
    parser.add_argument("--markdown", action="store_true", help="print a GitHub Markdown table")
    parser.add_argument("--store", action="store_true", help=f"with --all: write {ZOO.relative_to(ROOT)}")
    known, rest = parser.parse_known_args(arguments)
    if known.store and not known.all:
        raise UserError("--store keeps the table of --all; add --all")
    if known.all:
        if rest or known.input:
            raise UserError(f"--all takes no {rest[0] if rest else '--input'}; use --model=NAME for one network")
        return summarize_all(markdown=known.markdown, store=known.store)
    given = image_shape(known.input) if known.input else None
    if known.model:
        node, shape, classes, origin = named_model(known.model, rest)
        shape = given or shape
    else:
        _, config = command.parse(parser, arguments)
        node, shape, classes, origin = configured_model(config, given=given)
    # After the arguments are known to be good: these start JAX.
    from cnn_jax.methods.summarize import summarize
    from cnn_jax.train import run, shapes

    if known.model:
        node = {"in_channels": shape[-1], **node}
    node, model = run.build_model(node, num_classes=classes)
    title = f"{node['name']} on {origin} of {times(shape)}"
    shapes.abstract_variables(model, shape, name=title)  # For its errors: they name the smallest size that works.
    summary = summarize(model, shape, own_macs=own_macs())
    (print_markdown if known.markdown else print_table)(title, summary)
    return 0


def own_macs() -> "OwnMacs":
    """Multiplications of layers without a kernel."""
    from cnn_jax.models.capsules import RoutedCapsules, routed_macs
    from cnn_jax.models.lenet_1998 import RBFHead, output_codes

    # One square per pixel of each code.
    return {RBFHead: lambda head: output_codes(head.num_classes).size, RoutedCapsules: routed_macs}


def named_model(name: str, overrides: Sequence[str]) -> tuple[dict[str, Any], tuple[int, ...], int, str]:
    """The config node, image, classes and what to call the images of a network by name: those of its reference."""
    from cnn_jax.models import arguments as arguments_of
    from cnn_jax.models.reference import reference_of
    from cnn_jax.train.config_file import override

    arguments_of(name)  # For its error.
    reference = reference_of(name)
    for assignment in overrides:
        if not assignment.startswith("--config.model."):
            raise UserError(f"argument {assignment!r} is not understood; with --model write --config.model.KEY=VALUE")
    config = override({"model": {"name": name}}, overrides)
    return dict(config["model"]), reference.image, reference.num_classes, "images"


def configured_model(config: Any, *, given: tuple[int, ...] | None) -> tuple[dict[str, Any], tuple[int, ...], int, str]:
    """The same of a config's network and data; with a shape given no data is read."""
    from cnn_jax.train import config as configs

    checked = configs.resolve(config)
    if given is None:
        return checked.model, *describe_data(checked)
    if "num_classes" in checked.model:
        return checked.model, given, checked.model["num_classes"], "images"
    raise UserError("with --input no data is read to count the classes; add --config.model.num_classes=10")


def summarize_all(*, markdown: bool, store: bool) -> int:
    """The table of all networks, printed and, with `store`, written."""
    import rich.progress

    from cnn_jax.models import MODELS

    families = {preset.func for preset in MODELS.values() if isinstance(preset, functools.partial)}
    names = [name for name, preset in MODELS.items() if preset not in families]
    # On standard error, so that the table can go into a file.
    console = rich.console.Console(stderr=True)
    progress = rich.progress.track(names, description="tracing", console=console, disable=not console.is_terminal)
    rows = [zoo_row(name) for name in progress]
    if store or markdown:
        text = "\n".join(zoo_markdown(rows))
        if store:
            ZOO.write_text(text + "\n", encoding="utf-8")
        print(f"written: {ZOO}" if store else text)
        return 0
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, name in enumerate(ZOO_COLUMNS):
        table.add_column(name.replace(" ", "\n"), justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    output = rich.console.Console(highlight=False)
    (output if output.is_terminal else rich.console.Console(highlight=False, width=WIDE)).print(table)
    return 0


def zoo_row(name: str) -> tuple[str, ...]:
    """The line of one network, one entry per column."""
    from cnn_jax.methods.summarize import summarize
    from cnn_jax.models import create
    from cnn_jax.models.reference import PROVEN, reference_of
    from cnn_jax.nn.smallest import smallest_image
    from cnn_jax.weights import best_published

    reference = reference_of(name)
    model = create(name, num_classes=reference.num_classes, in_channels=reference.image[-1])
    summary = summarize(model, reference.image, own_macs=own_macs())
    last = next((row for row in reversed(summary.rows) if row.stride and any(row.stride)), None)
    smallest = smallest_image(model, rank=len(reference.image) - 1)
    published = best_published(name)
    return (
        name,
        times(reference.image),
        f"{summary.totals.parameters:,}",
        f"{summary.totals.statistics:,}",
        f"{summary.totals.macs / 1e9:.3f}",
        "–" if last is None or last.receptive_field is None else times(last.receptive_field),
        "–" if last is None or last.stride is None else times(last.stride),
        "–" if smallest is None else str(smallest),
        "–" if published is None or published.top1 is None else f"{published.top1:.2f}",
        "–" if published is None else published.name,
        "proven" if name in PROVEN else "–",
    )


def zoo_markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The table of all networks as Markdown, line by line."""
    yield "# The networks\n"
    yield "Written by `python experiments/summarize.py --all --store`.\n"
    yield from (f"- {note}" for note in ZOO_NOTES)
    yield f"\n| {' | '.join(ZOO_COLUMNS)} |"
    yield f"| {' | '.join(['---', '---', *['---:'] * 7, '---', '---'])} |"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def image_shape(text: str) -> tuple[int, ...]:
    """`[*space, C]` of an `--input`."""
    sizes = text.strip("()[] ").split(",")
    if not 2 <= len(sizes) <= 4 or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise UserError(
            f"--input={text} is not the shape of an image; write height, width and channels: --input=32,32,3"
        )
    return tuple(int(size) for size in sizes)


def describe_data(config: "Config") -> tuple[tuple[int, ...], int, str]:
    """The shape of an image, the number of classes and the name of a config's data set; one image is read."""
    from cnn_jax.train import run

    try:
        source = run.open_data(config)
        split, _, _ = source.bounds(config.data.splits.train)
        image = source.load(f"{split}[:1]").images[0]
    except UserError as error:
        raise UserError(f"{error}; without the data, give the shape of an image with --input=32,32,3") from None
    return image.shape, len(source.class_names), source.name


def cells(row: "LayerRow", summary: "Summary") -> tuple[str, ...]:
    """A row as text, one entry per column."""
    field = "?" if row.receptive_field is None else times(row.receptive_field)
    stride = "?" if row.stride is None else times(row.stride) if any(row.stride) else "–"
    output = "–" if row.output_shape is None else times(row.output_shape)
    parameters, macs = share(row.parameters, summary.totals.parameters), share(row.macs, summary.totals.macs)
    return row.path, row.kind, output, f"{row.parameters:,}", parameters, f"{row.macs:,}", macs, field, stride


def totals(summary: "Summary") -> tuple[str, ...]:
    """The last row."""
    parameters, macs = summary.totals.parameters, summary.totals.macs
    return "total", "", "", f"{parameters:,}", share(parameters, parameters), f"{macs:,}", share(macs, macs), "", ""


def statistics(summary: "Summary") -> str:
    """What the parameters leave out."""
    count = summary.totals.statistics
    return f"Parameters: trainable numbers; {count:,} statistics (running means and variances) are not counted."


def share(part: int, whole: int) -> str:
    """A part in percent of the whole."""
    return f"{100 * part / whole:.1f}" if whole else "–"


def times(sizes: Sequence[int]) -> str:
    """Sizes as they are written: 32×32×3."""
    return "×".join(str(size) for size in sizes)


def print_table(title: str, summary: "Summary") -> None:
    """The table for a terminal; in a file it has all columns and is as wide as they are."""
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console = rich.console.Console(highlight=False, width=WIDE)
    shown = range(len(COLUMNS)) if console.width >= ROOM else NARROW
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for name in (COLUMNS[index] for index in shown):
        # Paths are folded, never numbers.
        right, path = name not in LEFT, name == "layer"
        heading = name.replace(" ", "\n")
        table.add_column(heading, justify="right" if right else "left", no_wrap=not path, overflow="fold")
    for row in summary.rows:
        table.add_row(*(cells(row, summary)[index] for index in shown))
    table.add_section()
    table.add_row(*(totals(summary)[index] for index in shown), style="bold")
    console.print(table)
    for note in (statistics(summary), *NOTES):
        console.print(note, soft_wrap=True)
    if len(shown) < len(COLUMNS):
        console.print(f"Types and shares are shown from {ROOM} columns on, or with --markdown.", soft_wrap=True)


def print_markdown(title: str, summary: "Summary") -> None:
    """The table for GitHub, with its notes as a list below it."""
    lines = [COLUMNS, tuple("---" if name in LEFT else "---:" for name in COLUMNS)]
    lines += [cells(row, summary) for row in summary.rows]
    lines += [tuple(f"**{cell}**" if cell else "" for cell in totals(summary))]
    print(f"**{title}**\n")
    for line in lines:
        print(f"| {' | '.join(line)} |")
    print()
    for note in (statistics(summary), *NOTES):
        print(f"- {note}")


if __name__ == "__main__":
    command.run(main)
