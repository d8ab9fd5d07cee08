"""The studies of the textbook's claims: every file loads, and says what it is said to compare."""

import functools
import itertools
import pathlib

import numpy as np
import pytest

from cnn_jax.data.sources import Source
from cnn_jax.errors import UserError
from cnn_jax.methods.summarize import summarize
from cnn_jax.study.probes import check_probes
from cnn_jax.study.spec import BASELINE, load_study, training_config, trials, tuning_for, variants_of
from cnn_jax.study.stored import read_study
from cnn_jax.train.run import build, build_model

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs" / "studies"
CLAIMS = (
    *("c01", "c02", "c03", "c04", "c05", "c06", "c07", "c08", "c09", "c10"),
    *("c12", "c13", "c14", "c15", "c16", "c17", "c19", "c21", "c22", "c23", "c24", "c25"),
    *("c30", "c32", "c37", "c38", "c39", "c40"),
)
FILES = {file.stem.partition("_")[0]: file for file in sorted(FOLDER.glob("*.py"))}
WITH_FULL_SCALE = ("c07", "c14")
REFERENCES = [f"{claim}:{scale}" for claim in CLAIMS for scale in ("small", "full")[: 1 + (claim in WITH_FULL_SCALE)]]
KEPT = sorted(path.parent for path in (FOLDER.parents[1] / "experiments" / "results").glob("c*/study.json"))
FAST = ("c05:small", "c30:small")
BUILT = [pytest.param(reference, marks=[] if reference in FAST else [pytest.mark.slow]) for reference in REFERENCES]
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
STORED = {
    *("test/accuracy", "test/loss", "test/error", "train/accuracy", "train/loss", "validation/accuracy"),
    *("parameters", "multiply_accumulates", "seconds", "examples_per_second", "steps", "diverged"),
}


@functools.cache
def study_of(reference):
    claim, _, scale = reference.partition(":")
    return load_study(f"{FILES[claim]}:{scale}")


def test_each_claim_has_one_file():
    assert tuple(FILES) == CLAIMS
    assert len(list(FOLDER.glob("*.py"))) == len(CLAIMS)


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_study_is_accepted(reference):
    study = study_of(reference)
    assert f"{study.id}:{study.scale}" == reference
    assert len(study.seeds) >= 5
    assert all([study.title, study.source, study.notes])
    assert study.claim.endswith(".")
    assert any(comparison.primary for comparison in study.comparisons)
    assert all(comparison.smallest > 0 for comparison in study.comparisons if comparison.primary)


@pytest.mark.parametrize("folder", KEPT, ids=[folder.name for folder in KEPT])
def test_what_is_kept_is_the_study_that_its_file_describes(folder):
    kept = read_study(folder)
    described = study_of(f"{kept.id}:{kept.scale}")
    assert variants_of(kept).keys() == variants_of(described).keys()
    for name in variants_of(kept):
        assert training_config(kept, name, seed=0) == training_config(described, name, seed=0), name
    for part in ("seeds", "claim", "measures", "comparisons", "probes", "tuning", "tuning_of", "controls", "interval"):
        assert getattr(kept, part) == getattr(described, part), part


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_unknown_scale_is_refused(claim):
    known = "small, full" if claim in WITH_FULL_SCALE else "small$"
    with pytest.raises(UserError, match=f"scale 'large'; known: {known}"):
        load_study(f"{FILES[claim]}:large")


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_number_is_stored(reference):
    study = study_of(reference)
    probes = {node["name"] for node in check_probes(study.probes)}
    for name, measure in study.measures.items():
        for number in () if measure.steps_to else (measure.of or {name: 1.0}):
            assert number in STORED or number.partition("/")[0] in probes, number
            if number.startswith("train/"):
                assert training_config(study, BASELINE, seed=0)["train"].get("evaluate_training") is True


