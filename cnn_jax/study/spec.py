"""What a study config may say: the claim, the baseline, the variants, the seeds, the measures and what is compared.

A study file defines `get_config(scale)`, which returns an `ml_collections.ConfigDict` of plain values; `small` is the
scale that runs on two cores in minutes, `full` the published setting.
"""

import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from cnn_jax.errors import UserError, unknown_name
from cnn_jax.train.config_file import Node, assign, load, parse_value, plain
from cnn_jax.train.config_node import STRICT, first_error

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+×-]{0,60}")
"""Of a variant: it names a folder and a row of a table."""
BASELINE, NULL, SHUFFLED = "baseline", "null", "shuffled labels"
"""Names that are taken; the controls are the baseline with other seeds, and the baseline on random training labels."""
NULL_SEED = 1_000_000  # added to the seeds of the null variant
NEEDS_SMALLEST = ("equal", "not_less", "not_greater")
"""Claims that there is no difference: of a size."""

Assignments = dict[str, Any]
"""Dotted path in the training config to its value, such as `{"model.activation": "tanh"}`."""


class _Section(pydantic.BaseModel):
    model_config = STRICT


class StepsTo(_Section):
    """The first step whose logged value reaches a target; all steps of a completed run that never does, too few."""

    metric: str
    target: float
    direction: Literal["higher", "lower"] = "higher"


class Measure(_Section):
    """One number of each run.

    Attributes:
      direction: whether more of it or less is better.
      of: weights of the run's stored numbers that it is the sum of, such as `{"train/accuracy": 1, "test/accuracy":
        -1}`; by default the number of its own name.
      log: take the natural logarithm.
      steps_to: read it from the log instead.
      diverged: the value of a run that diverged; without one the pairs of such runs are left out, and counted.
      share: it is a share between 0 and 1, shown in percent.
    """

    direction: Literal["higher", "lower"] = "higher"
    of: dict[str, float] = Field(default_factory=dict)
    log: bool = False
    steps_to: StepsTo | None = None
    diverged: float | None = None
    share: bool = False


class Comparison(_Section):
    """What is tested: a variant against another, or any weighted sum of variants, on equal seeds.

    Attributes:
      measure: of `Study.measures`.
      variant: and `against`: short for the contrast `{variant: 1, against: -1}`.
      contrast: variant to its weight.
      claim: what the textbook says of the contrast: it is "greater" than 0, "less", "equal" to 0 (supported where the
        whole interval lies within the smallest effect), or "not_less" or "not_greater" ("at no loss": supported where
        only that end of the interval does).
      smallest: effect that matters, in the measure's unit.
      name: for tables; by default `variant − against`.
      primary: it decides the verdict.
    """

    measure: str
    variant: str | None = None
    against: str = BASELINE
    contrast: dict[str, float] = Field(default_factory=dict)
    claim: Literal["greater", "less", "equal", "not_less", "not_greater"] = "greater"
    smallest: Annotated[float, Field(ge=0)] = 0.0
    name: str = ""
    primary: bool = True


