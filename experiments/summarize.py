"""Show the layers of a config's network: shapes, parameters, multiply-accumulates (MACs), receptive fields and strides.

Example:
  python experiments/summarize.py --config=configs/quickstart.py --config.model.depth=20
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

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


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = command.config_parser("Show the layers of a network: shapes, parameters, MACs, receptive fields, strides.")
    help_input = "shape of an image, for example 32,32,3, if the data is not here; needs --config.model.num_classes"
    parser.add_argument("--input", metavar="SHAPE", help=help_input)
    parser.add_argument("--markdown", action="store_true", help="print a GitHub Markdown table")
    known, config = command.parse(parser, arguments)
    # After the arguments are known to be good: these start JAX.
    from cnn_jax.methods.summarize import summarize
    from cnn_jax.models.lenet_1998 import RBFHead, output_codes
    from cnn_jax.train import config as configs
    from cnn_jax.train import run, shapes

    checked = configs.resolve(config)
    given = None if known.input is None else image_shape(known.input)
    if given is None:
        shape, classes, origin = describe_data(checked)
    elif "num_classes" in checked.model:
        shape, classes, origin = given, checked.model["num_classes"], "images"
    else:
        raise UserError("with --input no data is read to count the classes; add --config.model.num_classes=10")
    node, model = run.build_model(checked.model, num_classes=classes)
    title = f"{node['name']} on {origin} of {times(shape)}"
    shapes.abstract_variables(model, shape, name=title)  # For its errors: they name the smallest size that works.
    own_macs: OwnMacs = {
        RBFHead: lambda head: output_codes(head.num_classes).size
    }  # One square per pixel of each code.
    summary = summarize(model, shape, own_macs=own_macs)
    (print_markdown if known.markdown else print_table)(title, summary)
    return 0


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
