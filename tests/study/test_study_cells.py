"""Cells, keys, groups and plans: what is one run of a study, and what is trained together."""

import json

import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.study import build, plan
from cnn_jax.study.build import Experiments, study_cells, trial_cells
from cnn_jax.study.cell import Cell, Plan, read_plan, write_plan
from cnn_jax.study.code_version import meaning
from cnn_jax.study.groups import groups_of, is_alone, most_together
from cnn_jax.study.plan import estimated_seconds, matrix, measure
from cnn_jax.study.spec import check_study, training_config, variants_of
from cnn_jax.study.tuning import choose, remarks


def cells_of(study: dict, chosen=None):
    checked = check_study(study)
    return study_cells(checked, Experiments(checked), chosen or {}, lambda _: None)


def grouped(study: dict) -> list[set[str]]:
    return [{built.cell.variant for built in group} for group in groups_of(cells_of(study))]


def test_a_cell_is_the_run_of_its_config(tiny_study):
    cells = cells_of(tiny_study)
    assert [(built.cell.variant, built.cell.seed) for built in cells] == [
        (variant, seed) for variant in ("baseline", "slow", "hidden layer") for seed in (0, 1, 2)
    ]
    for built in cells:
        config = built.experiment.config
        assert config.seed == built.cell.seed
        assert config.optimizer["learning_rate"] == (0.02 if built.cell.variant == "slow" else 0.1)
        assert config.model["hidden"] == ((16,) if built.cell.variant == "hidden layer" else ())
    assert len({built.cell.key for built in cells}) == 9
    assert len({built.cell.name for built in cells}) == 9


def keys(study: dict) -> dict[tuple[str, int], str]:
    return {(built.cell.variant, built.cell.seed): built.cell.key for built in cells_of(study)}


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        ("baseline.optimizer.momentum", 0.8, {"baseline", "slow", "hidden layer"}),
        ("variants.slow", {"optimizer.learning_rate": 0.03}, {"slow"}),
        ("baseline.data.splits.train", "train[:158]", {"baseline", "slow", "hidden layer"}),
        ("baseline.train.steps_per_dispatch", 2, set()),  # of the machine
        ("baseline.train.figures", True, set()),
        ("title", "Another", set()),
        ("probes", ({"name": "sparsity"},), {"baseline", "slow", "hidden layer"}),
    ],
)
def test_a_key_changes_with_what_the_numbers_depend_on(tiny_study, path, value, changed):
    before = keys(tiny_study)
    *above, last = path.split(".")
    node = tiny_study
    for name in above:
        node = node[name]
    node[last] = value
    after = keys(tiny_study)
    assert {cell[0] for cell in before if before[cell] != after[cell]} == changed


def test_a_key_changes_with_the_code(tiny_study, monkeypatch):
    before = keys(tiny_study)
    monkeypatch.setattr(build, "code_version", lambda: "another")
    assert not set(before.values()) & set(keys(tiny_study).values())


