"""The tables of a report that say where its numbers come from: variants, tuning, failures and provenance."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.study.document import Cell, Code, Table, Text
from cnn_jax.study.outcome import COUNTED, RunRow
from cnn_jax.study.spec import BASELINE, NULL, SHUFFLED, Study, trials, tuning_for, variants_of
from cnn_jax.study.tables import RESULTS

IN_WORDS = {
    BASELINE: "the study's baseline",
    NULL: "the baseline with other seeds: what differs is noise",
    SHUFFLED: "the baseline on random labels: what is learnt is leakage",
}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What the rows do not say of themselves.

    Attributes:
      commands: that make the results again, from the root of the repository.
      study_file: the study's config, from there.
      study_sha256: its checksum.
      versions: package to version.
      flags: environment variables that change results or speed, such as `XLA_FLAGS`.
    """

    commands: tuple[str, ...] = ()
    study_file: str = ""
    study_sha256: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    flags: Mapping[str, str] = dataclasses.field(default_factory=dict)


def assignment_table(study: Study) -> Table:
    """What makes each variant of the baseline."""
    rows = []
    for variant, assignments in variants_of(study).items():
        shown = _joined([Code(f"{path}={_json(value)}") for path, value in assignments.items()])
        text: Text = shown or IN_WORDS.get(variant, IN_WORDS[BASELINE])
        rows.append((Cell(variant), Cell(text)))
    return Table("What each variant changes", ("variant", "assignments"), tuple(rows))


def tuning_table(study: Study, rows: Sequence[RunRow]) -> Table | None:
    """What each variant tried and chose; None where nothing was tuned.

    Args:
      study: checked.
      rows: in the study's order.
    """
    lines = []
    for variant in variants_of(study):
        tuning = tuning_for(study, variant)
        chosen = [row.chosen for row in rows if row.variant == variant and row.chosen]
        if tuning is None and not chosen:
            continue
        tried = "–"
        if tuning is not None:
            settings, seeds = len(trials(tuning)), len(tuning.seeds)
            tried = f"{settings} setting{'s' * (settings > 1)} × {seeds} seed{'s' * (seeds > 1)}, by {tuning.metric}"
        different = list(dict.fromkeys(_shown(each) for each in chosen))
        found = _joined([Code(text) for text in different]) or "–"
        lines.append((Cell(variant), Cell(tried), Cell(found)))
    return Table("What tuning chose", ("variant", "tried", "chosen"), tuple(lines)) if lines else None


def failure_table(rows: Sequence[RunRow]) -> Table | None:
    """Runs that failed, diverged or are missing, with their reason; None where all ended well.

    Args:
      rows: in the study's order. Those of a variant that share status and message share a line.
    """
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        if row.status not in COUNTED:
            seeds.setdefault((row.variant, row.status, row.message), []).append(row.seed)
    lines = tuple(
        (Cell(variant), Cell(", ".join(map(str, of))), Cell(status), Cell(message or "–"))
        for (variant, status, message), of in seeds.items()
    )
    return Table("Failures and divergences", ("variant", "seed", "status", "message"), lines) if lines else None


def provenance_table(study: Study, rows: Sequence[RunRow], provenance: Provenance) -> Table:
    """Everything that the numbers depend on.

    Args:
      study: checked.
      rows: in the study's order.
      provenance: what the rows do not say.
    """
    checksums: dict[str, set[str]] = {}
    for row in rows:
        for split, checksum in row.data.items():
            checksums.setdefault(split, set()).add(checksum)
    data = tuple(
        part
        for split in sorted(checksums)
        for checksum in sorted(checksums[split])
        for part in (f"{split} ", Code(checksum), ", ")
    )
    method = "bootstrap interval" if study.interval == "bootstrap" else "t interval"
    lines: dict[str, Text] = {
        "scale": study.scale,
        "seeds": ", ".join(map(str, study.seeds)),
        "intervals": f"paired {method} at {100 * study.confidence:g} %",
        "commit": _codes({row.commit for row in rows}),
        "hardware": "; ".join(sorted({row.hardware for row in rows} - {""})),
        "data, sha256": data[:-1],
        "study file": (Code(provenance.study_file),) if provenance.study_file else "",
        "study file, sha256": (Code(provenance.study_sha256),) if provenance.study_sha256 else "",
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(provenance.versions.items())),
        "flags": _codes({f"{name}={value}" for name, value in provenance.flags.items()}),
        "every run": (Code(RESULTS), " has all numbers of every run in full, and the key that it is stored under"),
    }
    return Table(
        "Provenance", ("what", "value"), tuple((Cell(name), Cell(text)) for name, text in lines.items() if text)
    )


def _codes(texts: set[str]) -> Text:
    return _joined([Code(text) for text in sorted(texts - {""})])


def _joined(found: Sequence[Code]) -> Text:
    """Pieces with commas between them."""
    return tuple(piece for part in found for piece in (part, ", "))[:-1]


def _shown(chosen: Mapping[str, Any]) -> str:
    return " ".join(f"{path}={_json(value)}" for path, value in sorted(chosen.items()))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
