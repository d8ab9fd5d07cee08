"""What a reader must know before believing a study: runs that are missing, budgets that differ, controls that fail."""

from collections import Counter
from collections.abc import Mapping, Sequence

from cnn_jax.errors import unknown_name
from cnn_jax.study.outcome import COUNTED, Interval, Judged, RunRow
from cnn_jax.study.sentence import difference_words, interval_words, measure_words
from cnn_jax.study.spec import NULL, SHUFFLED, Study, trials, tuning_for, variants_of
from cnn_jax.study.statistics import holm

FEW_SEEDS = 5
FEW_FOR_BOOTSTRAP = 20
ENDED = {"diverged": "diverged", "failed": "failed", "missing": "not run"}
EVALUATION = ("test/", "validation/")
"""What labels that mean nothing must harm: numbers of the training split, or of the network, need not suffer."""


def cautions(
    study: Study,
    rows: Sequence[RunRow],
    *,
    strangers: int,
    without: Mapping[tuple[str, str, str], int],
    tested: Sequence[Judged],
    decisive: Sequence[str],
    controls: Mapping[str, Mapping[str, Interval]],
) -> tuple[str, ...]:
    """Warnings, one sentence each, the gravest kind first.

    Args:
      study: checked.
      rows: one for each of its variants and seeds.
      strangers: how many rows belong to none of them.
      without: (measure, variant, reason) to how many runs that ended well lack the measure.
      tested: the comparisons.
      decisive: the measures that the verdict rests on.
      controls: control to measure to the interval of its difference to the baseline.
    """
    return (
        *_of_controls(study, decisive, controls),
        *_of_runs(study, rows, strangers),
        *_of_values(study, rows, without, tested),
        *_of_budgets(study),
        *_of_seeds(study, tested),
        *_of_provenance(study, rows),
    )


def _of_controls(study: Study, decisive: Sequence[str], controls: Mapping[str, Mapping[str, Interval]]) -> list[str]:
    found, level = [], 1 - study.confidence
    # Several measures are several chances of a false alarm.
    null = {name: controls[NULL][name] for name in decisive if controls[NULL][name].n > 1} if NULL in controls else {}
    for (name, interval), p in zip(null.items(), holm([each.p for each in null.values()]), strict=True):
        if p < level:
            found.append(
                f"the null variant differs from the baseline, of which only its seeds differ: with it"
                f" {_difference(study, name, interval)}; differences of this size may be noise"
            )
    if SHUFFLED in controls:
        judged = [name for name in decisive if _of_evaluation(study, name)]
        judged = judged or [name for name in study.measures if _of_evaluation(study, name)]
        if not judged:
            found.append(
                f"the control {SHUFFLED!r} tells nothing: no measure is made of {' or '.join(EVALUATION)} numbers alone"
            )
        for name in judged:
            interval = controls[SHUFFLED][name]
            worse = interval.mean < 0 if study.measures[name].direction == "higher" else interval.mean > 0
            if interval.n > 1 and not (worse and interval.p < level):
                found.append(
                    f"{SHUFFLED} are not clearly worse than the baseline: with them"
                    f" {_difference(study, name, interval)}; look for leakage, or a task that needs no labels"
                )
    return found


def _of_evaluation(study: Study, name: str) -> bool:
    return all(key.startswith(EVALUATION) for key in study.measures[name].of or (name,))


def _difference(study: Study, name: str, interval: Interval) -> str:
    measure = study.measures[name]
    words = difference_words(measure, interval)
    return f"{measure_words(name)} is {words} ({interval_words(study, measure, interval)})"


def _of_runs(study: Study, rows: Sequence[RunRow], strangers: int) -> list[str]:
    found = []
    for variant in variants_of(study):
        counts = Counter(row.status for row in rows if row.variant == variant)
        ended = [f"{counts[status]} {words}" for status, words in ENDED.items() if counts[status]]
        if ended:
            found.append(f"{variant}: of {counts.total()} runs {' and '.join(ended)}")
    if any(row.status == "diverged" for row in rows):
        found += [
            f"{measure_words(name)} of a run that diverged is taken to be {measure.diverged:g}"
            for name, measure in study.measures.items()
            if measure.diverged is not None
        ]
    if strangers:
        found.append(f"{strangers} stored runs are of no variant and seed of this study, and are not counted")
    return found