def test_a_key_changes_with_one_pixel(tiny_study, tmp_path):
    images, labels = np.zeros((20, 4, 4, 1), np.uint8), np.arange(20) % 2
    tiny_study["baseline"]["data"] |= {
        **{"source": "arrays", "name": "set.npz", "directory": str(tmp_path), "mean": (0.5,), "std": (0.5,)},
        "splits": {"train": "train", "test": "test"},
    }
    found = []
    for pixel in (0, 1):
        images[3, 2, 1, 0] = pixel
        np.savez(tmp_path / "set.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
        found.append(keys(tiny_study))
    assert not set(found[0].values()) & set(found[1].values())


def test_the_code_is_what_it_means():
    text = 'def f(x):\n    """Twice."""\n    return 2 * x\n'
    assert meaning(text) == meaning("def f(x):  # two\n    return (2 *\n        x)\n")
    assert meaning(text) != meaning(text.replace("2", "3"))
    assert meaning('"""Only text."""') == meaning("")


def test_runs_that_differ_in_numbers_share_a_program(tiny_study):
    tiny_study["baseline"]["model"] = {"name": "mlp", "hidden": (8,), "in_channels": 1}
    tiny_study["variants"] = {
        "slow": {"optimizer.learning_rate": 0.02},
        "no momentum": {"optimizer.momentum": 0.0},
        "smooth": {"task.loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.1}},
        "smoother": {"task.loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.2}},
        "some dropout": {"model.dropout_rate": 0.1},
        "more dropout": {"model.dropout_rate": 0.5},
        "tanh": {"model.activation": "tanh"},
        "decay": {"optimizer.weight_decay": 1e-3},
        "longer": {"train.duration.steps": 16},
        "other data": {"data.splits.train": "train[40:200]", "data.splits.validation": "train[:40]"},
        "weak noise": {"data.augment": ({"name": "gaussian_noise", "deviation": 0.05},)},
        "strong noise": {"data.augment": ({"name": "gaussian_noise", "deviation": 0.2},)},
    }
    tiny_study["comparisons"] = ({"measure": "test/accuracy", "variant": "slow"},)
    tiny_study["controls"] = ("null", "shuffled labels")
    assert grouped(tiny_study) == [
        {"baseline", "slow", "null"},
        {"no momentum"},
        {"smooth", "smoother"},
        {"some dropout", "more dropout"},
        {"tanh"},
        {"decay"},
        {"longer"},
        {"other data"},
        {"weak noise", "strong noise"},
        {"shuffled labels"},
    ]


def test_early_stopping_is_for_one_run_at_a_time(tiny_study):
    tiny_study["overrides"] = {"train.early_stopping": {"patience": 1}}
    groups = groups_of(cells_of(tiny_study))
    assert all(len(group) == 1 and is_alone(group[0]) for group in groups)
    assert len(groups) == 9


def test_groups_are_sized_to_memory(tiny_study):
    built = cells_of(tiny_study)[0]
    few, many = most_together(built, memory=10**6), most_together(built, memory=10**9)
    assert 1 <= few < many
    assert many == pytest.approx(1000 * few, rel=0.1)
    assert most_together(built, memory=1) == 1


def test_controls_and_factors(tiny_study):
    tiny_study["controls"] = ("null", "shuffled labels")
    study = check_study(tiny_study)
    assert list(variants_of(study)) == ["baseline", "slow", "hidden layer", "null", "shuffled labels"]
    assert training_config(study, "null", seed=1)["seed"] == 1_000_001
    tiny_study["baseline"]["data"]["wrappers"] = {"train": ({"name": "class_subset", "per_class": 5},)}
    wrappers = training_config(check_study(tiny_study), "shuffled labels", seed=0)["data"]["wrappers"]["train"]
    assert [node["name"] for node in wrappers] == ["class_subset", "shuffled_labels"]
    tiny_study |= {"variants": {}, "controls": (), "comparisons": ({"measure": "gap", "variant": "b2"},)}
    tiny_study["factors"] = {
        "a": {"a1": {"optimizer.momentum": 0.5}, "a2": {}},
        "b": {"b1": {}, "b2": {"model.hidden": (4,)}},
    }
    one = check_study({**tiny_study, "design": "one_at_a_time"})
    assert variants_of(one) == {
        "baseline": {"optimizer.momentum": 0.5},
        "b2": {"optimizer.momentum": 0.5, "model.hidden": (4,)},
        "a2": {},
    }
    full = check_study({**tiny_study, "comparisons": ({"measure": "gap", "variant": "a2 b2"},)})
    assert list(variants_of(full)) == ["baseline", "a1 b2", "a2 b1", "a2 b2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": (0, 0)}, "study.seeds (0, 0) has a seed twice"),
        ({"seeds": ()}, "study.seeds"),
        ({"comparisons": ({"measure": "accuracy", "variant": "slow"},)}, "unknown study.comparisons.0.measure"),
        ({"comparisons": ({"measure": "gap", "variant": "slo"},)}, "did you mean 'slow'"),
        ({"comparisons": ({"measure": "gap"},)}, "give either variant or contrast"),
        ({"variants": {"a/b": {}}}, "'a/b' is no name"),
        ({"claims": "x"}, "did you mean 'claim'"),
        ({"comparisons": ({"measure": "gap", "variant": "slow", "against": "slow"},)}, "is compared with itself"),
        ({"variants": {"null": {}, "slow": {}}}, "the name 'null' is taken"),
        ({"variants": {}, "factors": {"a": {"a1": {}, "on": {}}, "b": {"b1": {}, "on": {}}}}, "'on' is taken"),
        ({"tuning": {"grid": {"optimizer.learning_rate": (0.1,)}, "seeds": (2,)}}, "seed 2 is one of study.seeds"),
        ({"factors": {"a": {"a1": {}}}}, "drop one"),
        ({"probes": ({"name": "sparsty"},)}, "did you mean 'sparsity'"),
        ({"variants": {"same": {}, "slow": {}}}, "have the same config"),
        ({"variants": {"slow": {"optimizer.learning_rte": 1.0}}}, "variant 'slow': config.optimizer"),
        ({"overrides": {"data.stream": {}, "data.mean": (0.5,), "data.std": (0.5,)}}, None),
    ],
)
def test_a_study_that_is_wrong_is_one_line(tiny_study, change, message):
    tiny_study["comparisons"] = ({"measure": "test/accuracy", "variant": "slow"},)
    study = {**tiny_study, **change}
    if message is None:
        assert all(is_alone(built) for built in cells_of(study))
        return
    with pytest.raises(UserError) as error:
        cells_of(study)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_trials_are_every_combination_with_their_own_seeds(tiny_study):
    grid = {"optimizer.learning_rate": (0.1, 0.3), "optimizer.momentum": (0.5, 0.9, 0.95)}
    tiny_study["tuning"] = {"grid": grid, "seeds": (7, 8)}
    tiny_study["tuning_of"] = {"slow": {"grid": {"optimizer.momentum": (0.1, 0.2)}, "seeds": (9,)}}
    study = check_study(tiny_study)
    cells = [built.cell for built in trial_cells(study, Experiments(study), lambda _: None)]
    assert [sum(cell.variant == name for cell in cells) for name in variants_of(study)] == [12, 2, 12]
    assert {cell.seed for cell in cells if cell.variant == "slow"} == {9}
    assert len({cell.key for cell in cells}) == 26