def leaves(config, path=""):
    """Dotted path to value, for everything but dictionaries."""
    if not isinstance(config, dict):
        return {path: config}
    return {key: value for name, node in config.items() for key, value in leaves(node, f"{path}.{name}").items()}


@pytest.mark.parametrize("reference", REFERENCES)
def test_variants_differ_in_what_they_assign(reference):
    study = study_of(reference)
    configs = {name: training_config(study, name, seed=0) for name in variants_of(study)}
    base = leaves(configs[BASELINE])
    for name, assignments in variants_of(study).items():
        if name in study.controls:
            continue  # they are the baseline by what they are
        own = leaves(configs[name])
        changed = {path for path in base.keys() | own.keys() if base.get(path) != own.get(path)}
        assert all(any(path.startswith(f".{key}") for key in assignments) for path in changed), name
        # What is assigned and is the baseline's already is no change, and should not be written.
        for key in assignments if not study.factors else ():
            assert any(path.startswith(f".{key}") for path in changed) or name in study.tuning_of, (name, key)
    untuned = [config for name, config in configs.items() if name not in study.tuning_of]
    assert all(one != other for one, other in itertools.combinations(untuned, 2))


def noise_of(config):
    """A data set of the right shape, and the config with splits that fit it."""
    shape, noise = SHAPES[config["data"]["name"]], np.random.default_rng(0)
    source = Source(
        name="noise",
        class_names=tuple("0123456789"),
        sizes={"train": 100, "test": 100},
        load_range=lambda _, start, stop: (
            noise.integers(0, 256, (stop - start, *shape), np.uint8),
            np.arange(start, stop, dtype=np.int32) % 10,
        ),
    )
    splits = {"train": "train[:40]", "validation": "train[40:80]", "test": "test[:40]"}
    data = {**config["data"], "splits": {name: splits[name] for name in config["data"]["splits"]}}
    wrappers = {
        split: tuple({**node, "per_class": 2} if "per_class" in node else node for node in nodes)
        for split, nodes in data.get("wrappers", {}).items()
    }
    data |= {"wrappers": wrappers, "batch_size": 8, "evaluation_batch_size": 8}
    return source, {**config, "data": data, "parallel": {"devices": 1}}


@pytest.mark.parametrize("reference", BUILT)
def test_every_variant_builds_on_noise_of_its_size(reference):
    study = study_of(reference)
    for name in variants_of(study):
        tuning = tuning_for(study, name)
        source, config = noise_of(training_config(study, name, seed=0, chosen=trials(tuning)[-1] if tuning else None))
        experiment = build(config, source=source)
        train = experiment.config.train
        assert experiment.plan.total > 0
        assert experiment.config.data.resident
        assert not train.figures
        if study.scale == "small":
            # One program for all dispatches, and a learning curve of about ten points.
            lengths = (experiment.plan.total, experiment.plan.log_every)
            assert all(length % train.steps_per_dispatch == 0 for length in lengths), name
            assert 6 <= experiment.plan.total / experiment.plan.log_every <= 12, name


@functools.cache
def totals_of(reference, variant):
    """Parameters and multiply-accumulates of a variant's network on images of its size."""
    config = training_config(study_of(reference), variant, seed=0)
    shape = SHAPES[config["data"]["name"]]
    resized = [node["size"] for node in config["data"].get("transforms", {}).get("train", ()) if "size" in node]
    _, model = build_model(config["model"], num_classes=10)
    return summarize(model, (*resized * 2, shape[-1]) if resized else shape).totals


def test_an_mlp_of_equal_parameters_and_a_wide_one():
    # (9 * 1 + 1) * 8 + (9 * 8 + 1) * 17 + (5 * 5 * 17 + 1) * 10, and (784 + 1) * h + (h + 1) * 10
    counts = [totals_of("c01:small", name).parameters for name in (BASELINE, "cnn", "mlp 256")]
    assert counts == [5575, 5581, 203_530]


