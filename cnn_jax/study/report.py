"""The report of a study: `report.md`, `report.html`, `results.csv` and figures, from stored results alone.

The same results give the same bytes: nothing of it depends on the time, on paths of this machine or on the order in
which files are found.
"""

import os
import pathlib
import re
from collections.abc import Sequence

from matplotlib.figure import Figure

from cnn_jax.study import figures, result_tables
from cnn_jax.study.document import Block, Bullets, Commands, Document, Link, Paragraph, Picture, Section, Text
from cnn_jax.study.drawing import to_png, to_svg
from cnn_jax.study.markdown import render_markdown
from cnn_jax.study.origin_tables import Provenance, assignment_table, failure_table, provenance_table, tuning_table
from cnn_jax.study.outcome import Analysis, RunRow
from cnn_jax.study.page import render_page
from cnn_jax.study.spec import Study, variants_of
from cnn_jax.study.stored import Curves
from cnn_jax.study.tables import RESULTS, replace_file, write_results

MARKDOWN, PAGE, FIGURES = "report.md", "report.html", "figures"
ROOT = pathlib.Path(__file__).resolve().parents[2]
RULE_ANCHOR = "how-a-verdict-is-made"
"""The heading of the README that explains the rule."""
RULE = (
    "Supported: the difference has the claimed sign, its p adjusted by Holm's method is below {level:g}, and it is at"
    " least the smallest effect that matters. Refuted: it is significant with the other sign, or it is not significant"
    " and an effect that matters is excluded. Depends: it has the claimed sign and is significant, but an effect"
    " that matters is excluded. A claim of equality, or of no loss, is supported where an effect that matters is"
    " excluded, and refuted where a significant one matters, which for no loss has to be a loss. Everything else is"
    " inconclusive. The study is what its primary comparisons are (all, if no one is primary). Where they differ it"
    " depends if some are supported and some refuted, or one depends; else it is refuted if one is, else inconclusive."
)


def write_report(
    directory: str | os.PathLike[str],
    study: Study,
    rows: Sequence[RunRow],
    curves: Curves,
    analysis: Analysis,
    provenance: Provenance,
) -> None:
    """Write everything that a reader needs; what is there of an earlier report is replaced.

    Args:
      directory: made if it is not there.
      study: checked.
      rows: of its runs, in any order.
      curves: metric to variant to seed to (step, value) pairs.
      analysis: of the rows.
      provenance: what the rows do not say.
    """
    directory = pathlib.Path(directory)
    variants = {variant: place for place, variant in enumerate(variants_of(study))}
    rows = sorted(rows, key=lambda row: (variants.get(row.variant, len(variants)), row.variant, row.seed))
    drawn: dict[str, tuple[Picture, Figure]] = {}
    for picture, figure in _pictures(study, curves, analysis):
        drawn[picture.name] = (picture, figure)
    pictures = [picture for picture, _ in drawn.values()]
    document = make_document(study, rows, analysis, provenance, pictures=pictures, readme=_readme(directory))
    folder = directory / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.iterdir()):
        if old.suffix in (".png", ".svg") and old.stem not in drawn:
            old.unlink()  # of a metric that is gone
    vectors = {name: to_svg(figure) for name, (_, figure) in drawn.items()}
    for name, (_, figure) in drawn.items():
        (folder / f"{name}.png").write_bytes(to_png(figure))
        (folder / f"{name}.svg").write_bytes(vectors[name])
    write_results(directory / RESULTS, rows)
    replace_file(directory / MARKDOWN, render_markdown(document, figures=FIGURES))
    runs = result_tables.run_table(study, rows, analysis)
    replace_file(directory / PAGE, render_page(document, figures=vectors, runs=runs))


