"""The README's table of claims, from the studies that are stored in the repository."""

import os
import pathlib
import re
from typing import NamedTuple

from cnn_jax.errors import UserError
from cnn_jax.study.analysis import analyse
from cnn_jax.study.formats import estimate, scale_of
from cnn_jax.study.markdown import escape
from cnn_jax.study.outcome import Analysis, RunRow
from cnn_jax.study.report import MARKDOWN
from cnn_jax.study.spec import Study
from cnn_jax.study.stored import STUDY, read_study
from cnn_jax.study.tables import RESULTS, read_results

BEGIN, END = "<!-- claims: written by experiments/study.py index -->", "<!-- end of claims -->"
"""The README's lines around the table."""
HEADER = ("id", "claim", "verdict", "effect", "scale", "report")


BENCHMARKS = "benchmarks"
"""The folder beside the studies whose file of their benchmark bears the name of a study's."""


class Claim(NamedTuple):
    """A stored study with what is computed from its rows."""

    folder: pathlib.Path
    study: Study
    rows: tuple[RunRow, ...]
    analysis: Analysis


def kept_name(study: Study) -> str:
    """The folder of a stored study: its id, with the scale behind it unless that is the small one."""
    return study.id if study.scale == "small" else f"{study.id}_{study.scale}"


def read_claims(results: str | os.PathLike[str]) -> list[Claim]:
    """Every stored study, in the order of the numbers in their ids.

    Args:
      results: the folder with `<id>/study.json` and `<id>/results.csv`; folders without a `study.json` are others'.

    Raises:
      UserError: a file is missing or damaged, or a folder is named otherwise than its study.
    """
    claims = []
    for path in pathlib.Path(results).glob(f"[!.]*/{STUDY}"):
        if path.parent.name == BENCHMARKS:
            continue
        study, rows = read_study(path.parent), tuple(read_results(path.parent / RESULTS))
        if path.parent.name != kept_name(study):
            raise UserError(f"{path} is the study {kept_name(study)!r}; name its folder so")
        claims.append(Claim(path.parent, study, rows, analyse(study, rows)))
    return sorted(claims, key=lambda claim: _in_order(claim.study.id))


def claims_table(results: str | os.PathLike[str], *, readme: str | os.PathLike[str]) -> str:
    """The table as Markdown: id, claim, verdict, effect, scale and a link to the report.

    Args:
      results: as `read_claims`.
      readme: the file that it is for, which links start from; it need not exist.

    Raises:
      UserError: as `read_claims`, or a study has no report.
    """
    claims = read_claims(results)
    if not claims:
        return "No studies are stored yet."
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for claim in claims:
        report = claim.folder / MARKDOWN
        if not report.is_file():
            raise UserError(f"{claim.folder} has no {MARKDOWN}; write it with `experiments/study.py report`")
        link = pathlib.Path(os.path.relpath(report.resolve(), pathlib.Path(readme).resolve().parent)).as_posix()
        cells = (
            claim.study.id.upper(),
            escape(claim.study.claim),
            claim.analysis.verdict,
            effect(claim.study, claim.analysis),
            claim.study.scale,
            f"[report]({link.replace(' ', '%20')})",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def effect(study: Study, analysis: Analysis) -> str:
    """The first primary comparison with its interval and n as Markdown, and how many more there are.

    Args:
      study: checked.
      analysis: of its rows.
    """
    primary = [each for each in analysis.tested if each.comparison.primary] or list(analysis.tested)
    first, *others = primary
    scale = scale_of(first.comparison.measure, study.measures[first.comparison.measure])
    unit = " points" if scale.factor != 1.0 else ""
    shown = f"{scale.name}, {first.name}: {estimate(first.interval, scale)}{unit}, n = {first.interval.n}"
    more = f"; {len(others)} more in the report" if others else ""
    return escape(shown + more)


def _in_order(identity: str) -> list[tuple[int, str]]:
    """Numbers in a name by their size: c9 before c10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", identity)]