def test_separable_convolutions_are_compared_at_equal_cost():
    full, narrow, wide = (totals_of("c24:small", name).macs for name in (BASELINE, "separable", "separable wide"))
    assert wide == pytest.approx(full, rel=0.03)
    assert narrow < full / 4


def test_bottlenecks_are_compared_at_equal_cost_too():
    basic, narrow, equal = (totals_of("c23:small", name) for name in (BASELINE, "bottleneck 32", "bottleneck 56"))
    assert equal.macs == pytest.approx(basic.macs, rel=0.06)
    assert narrow.parameters < basic.parameters / 3


EQUAL_PARAMETERS = ("c02:small", "c13:small", "c16:small", "c17:small", "c21:small", "c22:small", "c39:small")


@pytest.mark.parametrize("reference", EQUAL_PARAMETERS)
def test_what_is_no_question_of_size_has_equal_parameters(reference):
    same = {
        "c02:small": (BASELINE, "cnn permuted"),  # the other network is another one
        "c16:small": ("max", "average", "stride"),  # without pools the linear layer sees all of 28×28
    }.get(reference, tuple(variants_of(study_of(reference))))
    assert len({totals_of(reference, name).parameters for name in same}) == 1


def test_published_sizes_at_full_scale():
    # He et al. 2016 with option A, Springenberg et al. 2015: numbers.md
    assert totals_of("c07:full", BASELINE).parameters == 269_722
    assert totals_of("c07:full", "residual 20 layers").parameters == 269_722
    counts = {name: totals_of("c14:full", name).parameters for name in variants_of(study_of("c14:full"))}
    models = {BASELINE: 954_730, "strided": 954_730, "conv+pool": 1_369_738, "all convolutional": 1_369_738}
    assert counts == models


def test_the_recipe_of_he_et_al_on_all_images():
    study = study_of("c07:full")
    for name in variants_of(study):
        config = training_config(study, name, seed=0)
        assert config["train"]["duration"] == {"steps": 64_000}
        assert config["schedule"]["boundaries"] == ({"steps": 32_000}, {"steps": 48_000})
        assert config["schedule"].get("warmup") == ({"steps": 400} if "110" in name else None)
        assert config["optimizer"] == {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "l2": 1e-4}
        assert config["data"]["splits"] == {"train": "train", "test": "test"}
    assert study.seeds == (0, 1, 2, 3, 4)


SLOPES = [
    ("c12:small", lambda name: 3 + 0.5 * np.log2(8 if name == BASELINE else int(name.split()[1])), 0.5),
    ("c32:small", lambda name: np.log((80 if name == BASELINE else int(name.split()[0])) ** -0.25), -0.25),
]


@pytest.mark.parametrize(("reference", "value", "slope"), SLOPES)
def test_a_trend_is_the_slope_of_a_line(reference, value, slope):
    trends = [comparison for comparison in study_of(reference).comparisons if len(comparison.contrast) > 2]
    assert trends
    for trend in trends:
        assert set(trend.contrast) == set(variants_of(study_of(reference)))
        assert sum(weight * value(name) for name, weight in trend.contrast.items()) == pytest.approx(slope)
        assert sum(trend.contrast.values()) == pytest.approx(0)


def test_a_difference_of_differences_ignores_what_both_have():
    (comparison,) = (c for c in study_of("c02:small").comparisons if c.primary and len(c.contrast) == 4)
    accuracies = {BASELINE: 0.9, "cnn permuted": 0.7, "mlp natural": 0.8, "mlp permuted": 0.75}
    drop = sum(weight * accuracies[name] for name, weight in comparison.contrast.items())
    assert drop == pytest.approx(0.2 - 0.05)


def test_every_optimizer_is_tuned_alike():
    study = study_of("c30:small")
    assert set(study.tuning_of) == {"adam untuned"}
    assert study.tuning.grid.keys() == {"optimizer.learning_rate"}