def _of_values(
    study: Study, rows: Sequence[RunRow], without: Mapping[tuple[str, str, str], int], tested: Sequence[Judged]
) -> list[str]:
    found = []
    ended_well = [row for row in rows if row.status in COUNTED]
    for name, measure in study.measures.items():
        unheard = [
            key
            for key in measure.of or (name,)
            if any(of == name for of, _, _ in without) and all(row.values.get(key) is None for row in ended_well)
        ]
        if unheard:
            known = {key for row in ended_well for key, value in row.values.items() if value is not None}
            found.append(f"no run has {measure_words(name)}: {unknown_name('number', unheard[0], known)}")
            continue
        found += [
            f"{variant}: {count} of {len(study.seeds)} runs count without {measure_words(name)}, because {reason}"
            for (of, variant, reason), count in without.items()
            if of == name
        ]
    for name in (name for name, measure in study.measures.items() if measure.steps_to):
        late = Counter(row.variant for row in ended_well if row.values.get(name) == row.values.get("steps") is not None)
        found += [
            f"{variant}: {count} runs reach {measure_words(name)} with their last step or never, and count as all steps"
            for variant, count in late.items()
        ]
    found += [
        f"{each.name}: {each.left_out} of {len(study.seeds)} pairs are left out, for want of"
        f" {measure_words(each.comparison.measure)}"
        for each in tested
        if each.left_out
    ]
    return found


def _of_budgets(study: Study) -> list[str]:
    spent: dict[int, list[str]] = {}
    for variant in variants_of(study):
        if variant not in (NULL, SHUFFLED):
            tuning = tuning_for(study, variant)
            spent.setdefault(len(trials(tuning)) * len(tuning.seeds) if tuning else 0, []).append(variant)
    if len(spent) < 2:
        return []
    parts = [f"{', '.join(names)} by {number} runs" for number, names in sorted(spent.items())]
    return [f"variants were not tuned equally: {'; '.join(parts)}"]


def _of_seeds(study: Study, tested: Sequence[Judged]) -> list[str]:
    found = []
    if len(study.seeds) < FEW_SEEDS:
        found.append(f"{len(study.seeds)} seeds are few; take {FEW_SEEDS} or more")
    if study.interval == "bootstrap" and any(each.interval.n < FEW_FOR_BOOTSTRAP for each in tested):
        found.append(
            f"bootstrap intervals of fewer than {FEW_FOR_BOOTSTRAP} seeds are too narrow: of 5 seeds without an effect"
            " a 95 % interval excludes 0 in 16 % of studies; take the t interval"
        )
    return found


def _of_provenance(study: Study, rows: Sequence[RunRow]) -> list[str]:
    found = []
    for what, values in (("commits", [row.commit for row in rows]), ("hardware", [row.hardware for row in rows])):
        counts = Counter(value for value in values if value)
        if len(counts) > 1:
            each = "; ".join(f"{value} ({number} runs)" for value, number in sorted(counts.items()))
            found.append(f"runs are of different {what}: {each}")
    # A variant may be a change of the data; then its data differ from the others', but not from seed to seed.
    changed = {variant for variant, paths in variants_of(study).items() if any(_of_data(path) for path in paths)}
    groups: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for row in rows:
        if row.data:
            group = row.variant if row.variant in changed or row.variant == SHUFFLED else "variants with equal data"
            groups.setdefault(group, set()).add(tuple(sorted(row.data.items())))
    found += [
        f"{group}: runs were made on {len(seen)} different data sets (checksums in results.csv)"
        for group, seen in groups.items()
        if len(seen) > 1
    ]
    return found


def _of_data(path: str) -> bool:
    return path == "data" or path.startswith("data.")