class Tuning(_Section):
    """Options that each variant chooses for itself before its seeds are trained.

    Attributes:
      grid: dotted path to the values that are tried; all combinations are.
      seeds: those of the trials; none of them is a seed of the study.
      metric: of the trials, on the validation split.
      direction: whether more of it or less is better.
    """

    grid: Annotated[dict[str, tuple[Any, ...]], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (100,)
    metric: str = "validation/accuracy"
    direction: Literal["higher", "lower"] = "higher"


class Study(_Section):
    """A study, checked.

    Attributes:
      id: such as "c05".
      title: a few words.
      claim: one sentence, as the textbook has it.
      source: where it is claimed.
      scale: "small" or "full".
      baseline: a training config, or the path of one, relative to the study's file.
      overrides: assignments to the baseline, for all variants.
      variants: name to the assignments that make it of the baseline. The baseline itself is there without being named.
      factors: factor to its levels, each with assignments; variants are then made by `design`, and their names join
        those of the levels. The first level of each factor is the baseline's.
      design: all combinations of levels ("full"), or each level of each factor with the first ones of the others.
      seeds: of every variant.
      measures: by name.
      comparisons: what is tested.
      probes: `{name, **options}` nodes of `probes.PROBES`: further numbers of the trained networks.
      tuning: what each variant chooses for itself.
      tuning_of: variants that are tuned otherwise, which the report flags.
      controls: "null" adds the baseline again with other seeds, "shuffled labels" the baseline on random labels.
      interval: paired "t" interval or percentile "bootstrap".
      confidence: of the intervals; 1 − it is the rate of false alarms.
      notes: what the reader should know: why this size, what was tried.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    title: str
    claim: str
    source: str = ""
    scale: Literal["small", "full"] = "small"
    baseline: Node
    overrides: Assignments = Field(default_factory=dict)
    variants: dict[str, Assignments] = Field(default_factory=dict)
    factors: dict[str, dict[str, Assignments]] = Field(default_factory=dict)
    design: Literal["full", "one_at_a_time"] = "full"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=NULL_SEED)], ...], Field(min_length=1)]
    measures: Annotated[dict[str, Measure], Field(min_length=1)]
    comparisons: Annotated[tuple[Comparison, ...], Field(min_length=1)]
    probes: tuple[Node, ...] = ()
    tuning: Tuning | None = None
    tuning_of: dict[str, Tuning] = Field(default_factory=dict)
    controls: tuple[Literal["null", "shuffled labels"], ...] = ()
    interval: Literal["t", "bootstrap"] = "t"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    notes: str = ""


def load_study(reference: str, *, overrides: Sequence[str] = ()) -> Study:
    """The study that a file's `get_config` returns.

    Args:
      reference: `path.py` or `path.py:scale`.
      overrides: `--config.key=value` for the training config of all variants, `--study.key=value` for the study itself.

    Raises:
      UserError: as `config_file.load` and `check_study`, or an override is not of these forms.
    """
    config = load(reference)
    file = pathlib.Path(reference if pathlib.Path(reference).is_file() else reference.rpartition(":")[0])
    if isinstance(config.get("baseline"), str):
        config["baseline"] = load(str(file.parent / config["baseline"]))
    for text in overrides:
        target, separator, value = text.partition("=")
        if separator and target.startswith("--config."):
            own = {**config.get("overrides", {}), target.removeprefix("--config."): parse_value(value)}
            config = {**config, "overrides": own}
        elif separator and target.startswith("--study."):
            config = assign(config, target.removeprefix("--study."), parse_value(value), shown=text)
        else:
            raise UserError(
                f"argument {text!r} is not understood; overrides look like --study.seeds=(0,1) or"
                " --config.train.duration.epochs=2"
            )
    return check_study(config)


def check_study(config: Mapping[str, Any]) -> Study:
    """A study from plain values, every name in it checked; training configs are checked when the study is planned.

    Raises:
      UserError: an unknown key, a wrong type, a name that is taken or stands for nothing, or a seed that is used twice.
    """
    try:
        study = Study.model_validate(plain(config))
    except pydantic.ValidationError as error:
        raise first_error("study", error, Study) from error
    levels = [level for factor in study.factors.values() for level in factor]
    if levels and study.variants:
        raise UserError("study.factors makes the variants, study.variants names them: drop one")
    for name in (*study.variants, *levels):
        if name in (BASELINE, NULL, SHUFFLED) or levels.count(name) > 1:
            raise UserError(f"study: the name {name!r} is taken; give the variant or level another one")
    names = variants_of(study)
    if len(set(study.seeds)) != len(study.seeds):
        raise UserError(f"study.seeds {study.seeds} has a seed twice; drop one")
    for name in names:
        if not NAME.fullmatch(name) or name.endswith((" ", ".")):
            raise UserError(
                f"study.variants: {name!r} is no name; take a letter or digit, then up to 60 of these, spaces and ._+×-"
            )
    for index, comparison in enumerate(study.comparisons):
        where = f"study.comparisons.{index}"
        if comparison.measure not in study.measures:
            raise unknown_name(f"{where}.measure", comparison.measure, study.measures)
        if (comparison.variant is None) == (not comparison.contrast):
            raise UserError(f"{where}: give either variant or contrast")
        if comparison.variant == comparison.against:
            raise UserError(f"{where}: {comparison.variant!r} is compared with itself; give another `against`")
        if comparison.claim in NEEDS_SMALLEST and comparison.smallest == 0:
            raise UserError(f"{where}.smallest is 0; claim {comparison.claim!r} needs what counts as no difference")
        for name in contrast_of(comparison):
            if name not in names:
                raise unknown_name(f"{where}: variant", name, names)
    for name, tuning in ((name, tuning_for(study, name)) for name in names):
        both = sorted(set(tuning.seeds) & set(study.seeds)) if tuning else []
        if both:
            raise UserError(f"study.tuning of {name!r}: seed {both[0]} is one of study.seeds; tune on others")
    for name in study.tuning_of:
        if name not in names:
            raise unknown_name("study.tuning_of", name, names)
    return study


def variants_of(study: Study) -> dict[str, Assignments]:
    """Each variant's assignments, controls included; the baseline comes first.

    A full factorial of the levels `a1, a2` and `b1, b2` has the variants `baseline` (which is `a1, b1`), `a1 b2`,
    `a2 b1` and `a2 b2`.
    """
    found: dict[str, Assignments] = {}
    if study.factors:
        for levels in itertools.product(*(levels.items() for levels in study.factors.values())):
            firsts = [next(iter(factor)) for factor in study.factors.values()]
            names = [name for name, _ in levels]
            changed = [name for name, first in zip(names, firsts, strict=True) if name != first]
            if study.design == "one_at_a_time" and len(changed) > 1:
                continue
            name = BASELINE if not changed else changed[0] if study.design == "one_at_a_time" else " ".join(names)
            found[name] = {path: value for _, assignments in levels for path, value in assignments.items()}
    else:
        found = {BASELINE: {}, **study.variants}
    if "null" in study.controls:
        found[NULL] = {}
    if SHUFFLED in study.controls:
        found[SHUFFLED] = {}
    return found


def training_config(study: Study, variant: str, *, seed: int, chosen: Mapping[str, Any] | None = None) -> Node:
    """The training config of one run of a variant.

    Args:
      study: checked.
      variant: a name of `variants_of`.
      seed: of the run.
      chosen: by tuning.

    Raises:
      UserError: an assignment leads through a value that is no node.
    """
    config = plain(study.baseline)
    assignments = {**study.overrides, **variants_of(study)[variant], **(chosen or {})}
    for path, value in assignments.items():
        config = assign(config, path, value)
    if variant == SHUFFLED:
        wrappers = config["data"].get("wrappers", {}).get("train", ())
        config = assign(config, "data.wrappers.train", (*wrappers, {"name": "shuffled_labels"}))
    return {**config, "seed": seed + NULL_SEED if variant == NULL else seed}


def contrast_of(comparison: Comparison) -> dict[str, float]:
    """Variant to weight."""
    if comparison.variant is None:
        return dict(comparison.contrast)
    return {comparison.variant: 1.0, comparison.against: -1.0}


def name_of(comparison: Comparison) -> str:
    """What tables call it."""
    if comparison.name or comparison.variant is not None:
        return comparison.name or f"{comparison.variant} − {comparison.against}"
    terms = [f"{'−' if weight < 0 else '+'} {abs(weight):g} × {name}" for name, weight in comparison.contrast.items()]
    return " ".join(terms).removeprefix("+ ")


def tuning_for(study: Study, variant: str) -> Tuning | None:
    """How a variant is tuned; the controls as the baseline that they are."""
    return study.tuning_of.get(BASELINE if variant in (NULL, SHUFFLED) else variant, study.tuning)


def trials(tuning: Tuning) -> tuple[Assignments, ...]:
    """Every combination of the grid."""
    return tuple(dict(zip(tuning.grid, values, strict=True)) for values in itertools.product(*tuning.grid.values()))
