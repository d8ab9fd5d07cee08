"""What the figures of a study share: style, palette, rows of labels, and files that are the same when repeated.

Every label is one line of text for matplotlib, so that a page that shows the vector files in its own fonts keeps each
line where it belongs.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PALETTE = {
    "ground": "#ffffff",
    "ink": "#1f2328",
    "muted": "#59636e",
    "grid": "#d8dee4",
    "band": "#e4edf5",
    "reference": "#8c959f",
    "supported": "#0072b2",
    "refuted": "#b84a00",
    "inconclusive": "#6e7781",
    "depends": "#8250b4",
}
"""By role; a page replaces each to suit a dark ground."""
WIDTH = 7.6
DOTS_PER_INCH = 144
FONT = 9.0
LINE = 11.5
"""Points from one line of a label to the next."""
STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT,
    "text.color": PALETTE["ink"],
    "text.parse_math": False,
    "axes.edgecolor": PALETTE["reference"],
    "axes.facecolor": PALETTE["ground"],
    "axes.labelcolor": PALETTE["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": FONT + 1,
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "figure.facecolor": PALETTE["ground"],
    "savefig.facecolor": PALETTE["ground"],
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "legend.frameon": False,
    # Text as text: a fifth of the size of outlines, and a reader can search and copy it.
    "svg.fonttype": "none",
    "svg.hashsalt": "cnn_jax",
}


def to_svg(figure: Figure) -> bytes:
    """A figure as SVG; the same figure gives the same bytes."""
    return _saved(figure, "svg", {"Date": None, "Creator": None})


def to_png(figure: Figure) -> bytes:
    """A figure as PNG on a light ground; the same figure gives the same bytes."""
    return _saved(figure, "png", {"Software": None})


def _saved(figure: Figure, form: str, metadata: Mapping[str, None]) -> bytes:
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format=form, dpi=DOTS_PER_INCH, metadata=dict(metadata))
    return stream.getvalue()


def lines_of(text: str, width: int) -> list[str]:
    """A label in lines of at most that many characters; a longer word is broken."""
    return textwrap.wrap(" ".join(text.split()), width) or [""]


def row_heights(labels: Sequence[Sequence[str]], *, least: float = 0.3) -> list[float]:
    """Inches that each row of a panel takes.

    Args:
      labels: the lines of each.
      least: inches, of a label of one line.
    """
    return [max(least, (len(lines) * LINE + 7) / 72) for lines in labels]


def draw_rows(axes: Axes, heights: Sequence[float]) -> list[float]:
    """Set up a panel whose y runs in inches from the first row down; returns the middle of each row."""
    axes.set_ylim(sum(heights), 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return [sum(heights[:index]) + height / 2 for index, height in enumerate(heights)]


def draw_beside(
    axes: Axes, middle: float, lines: Sequence[str], *, side: Literal["left", "right"], colour: str
) -> None:
    """Lines of text beside a panel, around a height of its y axis."""
    left = side == "left"
    for index, line in enumerate(lines):
        axes.annotate(
            line,
            xy=(0.0 if left else 1.0, middle),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-8 if left else 8, ((len(lines) - 1) / 2 - index) * LINE),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def draw_title(axes: Axes, text: str, *, width: int) -> None:
    """A panel's title, at its left, in lines of at most that many characters."""
    axes.set_title("\n".join(lines_of(text, width)), fontsize=FONT, color=PALETTE["ink"])