@pytest.mark.parametrize(
    ("accuracies", "chosen", "remark"),
    [
        ((0.5, 0.7, 0.6), 0.2, None),
        (
            (0.7, 0.6, 0.5),
            0.1,
            "baseline: tuning chose optimizer.learning_rate=0.1, the end of what it tried (0.1 to 0.4)",
        ),
        (
            (0.5, 0.6, 0.7),
            0.4,
            "baseline: tuning chose optimizer.learning_rate=0.4, the end of what it tried (0.1 to 0.4)",
        ),
        ((0.5, 0.5, 0.5), 0.1, "baseline: all 3 trials of its tuning scored the same; the first one was taken"),
        ((None, 0.5, None), 0.2, None),
        ((None, None, None), 0.1, "baseline: no trial of its tuning ended well; the first one was taken"),
    ],
)
def test_a_choice_and_what_is_to_be_said_of_it(tiny_study, tmp_path, accuracies, chosen, remark):
    grid = {"optimizer.learning_rate": (0.1, 0.2, 0.4)}
    study = check_study({**tiny_study, "tuning": {"grid": grid, "seeds": (7,)}})
    cells = []
    for number, accuracy in enumerate(accuracies):
        rate = grid["optimizer.learning_rate"][number]
        cell = Cell(
            variant="baseline", seed=7, chosen={"optimizer.learning_rate": rate}, trial=number, data={}, key="0"
        )
        cells.append(cell)
        metrics = {"validation/accuracy": accuracy} if accuracy is not None else {}
        cell.folder(tmp_path).mkdir(parents=True)
        text = json.dumps({"status": "completed" if metrics else "diverged", "metrics": metrics})
        (cell.folder(tmp_path) / "result.json").write_text(text, encoding="utf-8")
    assert choose(study, cells, tmp_path) == {"baseline": {"optimizer.learning_rate": chosen}}
    found = remarks(study, cells, tmp_path)
    assert [text.startswith(remark or "") for text in found] == [True] * (remark is not None)


def test_a_plan_is_what_is_written(tiny_study, tmp_path):
    cells = tuple(built.cell for built in cells_of(tiny_study, {"slow": {"optimizer.momentum": 0.5}}))
    written = Plan(cells=cells, reference="configs/studies/x.py", sha256="0", mode="vmap")
    write_plan(tmp_path / "ä b", written)
    assert read_plan(tmp_path / "ä b") == written
    (tmp_path / "ä b" / "plan.json").write_text(json.dumps({"cells": [{"variant": 3}]}), encoding="utf-8")
    with pytest.raises(UserError, match=r"plan\.json"):
        read_plan(tmp_path / "ä b")


@pytest.mark.slow
def test_a_plan_measures_a_step(tiny_study, tmp_path, monkeypatch):
    cells = cells_of(tiny_study)
    rows = matrix(check_study(tiny_study), cells, tmp_path)
    assert [(row.variant, row.runs, row.left, row.program, row.parameters) for row in rows] == [
        ("baseline", 3, 3, 1, 650),
        ("slow", 3, 3, 1, 650),
        ("hidden layer", 3, 3, 2, 64 * 16 + 16 + 16 * 10 + 10),
    ]
    assert rows[0].macs == 640
    measured = measure(cells)
    assert (measured.together, measured.mode) == (None, "sequential")  # compiling another takes longer than training
    monkeypatch.setattr(plan, "WORTH", 0)
    measured = measure(cells)
    assert measured.variant in ("baseline", "slow")
    assert 0 < measured.in_turn < 1
    assert measured.together is not None
    assert measured.mode == ("vmap" if measured.together < 0.95 * measured.in_turn else "sequential")
    assert measure(cells, mode="sequential").mode == "sequential"
    one, four = (estimated_seconds(cells, measured, tmp_path, workers=count) for count in (1, 4))
    assert four == pytest.approx(one / 4)
