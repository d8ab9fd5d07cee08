"""The figures of a study: differences with intervals, every seed's value, and learning curves over seeds.

Colours say nothing that a marker or a word does not say too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cnn_jax.study.drawing import (
    FONT,
    LINE,
    PALETTE,
    STYLE,
    WIDTH,
    draw_beside,
    draw_rows,
    draw_title,
    lines_of,
    row_heights,
)
from cnn_jax.study.formats import COSTS, Scale, scale_of
from cnn_jax.study.outcome import Analysis, Judged, Verdict
from cnn_jax.study.spec import BASELINE, Study

MARKERS: Mapping[Verdict, str] = {"supported": "o", "refuted": "D", "inconclusive": "s", "depends": "^"}
CLAIMS = {"greater": "> 0", "less": "< 0", "equal": "= 0", "not_less": "≥ 0", "not_greater": "≤ 0"}
"""What is claimed of a difference."""
CURVE_POINTS = 240
LOG_RATIO = 100.0
"""A metric whose greatest value is that many times its least one is drawn on a logarithmic axis."""


def differences(study: Study, analysis: Analysis) -> Figure:
    """Every comparison with its interval: one panel for each measure that is compared.

    Thick lines are intervals at the study's confidence, thin ones those at the level of Holm's method, small points
    the seeds; the band around zero holds what is smaller than the smallest effect that matters.

    Args:
      study: checked.
      analysis: of its rows.
    """
    panels = {name: [t for t in analysis.tested if t.comparison.measure == name] for name in study.measures}
    panels = {name: tested for name, tested in panels.items() if tested}
    labels = {name: [lines_of(t.name, 34) for t in tested] for name, tested in panels.items()}
    heights = {name: row_heights(lines, least=0.42) for name, lines in labels.items()}
    inches = [sum(heights[name]) for name in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(inches) + 0.75 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=inches)[:, 0]
        for axes, (name, tested) in zip(grid, panels.items(), strict=True):
            scale = scale_of(name, study.measures[name])
            draw_title(axes, f"{scale.name}, {scale.difference} ({scale.better})", width=80)
            axes.axvline(0, color=PALETTE["ink"], linewidth=1)
            middles = draw_rows(axes, heights[name])
            for middle, height, lines, one in zip(middles, heights[name], labels[name], tested, strict=True):
                draw_beside(axes, middle, lines, side="left", colour=PALETTE["ink"])
                _draw_comparison(axes, middle, height, one, scale)
    return figure


def _draw_comparison(axes: Axes, middle: float, height: float, tested: Judged, scale: Scale) -> None:
    """One row of a panel; lengths in y are inches."""
    colour = PALETTE[tested.verdict]
    smallest = tested.comparison.smallest * scale.factor
    if smallest:
        ends = [middle - height / 2, middle + height / 2]
        axes.fill_betweenx(ends, -smallest, smallest, color=PALETTE["band"], linewidth=0, zorder=0)
    seeds = [tested.differences[seed] * scale.factor for seed in sorted(tested.differences)]
    axes.scatter(seeds, [middle + 0.12] * len(seeds), s=11, color=colour, alpha=0.55, linewidths=0, zorder=2)
    for interval, width in ((tested.adjusted, 1.2), (tested.interval, 3.6)):
        if math.isfinite(interval.low) and math.isfinite(interval.high):
            ends = [interval.low * scale.factor, interval.high * scale.factor]
            axes.plot(ends, [middle - 0.04] * 2, color=colour, linewidth=width, solid_capstyle="butt", zorder=3)
    if math.isfinite(tested.interval.mean):
        axes.plot(
            *([tested.interval.mean * scale.factor], [middle - 0.04]),
            marker=MARKERS[tested.verdict],
            color=colour,
            markersize=7,
            markeredgecolor=PALETTE["ground"],
            zorder=4,
        )
    verdict = tested.verdict if tested.interval.n else "no pairs"
    claim = f"claim: {CLAIMS[tested.comparison.claim]}{'' if tested.comparison.primary else ', not primary'}"
    draw_beside(axes, middle, [verdict, claim], side="right", colour=colour)


def seeds_by_variant(study: Study, analysis: Analysis) -> Figure:
    """Every seed's value of every measure, with the mean of each variant; the dashed line is the baseline's mean.

    Args:
      study: checked.
      analysis: of its rows.
    """
    variants = list(analysis.summaries)
    # What a variant costs is one number for all seeds, which stands in the table; alone it is better than nothing.
    measures = {name: each for name, each in study.measures.items() if name not in COSTS} or study.measures
    columns = min(2, len(measures))
    count = math.ceil(len(measures) / columns)
    labels = [lines_of(variant, 32 if columns == 1 else 24) for variant in variants]
    heights = row_heights(labels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, count * (sum(heights) + 0.75)), layout="constrained")
        grid = figure.subplots(count, columns, squeeze=False)
        for axes in grid.flat[len(measures) :]:
            axes.set_visible(False)
        for place, (name, measure) in enumerate(measures.items()):
            axes, scale = grid.flat[place], scale_of(name, measure)
            draw_title(axes, f"{scale.label}, {scale.better}", width=80 // columns)
            for middle, lines, variant in zip(draw_rows(axes, heights), labels, variants, strict=True):
                if place % columns == 0:
                    draw_beside(axes, middle, lines, side="left", colour=PALETTE["ink"])
                summary = analysis.summaries[variant].get(name)
                if summary is None or not summary.n:
                    continue
                colour = PALETTE["muted" if variant == BASELINE else "supported"]
                values = [summary.values[seed] * scale.factor for seed in sorted(summary.values)]
                axes.scatter(values, [middle] * len(values), s=22, color=colour, alpha=0.6, linewidths=0, zorder=3)
                mean = summary.mean * scale.factor
                axes.plot([mean] * 2, [middle - 0.11, middle + 0.11], color=colour, linewidth=2, zorder=4)
                if variant == BASELINE:
                    axes.axvline(mean, color=PALETTE["reference"], linestyle="--", linewidth=1)
    return figure


def learning_curves(metric: str, curves: Mapping[str, Mapping[int, Sequence[tuple[int, float]]]]) -> Figure:
    """One logged metric of each variant beside the baseline's: mean over seeds, band from the least to the greatest.

    At each step every seed counts that has a finite value there, so a mean may jump where a seed ends.

    Args:
      metric: what the values are.
      curves: variant to seed to (step, value) pairs; at least one value is finite.
    """
    bands = {variant: _band(seeds) for variant, seeds in curves.items()}
    bands = {variant: band for variant, band in bands.items() if band}
    shown = [variant for variant in bands if variant != BASELINE] or list(bands)
    columns = min(len(shown), 2 if len(shown) < 5 else 3)
    count = math.ceil(len(shown) / columns)
    width = (80, 40, 25)[columns - 1]
    above = max(len(lines_of(variant, width)) for variant in shown) * LINE / 72
    values = [value for band in bands.values() for point in band for value in point[1:]]
    logarithmic = min(values) > 0 and max(values) / min(values) > LOG_RATIO
    styles: dict[str, tuple[str, Literal["--", "-"]]]
    styles = {"baseline": ("reference", "--"), "the variant": ("supported", "-")}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, count * (1.75 + above) + 0.7), layout="constrained")
        grid = figure.subplots(count, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for place, variant in enumerate(shown):
            axes = grid.flat[place]
            draw_title(axes, variant, width=width)
            axes.grid(visible=True)
            drawn = {"the variant": variant}
            if variant != BASELINE and BASELINE in bands:
                drawn = {"baseline": BASELINE, **drawn}
            for label, name in drawn.items():
                role, line = styles[label]
                steps, means, low, high = zip(*bands[name], strict=True)
                axes.fill_between(steps, low, high, color=PALETTE[role], alpha=0.22, linewidth=0)
                axes.plot(steps, means, line, color=PALETTE[role], linewidth=1.6)
            if logarithmic:
                axes.set_yscale("log")
                axes.minorticks_off()
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            # The lowest panel of its column has the steps, also where the last row is not full.
            axes.tick_params(labelbottom=place + columns >= len(shown))
        handles = [Line2D([], [], color=PALETTE[role], linestyle=line) for role, line in styles.values()]
        figure.legend(handles, list(styles), loc="outside upper left", ncols=2)
        figure.supxlabel("step", fontsize=FONT)
        figure.supylabel(f"{metric}{' (logarithmic)' if logarithmic else ''}", fontsize=FONT)
    return figure


def _band(seeds: Mapping[int, Sequence[tuple[int, float]]]) -> list[tuple[int, float, float, float]]:
    """(step, mean, least, greatest) at no more than `CURVE_POINTS` steps, the first and last among them."""
    values: dict[int, list[float]] = {}
    for seed in sorted(seeds):
        for step, value in seeds[seed]:
            if math.isfinite(value):
                values.setdefault(step, []).append(value)
    steps = sorted(values)
    last = len(steps) - 1
    if last >= CURVE_POINTS:
        steps = [steps[round(i * last / (CURVE_POINTS - 1))] for i in range(CURVE_POINTS)]
    return [(step, math.fsum(values[step]) / len(values[step]), min(values[step]), max(values[step])) for step in steps]