def make_document(
    study: Study,
    rows: Sequence[RunRow],
    analysis: Analysis,
    provenance: Provenance,
    *,
    pictures: Sequence[Picture] = (),
    readme: str = "",
) -> Document:
    """What the report says.

    Args:
      study: checked.
      rows: in the study's order.
      analysis: of these.
      provenance: what the rows do not say.
      pictures: that are drawn.
      readme: its path from the report; empty where there is none.
    """
    named = {picture.name: picture for picture in pictures}
    curves = tuple(picture for name, picture in named.items() if name not in ("differences", "seeds"))
    unadjusted = (
        "Mean ± sample standard deviation over n seeds. Differences are paired by seed and adjusted for nothing."
    )
    found: list[tuple[str, tuple[Block | None, ...]]] = [
        ("Comparisons", (result_tables.comparison_table(study, analysis), named.get("differences"))),
        ("Variants", (result_tables.variant_table(study, rows, analysis), Paragraph(unadjusted), named.get("seeds"))),
        ("Learning curves", curves),
        ("Failures and divergences", (failure_table(rows),)),
        ("What each variant changes", (assignment_table(study),)),
        ("What tuning chose", (tuning_table(study, rows),)),
        ("Notes", tuple(Paragraph(text) for text in re.split(r"\n\s*\n", study.notes.strip()) if text)),
        ("How a verdict is made", (Paragraph(_rule(study, readme)),)),
        ("Provenance", (_commands(provenance), provenance_table(study, rows, provenance))),
    ]
    sections = [Section(title, blocks) for title, many in found if (blocks := tuple(b for b in many if b is not None))]
    if analysis.warnings:
        sections.insert(0, Section("Warnings", (Bullets(analysis.warnings),), warning=True))
    seeds = f"{len(study.seeds)} seed{'s' * (len(study.seeds) > 1)}"
    return Document(
        over=f"Study {study.id.upper()} · {study.scale} scale · {len(variants_of(study))} variants × {seeds}",
        title=study.title,
        claim=study.claim,
        source=study.source,
        verdict=analysis.verdict,
        sentence=analysis.sentence,
        sections=tuple(sections),
    )


def _commands(provenance: Provenance) -> Commands | None:
    return Commands(provenance.commands) if provenance.commands else None


def _rule(study: Study, readme: str) -> Text:
    rule = RULE.format(level=round(1 - study.confidence, 9))
    if not readme:
        return f"{rule} The README says more."
    return (f"{rule} More in ", Link("the README", f"{readme}#{RULE_ANCHOR}"), ".")


def _readme(directory: pathlib.Path) -> str:
    """The README's path from a folder of the repository; elsewhere a path would tell of this machine."""
    folder, readme = directory.resolve(), ROOT / "README.md"
    if not (folder.is_relative_to(ROOT) and readme.is_file()):
        return ""
    return pathlib.Path(os.path.relpath(readme, folder)).as_posix()


def _pictures(study: Study, curves: Curves, analysis: Analysis) -> list[tuple[Picture, Figure]]:
    """Every figure with what is said of it."""
    percent = f"{100 * study.confidence:g} %"
    found = [
        (
            Picture(
                "differences",
                "Differences of every comparison with their intervals",
                f"Mean difference over seeds. Thick: {percent} interval; thin: interval at the level of Holm's method;"
                " small points: seeds; band around zero: smaller than the smallest effect that matters.",
            ),
            figures.differences(study, analysis),
        ),
        (
            Picture(
                "seeds",
                "Every seed's value of every measure, by variant",
                "Each point is a seed, each short line a variant's mean, the dashed line that of the baseline.",
            ),
            figures.seeds_by_variant(study, analysis),
        ),
    ]
    for metric, of_variants in sorted(curves.items()):
        ordered = {name: of_variants[name] for name in variants_of(study) if name in of_variants}
        if any(points for seeds in ordered.values() for points in seeds.values()):
            caption = (
                f"{metric}: mean over seeds, with a band from the least to the greatest seed. At each step every seed"
                " counts that has a value there."
            )
            name = "curves_" + re.sub(r"[^A-Za-z0-9]+", "_", metric).strip("_")
            picture = Picture(name, f"Learning curves of {metric}, each variant beside the baseline", caption)
            found.append((picture, figures.learning_curves(metric, ordered)))
    return found
