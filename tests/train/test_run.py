"""Whole runs: reproducible, resumable to the bit, equal on one device and eight, exact in evaluation."""

import io
import json
import shutil

import jax
import numpy as np
import pytest
import rich.console

from cnn_jax.errors import DivergenceError, UserError
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.figures import confusion_matrix, most_confidently_wrong
from cnn_jax.train.run import build
from cnn_jax.train.run_directory import RunDirectory
from cnn_jax.train.session import evaluate_run, train
from cnn_jax.train.writers import TensorBoard, Terminal, read_rows


def rows_without_times(directory):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(directory / "metrics.jsonl")]


def leaves(experiment, directory, step):
    """Every array of a checkpoint, as bytes by path."""
    checkpoints = Checkpoints(directory / "checkpoints", keep=None)
    restored = checkpoints.restore(step, experiment.abstract_state(), experiment.empty_metrics())
    checkpoints.close()
    found = jax.tree_util.tree_flatten_with_path(jax.device_get(restored[:2]))[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in found}


@pytest.fixture(scope="module")
def finished(session_tiny_config, tmp_path_factory):
    """A finished run in a directory with a space and an umlaut in its name."""
    directory = tmp_path_factory.mktemp("runs") / "fünf runs"
    result = train(session_tiny_config, directory)
    return directory, result


def test_a_run_directory_holds_what_it_promises(finished, session_tiny_config):
    directory, result = finished
    for name in ("config.json", "passport.json", "metrics.jsonl", "report.md", "result.json", "checkpoints", "figures"):
        assert (directory / name).exists(), name
    figures = {path.name for path in (directory / "figures").iterdir()}
    assert figures == {
        "learning_curves.png",
        "learning_rate.png",
        "confusion_matrix.png",
        "most_confidently_wrong.png",
        "first_layer_filters.png",
    }
    assert json.loads((directory / "result.json").read_text(encoding="utf-8")) == result
    assert result["status"] == "completed"
    assert result["steps"] == 8
    assert result["seed"] == 3
    assert len(result["config_sha256"]) == 64
    assert result["wall_seconds"] > 0
    assert result["examples_per_second"] > 0
    assert {"test/accuracy", "test/loss", "validation/accuracy", "test/macro_f1"} <= result["metrics"].keys()
    assert np.sum(result["per_class"]["test/confusion_matrix"]) == 45
    passport = json.loads((directory / "passport.json").read_text(encoding="utf-8"))["sessions"]
    assert len(passport) == 1
    assert {"git", "versions", "hardware", "flags", "data", "seed", "command", "started"} <= passport[0].keys()
    assert passport[0]["data"]["train"]["examples"] == 100
    report = (directory / "report.md").read_text(encoding="utf-8")
    for figure in figures:
        assert f"](figures/{figure})" in report
    for text in (f"{result['metrics']['test/accuracy']:.4f}", "sklearn/digits/test[:45]", result["config_sha256"]):
        assert text in report


@pytest.mark.slow
def test_the_same_config_and_seed_give_the_same_log_and_state(finished, session_tiny_config, tmp_path):
    directory, result = finished
    again = train(session_tiny_config, tmp_path / "again")
    assert rows_without_times(tmp_path / "again") == rows_without_times(directory)
    assert again["metrics"] == result["metrics"]
    experiment = build(session_tiny_config)
    assert leaves(experiment, tmp_path / "again", 8) == leaves(experiment, directory, 8)


@pytest.mark.slow
def test_another_seed_gives_another_run(finished, session_tiny_config, tmp_path):
    directory, _ = finished
    train({**session_tiny_config, "seed": 4}, tmp_path / "other")
    assert rows_without_times(tmp_path / "other") != rows_without_times(directory)


