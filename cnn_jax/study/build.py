"""From a study to its cells: every run is built and checked, and gets the key that its result is kept under."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from cnn_jax.data.sources import LabelledImages, check_disjoint
from cnn_jax.errors import UserError
from cnn_jax.methods.summarize import Totals, summarize
from cnn_jax.study.cell import KEY_DIGITS, Cell
from cnn_jax.study.code_version import code_version
from cnn_jax.study.probes import check_probes
from cnn_jax.study.spec import Study, training_config, trials, tuning_for, variants_of
from cnn_jax.train.config import Data, resolve, sha256, to_plain
from cnn_jax.train.config_file import Node
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.many_runs import with_seed
from cnn_jax.train.run import build, open_data
from cnn_jax.train.splits import Split

NOT_DATA = ("batch_size", "evaluation_batch_size", "mean", "std", "augment", "resident")
"""Of the section `data` what has no influence on which images are there."""

STEPS_PER_DISPATCH = 20
"""Of a config that does not say: a step of a small network takes not much longer than its call."""

Note = Callable[[str], None]
"""Takes a line that tells what goes on."""


class Built(NamedTuple):
    """A cell, and what it trains; nothing has been trained."""

    cell: Cell
    experiment: Experiment


class Experiments:
    """The experiments of variants; data that several of them use are loaded once."""

    def __init__(self, study: Study):
        self._study = study
        self._splits: dict[str, Mapping[str, Split]] = {}
        self._digests: dict[str, dict[str, str]] = {}

    def build(self, variant: str, *, seed: int, chosen: Mapping[str, Any]) -> Experiment:
        """The experiment of one run, on one device.

        Raises:
          UserError: whatever is wrong with the variant's config, with its name.
        """
        try:
            config = on_one_device(training_config(self._study, variant, seed=seed, chosen=chosen))
            resolved = resolve(config)
            which = _data_key(resolved.data)
            experiment = build(config, source=open_data(resolved), splits=self._splits.get(which))
            if which not in self._splits:
                check_disjoint(experiment.splits)
            if resolved.data.stream is None:  # a stream knows the seed, and counts what it skips
                self._splits[which] = experiment.splits
        except UserError as error:
            raise UserError(f"variant {variant!r}: {error}") from None
        return experiment

    def data_digests(self, experiment: Experiment) -> dict[str, str]:
        """The checksum of each split."""
        which = _data_key(experiment.config.data)
        if which not in self._digests:
            descriptions = {name: split.description() for name, split in experiment.splits.items()}
            self._digests[which] = {name: str(description["sha256"]) for name, description in descriptions.items()}
        return self._digests[which]


def on_one_device(config: Node) -> Node:
    """A config whose run shares its machine with others: one device, the split on it unless it is streamed.

    Nothing of it changes what is trained.
    """
    config = {**config, "parallel": {"devices": 1}}
    if config["data"].get("stream") is not None:
        return {**config, "train": {**config["train"], "steps_per_dispatch": 1}}
    train = {"steps_per_dispatch": STEPS_PER_DISPATCH, **config.get("train", {})}
    return {**config, "train": train, "data": {**config["data"], "resident": True}}


def _data_key(data: Data) -> str:
    return json.dumps({name: value for name, value in to_plain(data).items() if name not in NOT_DATA}, sort_keys=True)


def totals_of(experiment: Experiment) -> Totals:
    """Parameters and multiply-accumulates of an experiment's network; traced once for each network."""
    return _totals_of(experiment.model, experiment.splits["train"].image_shape)


@functools.lru_cache(maxsize=256)
def _totals_of(model: nn.Module, image_shape: tuple[int, ...]) -> Totals:
    return summarize(model, image_shape).totals


def key_of(experiment: Experiment, *, data: Mapping[str, str], probes: Sequence[Node]) -> str:
    """The key of a run: equal only where config, data, probes and code are.

    Args:
      experiment: its resolved config.
      data: split to checksum.
      probes: checked nodes.
    """
    parts = {
        "config": sha256(experiment.config),
        "data": dict(data),
        "probes": to_plain(probes),
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]


def _cells(
    study: Study,
    experiments: Experiments,
    variant: str,
    *,
    seeds: Iterable[int],
    chosen: Mapping[str, Any],
    trial: int | None,
) -> list[Built]:
    """The runs of one config with several seeds; the experiment is built once."""
    found = []
    built: Experiment | None = None
    for seed in seeds:
        own = training_config(study, variant, seed=seed)["seed"]
        if built is None or not isinstance(built.splits["train"], LabelledImages):
            built = experiments.build(variant, seed=seed, chosen=chosen)
        experiment = with_seed(built, own)
        data = experiments.data_digests(built)
        key = key_of(experiment, data=data, probes=check_probes(study.probes))
        cell = Cell(variant=variant, seed=seed, chosen=dict(chosen), trial=trial, data=dict(data), key=key)
        found.append(Built(cell, experiment))
    return found


def trial_cells(study: Study, experiments: Experiments, note: Note) -> list[Built]:
    """The runs that tune the variants; none where nothing is tuned."""
    found = []
    for variant in variants_of(study):
        tuning = tuning_for(study, variant)
        if tuning is None:
            continue
        note(f"building {variant}: {len(trials(tuning))} trials")
        for number, chosen in enumerate(trials(tuning)):
            found += _cells(study, experiments, variant, seeds=tuning.seeds, chosen=chosen, trial=number)
    return found


def study_cells(
    study: Study, experiments: Experiments, chosen: Mapping[str, Mapping[str, Any]], note: Note
) -> list[Built]:
    """The runs that count: every variant with every seed.

    Args:
      study: checked.
      experiments: builds them.
      chosen: what tuning chose, by variant.
      note: told what goes on.

    Raises:
      UserError: two variants have the same config, which no comparison could tell apart; or as `Experiments.build`.
    """
    found: list[Built] = []
    for variant in variants_of(study):
        note(f"building {variant}")
        found += _cells(study, experiments, variant, seeds=study.seeds, chosen=chosen.get(variant, {}), trial=None)
    first: dict[str, Cell] = {}
    for cell, _ in found:
        other = first.setdefault(cell.key, cell)
        if other is not cell and not (chosen.get(cell.variant) or chosen.get(other.variant)):
            raise UserError(
                f"the variants {other.variant!r} and {cell.variant!r} have the same config; give one of them a change"
            )
    return found
