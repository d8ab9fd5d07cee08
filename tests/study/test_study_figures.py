"""Figures of studies: everything is drawn, nothing overlaps, and the same figure is the same file."""

import itertools
import math
import re
import xml.etree.ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic import make_curves, make_rows, make_study

from cnn_jax.study.analysis import analyse
from cnn_jax.study.drawing import PALETTE, to_png, to_svg
from cnn_jax.study.figures import differences, learning_curves, seeds_by_variant
from cnn_jax.study.page_style import DARK
from cnn_jax.study.spec import BASELINE

SLOW = pytest.mark.slow
SIZES = [(2, 1), (5, 2), pytest.param(2, 4, marks=SLOW), pytest.param(12, 3, marks=SLOW)]


def drawn(variants, measures):
    study = make_study(variants=variants, measures=measures)
    analysis = analyse(study, make_rows(study))
    curves = make_curves(study)
    return {
        "differences": differences(study, analysis),
        "seeds": seeds_by_variant(study, analysis),
        **{metric: learning_curves(metric, of) for metric, of in curves.items()},
    }


def labels_of(figure):
    """(text, box in pixels) of every label that shows."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    axes = [axes for axes in figure.axes if axes.get_visible()]
    found = [figure._supxlabel, figure._supylabel, *(text for legend in figure.legends for text in legend.get_texts())]
    for one in axes:
        # matplotlib keeps tick labels that lie outside the axis; `_update_ticks` gives those that it draws.
        ticks = [tick.label1 for axis in (one.xaxis, one.yaxis) for tick in axis._update_ticks()]
        found += [*one.texts, one.title, one._left_title, *ticks]
    width, height = figure.bbox.width, figure.bbox.height
    shown = []
    for text in found:
        if text is None or not text.get_visible() or not text.get_text().strip():
            continue
        box = text.get_window_extent(renderer)
        shown.append((text.get_text(), box))
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    return shown


@pytest.mark.parametrize(("variants", "measures"), SIZES)
def test_labels_neither_overlap_nor_leave_the_figure(variants, measures):
    for name, figure in drawn(variants, measures).items():
        for (text, box), (other, beside) in itertools.combinations(labels_of(figure), 2):
            # A pixel is the rounding of glyphs.
            apart = box.x1 - 1 <= beside.x0 or beside.x1 - 1 <= box.x0 or box.y1 - 1 <= beside.y0
            assert apart or beside.y1 - 1 <= box.y0, f"{name}: {text!r} and {other!r} overlap"


def test_every_comparison_variant_and_seed_is_drawn():
    study = make_study(variants=12, measures=2)
    rows = make_rows(study)
    analysis = analyse(study, rows)
    panels = differences(study, analysis).axes
    for axes, measure in zip(panels, study.measures, strict=True):
        tested = [each for each in analysis.tested if each.comparison.measure == measure]
        points = [c.get_offsets()[:, 0].tolist() for c in axes.collections if len(c.get_offsets()) > 1]
        expected = [[100 * each.differences[seed] for seed in sorted(each.differences)] for each in tested]
        assert points == [pytest.approx(values) for values in expected]
        said = " ".join(text.get_text() for text in axes.texts)
        # Labels are wrapped: words come in their order.
        assert all(word in said for each in tested for word in each.name.split())
        ends = {tuple(round(x, 9) for x in line.get_xdata()) for line in axes.lines}
        for each in tested:
            for interval in (each.interval, each.adjusted):
                assert (round(100 * interval.low, 9), round(100 * interval.high, 9)) in ends
    seeds = seeds_by_variant(study, analysis).axes
    for axes, measure in zip(seeds, study.measures, strict=True):
        points = [sorted(c.get_offsets()[:, 0].tolist()) for c in axes.collections]
        values = [sorted(100 * v for v in of[measure].values.values()) for of in analysis.summaries.values()]
        assert points == [pytest.approx(of) for of in values]


def test_curves_are_means_with_bands_from_least_to_greatest():
    # By hand: seeds of 1 and 3 at step 10; the second seed ends there.
    curves = {
        BASELINE: {0: [(10, 2.0), (20, 2.5)]},
        "other": {0: [(10, 1.0), (20, 5.0)], 1: [(10, 3.0), (20, math.nan)], 2: []},
    }
    (axes,) = (axes for axes in learning_curves("loss", curves).axes if axes.get_visible())
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert lines == [[[10, 2.0], [20, 2.5]], [[10, 2.0], [20, 5.0]]]
    band = axes.collections[1].get_paths()[0].vertices
    assert {tuple(point) for point in band.tolist()} == {(10, 1.0), (10, 3.0), (20, 5.0)}


def test_long_curves_keep_their_ends():
    curves = {BASELINE: {0: [(step, float(step)) for step in range(1, 10_001)]}}
    (line,) = learning_curves("loss", curves).axes[0].lines
    steps = line.get_xdata().tolist()
    assert len(steps) < 300
    assert (steps[0], steps[-1]) == (1, 10_000)


def test_a_loss_over_decades_is_drawn_on_a_logarithmic_axis_that_can_be_read():
    figure = learning_curves("loss", {BASELINE: {0: [(step, 10.0**-step) for step in range(5)]}})
    said = [text for text, _ in labels_of(figure)]
    assert "loss (logarithmic)" in said
    assert {"1", "0.01"} <= set(said)
    assert not any("mathdefault" in text for text in said)


@pytest.mark.parametrize(("variants", "measures"), [(2, 1), pytest.param(12, 2, marks=SLOW)])
def test_files_are_the_same_when_repeated_and_have_only_the_palette_s_colours(variants, measures):
    for figure, again in zip(drawn(variants, measures).values(), drawn(variants, measures).values(), strict=True):
        vector = to_svg(figure)
        assert to_svg(again) == vector
        assert to_png(again) == to_png(figure)
        xml.etree.ElementTree.fromstring(vector)
        assert set(re.findall(rb"#[0-9a-f]{6}\b", vector)) <= {colour.encode() for colour in PALETTE.values()}
        assert not re.search(rb"dc:date|Matplotlib v", vector)


def test_dollars_and_braces_are_text():
    study = make_study(
        variants=2,
        measures=1,
        changes={"comparisons": [{"measure": "test accuracy", "variant": "no BatchNorm", "name": "a $x_{$ <b> & c$"}]},
    )
    vector = to_svg(differences(study, analyse(study, make_rows(study)))).decode()
    assert "a $x_{$ &lt;b&gt; &amp; c$" in vector


def brightness(colour):
    """Relative luminance of `#rrggbb` (WCAG 2.1)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((brightness(one), brightness(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [PALETTE, DARK], ids=["light", "dark"])
def test_words_have_the_contrast_that_reading_needs(palette):
    assert palette.keys() == PALETTE.keys()
    assert len(set(palette.values())) == len(palette)
    for role in ("ink", "muted", "supported", "refuted", "inconclusive", "depends"):
        assert contrast(palette[role], palette["ground"]) >= 4.5, role  # WCAG AA for text
    assert contrast(palette["reference"], palette["ground"]) >= 3  # for graphics