# Checkpoints are at 2, 4, 6 and 8; an epoch is 6.25 steps, the log has lines at 3, 6 and 8, evaluations are at 4 and 8:
# mid-epoch, between log lines, at an evaluation, and at the end.
# Slow tests compile as users do.
@pytest.mark.parametrize("step", [2, *(pytest.param(step, marks=pytest.mark.slow) for step in (4, 6, 8))])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(finished, session_tiny_config, tmp_path, step):
    directory, result = finished
    cut = tmp_path / "cut"
    shutil.copytree(directory, cut)
    # What a kill between this checkpoint and the next leaves: later checkpoints and the result are not there, later log
    # lines are, the last one cut off.
    for later in (cut / "checkpoints").iterdir():
        if int(later.name) > step:
            shutil.rmtree(later)
    shutil.rmtree(cut / "figures")
    for name in ("result.json", "report.md"):
        (cut / name).unlink()
    log = cut / "metrics.jsonl"
    log.write_text(log.read_text(encoding="utf-8")[:-7], encoding="utf-8")

    resumed = train(session_tiny_config, cut, resume=True)
    experiment = build(session_tiny_config)
    assert leaves(experiment, cut, 8) == leaves(experiment, directory, 8)
    if step < 8:
        assert rows_without_times(cut) == rows_without_times(directory)
    assert resumed["metrics"] == result["metrics"]
    assert len(json.loads((cut / "passport.json").read_text(encoding="utf-8"))["sessions"]) == 2


def test_a_finished_run_is_left_as_it_is(finished, session_tiny_config):
    directory, result = finished
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}
    assert train(session_tiny_config, directory, resume=True) == result
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(finished, session_tiny_config, tmp_path):
    directory, _ = finished
    train({**session_tiny_config, "parallel": {"devices": 8}}, tmp_path / "eight")
    one, eight = rows_without_times(directory), rows_without_times(tmp_path / "eight")
    assert [row["step"] for row in one] == [row["step"] for row in eight]
    for a, b in zip(one, eight):
        for name in a:
            if name.endswith("loss"):
                assert abs(a[name] - b[name]) < 1e-5, (a["step"], name)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 10_000])
def test_evaluation_counts_each_example_once(finished, session_tiny_config, batch_size):
    directory, result = finished
    numbers = evaluate_run(directory, split="test", batch_size=batch_size)
    assert numbers["examples"] == 45
    assert numbers["metrics"].keys() == {name for name in result["metrics"] if name.startswith("test/")}
    for name, value in numbers["metrics"].items():
        assert value == pytest.approx(result["metrics"][name], rel=1e-6), name
    # Counts are exact, so what is computed from them is equal to the last bit.
    for name in ("test/accuracy", "test/macro_f1", "test/balanced_accuracy"):
        assert numbers["metrics"][name] == result["metrics"][name]


def test_evaluation_agrees_with_an_independent_count(finished, session_tiny_config):
    directory, result = finished
    experiment = build(session_tiny_config)
    checkpoints = Checkpoints(directory / "checkpoints", keep=None)
    state, _, _ = checkpoints.restore(8, experiment.abstract_state(), experiment.empty_metrics())
    checkpoints.close()
    images = experiment.splits["test"].images.astype(np.float64) / 255.0
    images = ((images - experiment.mean[0]) / experiment.std[0]).astype(np.float32)
    variables = {"params": state.ema["params"], **state.ema["model_state"]}
    logits = np.asarray(experiment.model.apply(variables, jax.numpy.asarray(images), train=False))
    accuracy = np.mean(logits.argmax(axis=1) == experiment.splits["test"].labels)
    assert result["metrics"]["test/accuracy"] == pytest.approx(accuracy)


@pytest.mark.slow
def test_accumulation_in_the_loop_changes_nothing_without_batch_norm(session_tiny_config, tmp_path):
    model = {**session_tiny_config["model"], "norm": "none", "dropout_rate": 0.0}
    logs = []
    for accumulate in (1, 4):
        config = {
            **session_tiny_config,
            "model": model,
            "train": {**session_tiny_config["train"], "accumulate": accumulate, "ema": None},
        }
        train(config, tmp_path / str(accumulate))
        logs.append(rows_without_times(tmp_path / str(accumulate)))
    for one, four in zip(*logs):
        for name, value in one.items():
            assert four[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


@pytest.mark.slow
def test_early_stopping_ends_the_run_and_reports_the_best_checkpoint(session_tiny_config, tmp_path):
    # At a rate this small nothing improves by min_delta after the first evaluation.
    settings = {
        **session_tiny_config["train"],
        "duration": {"steps": 40},
        "evaluate_every": {"steps": 2},
        "early_stopping": {"patience": 2, "min_delta": 0.5},
        "keep_checkpoints": 1,
    }
    config = {**session_tiny_config, "train": settings, "optimizer": {"name": "sgd", "learning_rate": 1e-6}}
    result = train(config, tmp_path / "run")
    assert result["status"] == "early_stopped"
    assert result["evaluated_step"] == 2  # the best is the first evaluation
    assert result["steps"] == 6  # two more without improvement
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert max(row["step"] for row in rows) == 6
    assert sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) == [2, 6]
    first = next(row for row in rows if "validation/accuracy" in row)
    assert result["metrics"]["validation/accuracy"] == first["validation/accuracy"]


