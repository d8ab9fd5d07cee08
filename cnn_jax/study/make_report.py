"""The report of a study's directory, made of what is stored there: neither data nor code of the runs is needed."""

import dataclasses
import os
import pathlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.study.analysis import analyse
from cnn_jax.study.cell import Cell, Plan, read_plan, write_plan
from cnn_jax.study.index import kept_name
from cnn_jax.study.origin_tables import Provenance
from cnn_jax.study.outcome import Analysis, RunRow
from cnn_jax.study.report import FIGURES, PAGE, write_report
from cnn_jax.study.spec import Study, training_config, variants_of
from cnn_jax.study.stored import STUDY, curves_of, passports, read_study, row_of, write_study
from cnn_jax.study.tuning import remarks

CURVES = ("train/loss", "validation/loss", "train/accuracy", "validation/accuracy", "train/gradient_norm")
"""Metrics of the logs, the more telling ones behind."""
MOST_CURVES = 2


def make_report(directory: pathlib.Path, *, place: pathlib.Path | None = None) -> tuple[Analysis, list[RunRow]]:
    """Write the report, and give what it says: every variant with every seed has a row, also where nothing is stored.

    Args:
      directory: of a study that was begun.
      place: the folder that gets the report; default is the study's own.

    Raises:
      UserError: it is no study's, or what is stored is damaged.
    """
    study, plan = read_study(directory), read_plan(directory)
    counted = [cell for cell in plan.cells if cell.trial is None]
    rows = [row_of(study, cell, directory) for cell in counted]
    there = {(row.variant, row.seed) for row in rows}
    wanted = [(variant, seed) for variant in variants_of(study) for seed in study.seeds]
    rows += [RunRow(*cell, "missing") for cell in wanted if cell not in there]
    analysis, tried = analyse(study, rows), [cell for cell in plan.cells if cell.trial is not None]
    analysis = dataclasses.replace(analysis, warnings=(*analysis.warnings, *remarks(study, tried, directory)))
    curves = curves_of(counted, directory, _curves(study, counted, directory))
    origin = provenance(plan, passports(counted, directory))
    write_report(place or directory, study, rows, curves, analysis, origin)
    return analysis, rows


def judge_anew(directory: pathlib.Path, study: Study, reference: str, sha256: str) -> None:
    """Put another form of a study in the place of the stored one: other measures, comparisons or notes, the same runs.

    Args:
      directory: of a study that was begun.
      study: the form that is to count.
      reference: its file, and `sha256` the file's checksum: see `Plan`.
      sha256: see above.

    Raises:
      UserError: it has other runs than those that are stored.
    """
    kept, plan = read_study(directory), read_plan(directory)
    names = variants_of(study)
    same = (kept.id, kept.scale, kept.seeds, kept.probes) == (study.id, study.scale, study.seeds, study.probes)
    same = (
        same
        and names.keys() == variants_of(kept).keys()
        and (kept.tuning, kept.tuning_of) == (study.tuning, study.tuning_of)
    )
    if not same or any(training_config(kept, name, seed=0) != training_config(study, name, seed=0) for name in names):
        raise UserError(
            f"{str(directory)!r} holds other runs than {reference!r} describes; run the study, `report` trains nothing"
        )
    write_study(directory, study)
    write_plan(directory, plan.model_copy(update={"reference": reference, "sha256": sha256}))


def keep_report(directory: pathlib.Path, results: pathlib.Path) -> pathlib.Path:
    """Keep what is small of a study: the study, its rows, its report and the pictures. An earlier one is replaced.

    Args:
      directory: of a study.
      results: the folder that gets the folder of `kept_name`.

    Raises:
      UserError: as `make_report`, or runs are missing.
    """
    place = results / kept_name(read_study(directory))
    made = place.with_name(f".{place.name}.{os.getpid()}")  # beside it: links in a report depend on its depth
    old = made.with_name(f"{made.name}.old")
    made.mkdir(parents=True)
    try:
        _, rows = make_report(directory, place=made)
        missing = [row for row in rows if row.status == "missing"]
        if missing:
            raise UserError(f"{str(directory)!r}: {len(missing)} runs are not done, such as {missing[0].variant!r}")
        for file in (made / PAGE, *sorted((made / FIGURES).glob("*.svg"))):
            file.unlink()
        shutil.copyfile(directory / STUDY, made / STUDY)
        if place.exists():
            place.rename(old)
        made.rename(place)
    finally:
        for folder in (made, old):
            shutil.rmtree(folder, ignore_errors=True)
    return place


def _curves(study: Study, cells: Sequence[Cell], directory: pathlib.Path) -> list[str]:
    """Which curves are shown: of accuracy and loss what was evaluated, else what training itself saw."""
    asked = [measure.steps_to.metric for measure in study.measures.values() if measure.steps_to]
    there = curves_of(cells[:1], directory, CURVES)
    best = [
        next((f"{split}/{name}" for split in ("validation", "train") if f"{split}/{name}" in there), None)
        for name in ("accuracy", "loss")
    ]
    return list(dict.fromkeys([*asked, *(name for name in best if name)]))[: max(MOST_CURVES, len(asked))]


def provenance(plan: Plan, sessions: Sequence[Mapping[str, Any]]) -> Provenance:
    """What the rows do not say of themselves.

    Args:
      plan: knows the study's file.
      sessions: passports of the runs.
    """
    workdir = f"studies/{pathlib.Path(plan.reference).stem}"
    arguments = [f"--study={plan.reference}", f"--workdir={workdir}", *plan.arguments]
    command = shlex.join(["python", "experiments/study.py", *arguments])
    return Provenance(
        commands=(command,) if plan.reference else (),
        study_file=plan.reference.partition(":")[0],
        study_sha256=plan.sha256,
        versions=_joined([session["versions"] for session in sessions]),
        flags=_joined([session["flags"] for session in sessions]),
    )


def _joined(mappings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Every name with its value, or its values where runs differ."""
    found: dict[str, dict[str, None]] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            found.setdefault(name, {})[value] = None
    return {name: " / ".join(sorted(values)) for name, values in sorted(found.items())}