def test_a_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(session_tiny_config, tmp_path):
    config = {
        **session_tiny_config,
        "optimizer": {"name": "sgd", "learning_rate": 1e20},
        "schedule": {"name": "step", "boundaries": ({"steps": 100},), "warmup": {"steps": 99}},
        "train": {
            **session_tiny_config["train"],
            "duration": {"steps": 100},
            "save_every": {"steps": 1},
            "log_every": {"steps": 4},
            "ema": None,
        },
    }
    with pytest.raises(DivergenceError, match=r"diverged at step (\d+): loss .*, learning rate .*, gradient norm"):
        train(config, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["status"] == "diverged"
    assert result["metrics"] == {}
    bad = result["steps"]
    assert f"diverged at step {bad}:" in result["message"]
    saved = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert saved == list(range(1, bad)), (saved, result["message"])
    # The last good checkpoint is what evaluation finds without being told.
    assert evaluate_run(tmp_path / "run", split="test")["step"] == bad - 1


def test_the_second_step_compiles_nothing(session_tiny_config):
    experiment = build(session_tiny_config)
    step, state, pending = experiment.compiled_step(), experiment.initial_state(), experiment.empty_metrics()
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        state, pending = step(state, pending, experiment.batch(0))
        assert compiled
        compiled.clear()
        for index in range(1, 4):
            state, pending = step(state, pending, experiment.batch(index))
        assert not compiled
    finally:
        jax.monitoring.clear_event_listeners()


def changed(config, path, value):
    """A copy of a config with one value set."""
    key, _, rest = path.partition(".")
    return {**config, key: changed(config.get(key, {}), rest, value) if rest else value}


BAD_CONFIGS = [
    # (path, value, what the message names)
    ("sed", 3, r"config.sed: unknown key 'sed'; did you mean 'seed'"),
    ("train.acumulate", 3, "did you mean 'accumulate'"),
    ("model.widht", 3, "did you mean 'width'"),
    ("optimizer.momentun", 0.9, "did you mean 'momentum'"),
    ("data.batch_size", "many", r"config.data.batch_size: should be a valid integer, got 'many'"),
    ("data.batch_size", 0, "greater than or equal to 1, got 0"),
    ("optimizer.learning_rate", -1.0, r"config.optimizer.learning_rate: .*greater than 0, got -1.0"),
    ("optimizer.learning_rate", float("nan"), "finite"),
    ("optimizer.learning_rate", 1e39, "should be less than"),
    ("optimizer.momentum", 1.5, "less than 1, got 1.5"),
    ("train.ema.decay", 1.0, "less than 1"),
    ("train.duration", {"steps": 3, "epochs": 1}, "exactly one of steps, epochs, examples"),
    ("train.duration", {"steps": -1}, "greater than or equal to 1"),
    ("model.name", "resnet", r"unknown config.model.name 'resnet'; did you mean"),
    ("model.depth", 9, "depth is 9; it must be 6n"),
    ("model.dropout_rate", 1.5, "dropout_rate"),
    ("task.name", "clasification", "did you mean 'classification'"),
    ("task.loss.name", "softmax", "did you mean 'softmax_cross_entropy'"),
    ("task.class_weights", (1.0, 2.0), "2 values; there are 10 classes"),
    ("task.class_weights", (-1.0,) * 10, "greater than or equal to 0, got -1.0"),
    ("task.class_weights", (0.0,) * 10, "all 0"),
    ("model.kernel_size", 3, "unknown key 'kernel_size'"),
    ("optimizer.name", "adam", r"unknown key 'momentum'.*set config.optimizer=.*whole"),
    ("train.duration", 8, r"should be a duration such as {'steps': 100}, got 8"),
    ("task.loss.label_smoothing", 1.5, "less than or equal to 1, got 1.5"),
    ("train.duration", {"epochs": 1e300}, "the step counter ends at 2,147,483,647"),
    ("data.batch_size", 10**12, "less than 2147483648"),
    ("model", {"name": "classic_stack", "in_channels": 1, "stride": "abc"}, r"config.model.stride: .*got 'abc'"),
    ("data.splits.test", "train[90:110]", "data.splits.train and data.splits.test share examples"),
    ("task.top_k", (11,), "top_k has 11"),
    ("data.name", "digit", "did you mean 'digits'"),
    ("data.source", "keras", "unknown config.data.source 'keras'"),
    ("data.splits.train", "train[7:7]", "is empty"),
    ("data.splits.test", "tset", "did you mean 'test'"),
    ("data.mean", (0.1, 0.2, 0.3), "3 values, the images have 1 channels"),
    ("data.augment", ({"name": "flip"},), "did you mean 'random_flip'"),
    ("schedule.name", "cosin", "did you mean 'cosine'"),
    ("schedule.warmup", {"steps": 8}, "shorter than the 8 steps of training"),
    ("model.num_classes", 5, r"has label \d, outside \[0, 5\)"),
    ("model", {"name": "fcn_resnet50", "in_channels": 1}, r"config.model classifies every pixel, .*\[B, \*space, 10\]"),
    ("model.in_channels", 3, "images have 1 channel.*model.in_channels=1"),
    ("parameter_groups", ({"pattern": ".*bias"},), "no pattern matches"),
    ("parameter_groups", ({"pattern": "nothing"}, {"pattern": ".*"}), "'nothing' matches no parameter"),
    ("parameter_groups", ({"pattern": "("},), "no regular expression"),
    ("train.early_stopping", {"metric": "validation/acc"}, "did you mean 'validation/accuracy'"),
    ("train.steps_per_dispatch", 4, r"steps_per_dispatch 4 needs .*data.resident=true"),
    ("parallel.devices", 9, "has 8 cpu devices"),
    ("train.accumulate", 3, "batch_size 16 cannot be divided over 1 device.* × 3 microbatch.*use 15 or 18"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD_CONFIGS, ids=[f"{p}={v}"[:40] for p, v, _ in BAD_CONFIGS])
def test_bad_input_is_one_line_before_any_step(tiny_config, tmp_path, path, value, message):
    with pytest.raises(UserError, match=message) as caught:
        train(changed(tiny_config, path, value), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_images_too_small_name_the_smallest_size(tiny_config, tmp_path):
    config = {**tiny_config, "model": {"name": "lenet5", "padding": 0}}
    with pytest.raises(UserError, match=r"lenet5 on .*images of 8×8 are too small .* at least 16×16") as caught:
        train(config, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_batch_that_eight_devices_do_not_divide_names_the_nearest(tiny_config, tmp_path):
    config = changed(changed(tiny_config, "parallel.devices", 8), "data.batch_size", 20)
    with pytest.raises(UserError, match=r"batch_size 20 cannot be divided over 8 device.*use 16 or 24"):
        train(config, tmp_path / "run")


def test_a_directory_with_another_config_is_refused_with_the_difference(finished, session_tiny_config):
    directory, _ = finished
    for resume in (True, False):
        with pytest.raises(UserError, match=r"different config .*config.optimizer.learning_rate: 0.05 -> 0.01"):
            train(changed(session_tiny_config, "optimizer.learning_rate", 0.01), directory, resume=resume)


def test_a_directory_that_holds_this_run_asks_for_resume(finished, session_tiny_config):
    directory, _ = finished
    with pytest.raises(UserError, match="--resume"):
        train(session_tiny_config, directory)


def test_a_directory_in_use_is_refused(finished, session_tiny_config):
    directory, _ = finished
    with (
        RunDirectory(directory, build(session_tiny_config).config, resume=True),
        pytest.raises(UserError, match=r"in use by process \d+ on .*, started"),
    ):
        train(session_tiny_config, directory, resume=True)


def test_a_run_that_was_killed_before_its_config_was_written_starts_anew(tiny_config, tmp_path):
    (tmp_path / "passport.json").write_text("{", encoding="utf-8")
    (tmp_path / "config.json.tmp").write_text("{", encoding="utf-8")
    with RunDirectory(tmp_path, build(tiny_config).config, resume=True) as directory:
        assert directory.is_new
        directory.begin({"seed": 3})
    assert json.loads((tmp_path / "passport.json").read_text(encoding="utf-8")) == {"sessions": [{"seed": 3}]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("result.json", "[]", "result.json is damaged: it holds a list"),
        ("result.json", "{", "result.json is damaged"),
        ("result.json", "{}", "result.json is damaged: it has no 'data'"),
        ("metrics.jsonl", "null\n{}\n", "line 1, is damaged"),
        ("passport.json", "{}", "passport.json is damaged: it has no list of sessions"),
        ("config.json", "\x00", "config.json is damaged"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(finished, session_tiny_config, tmp_path, name, text, message):
    shutil.copytree(finished[0], tmp_path / "copy")
    (tmp_path / "copy" / "result.json").unlink()
    (tmp_path / "copy" / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        train(session_tiny_config, tmp_path / "copy", resume=True)
    assert "\n" not in str(caught.value)


def test_a_damaged_line_in_the_middle_of_the_log_is_named(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2\n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 2, is damaged"):
        read_rows(log)
    log.write_text('{"step": 1}\n{"step": 2}\n{"ste', encoding="utf-8")
    assert read_rows(log) == [{"step": 1}, {"step": 2}]


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_devices(finished, session_tiny_config, tmp_path):
    directory, result = finished
    cut = tmp_path / "cut"
    shutil.copytree(directory, cut)
    (cut / "result.json").unlink()
    for later in ("6", "8"):
        shutil.rmtree(cut / "checkpoints" / later)
    resumed = train(changed(session_tiny_config, "parallel.devices", 2), cut, resume=True)
    assert resumed["metrics"]["test/loss"] == pytest.approx(result["metrics"]["test/loss"], abs=1e-5)


def test_reading_checkpoints_leaves_a_save_in_progress_alone(tmp_path):
    state = {"x": jax.numpy.arange(3.0)}
    writer = Checkpoints(tmp_path, keep=1)
    writer.save(1, state, state, Progress())
    writer.wait()
    in_progress = tmp_path / ".saving-2"
    in_progress.mkdir()
    reader = Checkpoints(tmp_path, keep=None)
    assert reader.restore(1, state, state)[0]["x"].tolist() == [0.0, 1.0, 2.0]
    reader.close()
    assert in_progress.exists()
    writer.save(3, state, state, Progress())
    writer.wait()
    writer.prune()
    writer.close()
    # The writer's own next start removes what is left.
    again = Checkpoints(tmp_path, keep=1)
    assert again.steps() == [3]
    again.close()


def test_class_names_that_look_like_formulas_are_drawn(tmp_path):
    names = ["$\\foo$", "a_b", "<b>|"]
    confusion_matrix(np.eye(3, dtype=int), names, "$x").savefig(tmp_path / "a.png")
    images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.array([1, 2, 0])
    most_confidently_wrong(images.__getitem__, labels, np.eye(3), names, "o$").savefig(tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_a_directory_with_other_files_is_refused(tiny_config, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match=r"holds 'thesis.tex' but no run"):
        train(tiny_config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_path_that_is_no_writable_directory_is_refused(tiny_config, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="is not writable"):
            train(tiny_config, path)


@pytest.mark.slow
def test_a_lost_log_is_told_and_the_run_goes_on(finished, session_tiny_config, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "copy")
    for name in ("result.json", "metrics.jsonl"):
        (tmp_path / "copy" / name).unlink()
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "8")
    train(session_tiny_config, tmp_path / "copy", resume=True)
    assert "metrics.jsonl is lost; the curves begin at step 6" in capsys.readouterr().err


@pytest.mark.slow
def test_early_stopping_survives_a_cut_between_the_best_and_the_stop(session_tiny_config, tmp_path):
    settings = {
        **session_tiny_config["train"],
        "duration": {"steps": 40},
        "evaluate_every": {"steps": 2},
        "save_every": {"steps": 1},
        "early_stopping": {"metric": "validation/loss", "mode": "min", "patience": 3, "min_delta": 0.5},
    }
    config = {**session_tiny_config, "train": settings, "optimizer": {"name": "sgd", "learning_rate": 1e-6}}
    whole = train(config, tmp_path / "whole")
    assert (whole["status"], whole["evaluated_step"], whole["steps"]) == ("early_stopped", 2, 8)
    for last in (5, 8):
        cut = tmp_path / f"cut{last}"
        shutil.copytree(tmp_path / "whole", cut)
        (cut / "result.json").unlink()
        for later in (cut / "checkpoints").iterdir():
            if int(later.name) > last:
                shutil.rmtree(later)
        resumed = train(config, cut, resume=True)
        for key in ("status", "evaluated_step", "steps", "metrics"):
            assert resumed[key] == whole[key], key
        assert rows_without_times(cut) == rows_without_times(tmp_path / "whole")


def test_the_best_checkpoint_stays_until_its_successor_is_on_disk(tmp_path):
    state = {"x": jax.numpy.arange(3.0)}
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(2, state, state, Progress(best_step=2))
    checkpoints.save(4, state, state, Progress(best_step=2))
    checkpoints.save(6, state, state, Progress(best_step=6))  # a kill here may leave 6 unfinished
    assert {2, 4} <= set(checkpoints.steps())
    checkpoints.wait()
    checkpoints.prune()
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=1)
    assert again.steps() == [6]
    again.close()


# Orbax leaves the other reads of a failed one behind, and Python tells when it finds them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
def test_evaluating_a_run_whose_training_prunes_takes_the_next_checkpoint(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    restore, asked = Checkpoints.restore, []

    def prune_first(self, step, *templates):
        """What a training does that removes a checkpoint between its being listed and its being read."""
        asked.append(step)
        if len(asked) == 1:
            shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
        return restore(self, step, *templates)

    monkeypatch.setattr(Checkpoints, "restore", prune_first)
    assert evaluate_run(tmp_path / "run", split="test")["step"] == 6
    assert asked == [8, 6]
    asked.clear()
    with pytest.raises(UserError, match="removes its checkpoints while they are read"):
        evaluate_run(tmp_path / "run", split="test", step=4)


def test_other_data_are_refused_on_resuming(finished, session_tiny_config, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    (tmp_path / "copy" / "result.json").unlink()
    passport = json.loads((tmp_path / "copy" / "passport.json").read_text(encoding="utf-8"))
    passport["sessions"][0]["data"]["test"]["sha256"] = "0" * 64
    (tmp_path / "copy" / "passport.json").write_text(json.dumps(passport), encoding="utf-8")
    with pytest.raises(UserError, match="with other content than sklearn/digits/test"):
        train(session_tiny_config, tmp_path / "copy", resume=True)


@pytest.mark.slow
def test_one_session_with_uncommitted_changes_makes_the_result_dirty(finished, session_tiny_config, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    (tmp_path / "copy" / "result.json").unlink()
    passport = json.loads((tmp_path / "copy" / "passport.json").read_text(encoding="utf-8"))
    passport["sessions"][0]["git"] |= {"dirty": True, "commit": "f" * 40}
    (tmp_path / "copy" / "passport.json").write_text(json.dumps(passport), encoding="utf-8")
    result = train(session_tiny_config, tmp_path / "copy", resume=True)
    assert result["dirty"] is True
    assert "f" * 40 in result["commits"]


def test_mean_and_deviation_are_those_of_the_training_images(session_tiny_config):
    experiment = build(session_tiny_config)
    pixels = experiment.splits["train"].images.astype(np.float64) / 255.0
    assert experiment.mean == pytest.approx((pixels.mean(),), rel=1e-12)
    assert experiment.std == pytest.approx((pixels.std(),), rel=1e-9)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_progress_bar_keeps_its_bar_count_and_numbers(width):
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=width, color_system="standard")
    terminal = Terminal(total_steps=64_000, resume_step=0, console=console)
    row = {"train/loss": 0.5545, "train/accuracy": 1.0, "validation/loss": 0.9141, "validation/accuracy": 0.875}
    terminal.write(545, row)
    terminal.close()
    text = console.file.getvalue()
    assert text.rpartition("\r")[2].count("━") >= 12
    assert "545/64000" in text
    assert "loss 0.554/0.914" in text or "loss 0.555/0.914" in text
    if width >= 80:
        assert "accuracy 1.000/0.875" in text


def test_tensorboard_files_hold_the_numbers(tmp_path):
    writer = TensorBoard(tmp_path, resume_step=0)
    writer.write(3, {"train/loss": 0.5, "time": {"seconds": 1.0}})
    writer.close()
    (file,) = tmp_path.glob("events*")
    assert b"train/loss" in file.read_bytes()
