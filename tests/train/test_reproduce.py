"""A run can be computed again to the bit, and one changed byte of log, config, data or code is found and named."""

import functools
import json
import shutil

import numpy as np
import PIL.Image
import pytest

from cnn_jax.errors import DivergenceError, UserError
from cnn_jax.train import session
from cnn_jax.train.compare_passports import compare_passports
from cnn_jax.train.compare_traces import first_difference, largest_differences
from cnn_jax.train.config import to_plain
from cnn_jax.train.passport import PACKAGE, digest_of_files, make_passport
from cnn_jax.train.program_record import program_record
from cnn_jax.train.reproduce import reproduce
from cnn_jax.train.run import build
from cnn_jax.train.session import train, train_many
from cnn_jax.train.writers import read_rows


def trained(config, directory, **options):
    """A run whose passport has its config."""
    with pytest.MonkeyPatch.context() as patch:
        passport = functools.partial(make_passport, config=to_plain(build(config).config))
        patch.setattr(session, "make_passport", passport)
        return train(config, directory, **options)


def edit(path, change):
    """Change a JSON file in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def first_session(change):
    """An edit of a passport's first session."""
    return lambda passport: change(passport["sessions"][0])


def lines(outcome):
    """What differs, for people."""
    return [str(change) for change in outcome.changes]


@pytest.fixture(scope="module")
def config(session_tiny_config):
    """A network that compiles fast, with BatchNorm, dropout, augmentation, momentum and averages."""
    model = {"name": "classic_stack", "in_channels": 1, "channels": (4,), "dense": (8,), "padding": "same"}
    train = {**session_tiny_config["train"], "figures": False}
    return {**session_tiny_config, "model": {**model, "norm": "batch", "dropout_rate": 0.2}, "train": train}


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A finished run: lines at 3, 6 and 8, evaluations at 4 and 8."""
    directory = tmp_path_factory.mktemp("runs") / "finished"
    trained(config, directory)
    return directory


@pytest.fixture
def run(finished, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_is_reproduced_to_the_bit_and_left_as_it_is(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    outcome = reproduce(finished)
    assert outcome.difference is None
    assert (outcome.lines, outcome.step, outcome.equal_until) == (5, 8, 8)
    assert lines(outcome) == []
    assert not outcome.unknown
    assert outcome.report() == ["equal: 5 lines up to step 8, bit for bit"]
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_at_least_one_line_is_compared(finished):
    outcome = reproduce(finished, steps=1)
    assert (outcome.lines, outcome.step) == (1, 3)
    assert outcome.notes == ["--steps=1 is raised to 3, the step of the first line"]
    assert reproduce(finished, steps=5).step == 4


def test_one_changed_digit_of_the_log_is_told_with_its_step(run):
    log = run / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rows[2]["train/loss"] = np.nextafter(rows[2]["train/loss"], 9.0)
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    outcome = reproduce(run)
    assert (outcome.difference.step, outcome.equal_until, outcome.lines) == (6, 4, 2)
    report = "\n".join(outcome.report())
    assert report.startswith("differs at step 6; equal until step 4")
    assert "  train/loss: " in report
    assert "train/accuracy" not in report
    assert "nothing that the passport records differs" in report
    assert json.loads(json.dumps(outcome.as_json()))["difference"]["step"] == 6


@pytest.mark.parametrize(("line", "step"), [(0, 3), (1, 4), (4, 8)])
def test_a_line_that_is_missing_is_told(run, line, step):
    log = run / "metrics.jsonl"
    kept = log.read_text(encoding="utf-8").splitlines()
    del kept[line]
    log.write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert reproduce(run).difference.step == step


def test_an_edited_config_is_named_key_by_key(run):
    edit(run / "config.json", lambda config: config["optimizer"].update(learning_rate=0.051))
    outcome = reproduce(run)
    assert lines(outcome) == ["config.optimizer.learning_rate: 0.05 -> 0.051"]
    assert outcome.difference.step == 3


def test_an_edit_that_changes_no_number_is_told_too(run):
    edit(run / "config.json", lambda config: config["train"].update(keep_checkpoints=101))
    outcome = reproduce(run, steps=3)
    assert outcome.difference is None
    assert "although this differs (then -> now):" in outcome.report()
    assert lines(outcome) == ["config.train.keep_checkpoints: 100 -> 101"]


def test_without_a_config_in_the_passport_the_digest_of_the_result_is_compared(run):
    old = ("config", "config_sha256", "source")
    edit(run / "passport.json", first_session(lambda passport: [passport.pop(key) for key in old]))
    outcome = reproduce(run, steps=3)
    assert outcome.difference is None
    assert lines(outcome) == []
    assert outcome.unknown == ["digests of the source files"]
    edit(run / "config.json", lambda config: config.update(seed=4))
    (change,) = reproduce(run, steps=3).changes
    assert change.what == "config, by its digest"
    (run / "result.json").unlink()
    assert "the config that the run began with" in reproduce(run, steps=3).unknown


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_changed_byte_of_the_data_is_named_by_its_split(config, tmp_path, split):
    generator = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", 64), ("test", 32)):
        arrays[f"{name}_images"] = generator.integers(0, 256, (count, 8, 8), np.uint8)
        arrays[f"{name}_labels"] = np.arange(count) % 10
    np.savez(tmp_path / "data.npz", **arrays)
    data = {"source": "arrays", "name": "data.npz", "directory": str(tmp_path), "batch_size": 32}
    trained({**config, "data": {**data, "splits": {"train": "train", "test": "test"}}}, tmp_path / "run")
    (tmp_path / "moved").mkdir()
    np.savez(tmp_path / "moved" / "data.npz", **arrays)
    assert lines(reproduce(tmp_path / "run", data_directory=str(tmp_path / "moved"))) == []
    arrays[f"{split}_images"][3, 4, 4] ^= 1
    np.savez(tmp_path / "data.npz", **arrays)
    outcome = reproduce(tmp_path / "run")
    assert [change.what for change in outcome.changes] == [f"data.{split}.sha256"]
    # The test split is not trained on: the log is equal, and still the change is told.
    assert (outcome.difference is None) == (split == "test")


def test_one_changed_byte_of_the_source_is_named_by_its_file(tmp_path):
    copy = shutil.copytree(PACKAGE, tmp_path / "cnn_jax", ignore=shutil.ignore_patterns("__pycache__"))
    before = digest_of_files(copy)
    assert before == digest_of_files(PACKAGE)
    assert {"cnn_jax/train/loop.py", "cnn_jax/weights/pretrained.json"} <= before["files"].keys()
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "loop.cpython-311.pyc").write_bytes(b"compiled")
    (copy / ".loop.py.swp").write_bytes(b"an editor's")
    assert digest_of_files(copy) == before
    for name in ("train/loop.py", "weights/pretrained.json"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-1] + b" ")
        after = digest_of_files(copy)
        assert after["sha256"] != before["sha256"]
        found = compare_passports({"source": before}, {"source": after}).changes
        assert [change.what for change in found] == [f"code.cnn_jax/{name}"]
        (copy / name).write_bytes(content)


@pytest.mark.parametrize(
    ("section", "key", "value", "line"),
    [
        ("versions", "jax", "0.1", "versions.jax: 0.1 -> "),
        ("flags", "XLA_FLAGS", "--xla", "flags.XLA_FLAGS: --xla -> "),
        ("flags", "NPROC", "3", "flags.NPROC: 3 -> absent"),
        ("hardware", "device", "TPU v9", "hardware.device: TPU v9 -> "),
        ("hardware", "cores", 96, "hardware.cores: 96 -> "),
        ("hardware", "instructions", "avx512f", "hardware.instructions: avx512f -> "),
        ("git", "commit", "abc", "code.commit: abc -> "),
        ("source", "files", {"cnn_jax/old.py": "0"}, "code.cnn_jax/old.py: 0 -> absent"),
    ],
)
def test_what_differs_in_the_environment_is_named(finished, section, key, value, line):
    now = json.loads((finished / "passport.json").read_text(encoding="utf-8"))["sessions"][0]
    then = {**now, section: {**now[section], key: value}, "started": "long ago"}
    compared = compare_passports(then, now)
    found = [str(change) for change in compared.changes]
    assert any(each.startswith(line) for each in found), found
    assert len(found) == 1 or key == "files"
    assert [change.what for change in compared.aside] == ["started"]


def test_an_environment_that_differs_is_told_though_the_log_is_equal(run):
    edit(run / "passport.json", first_session(lambda passport: passport["versions"].update(jax="0.1")))
    edit(run / "passport.json", first_session(lambda passport: passport["hardware"].pop("runtime")))
    outcome = reproduce(run, steps=3)
    assert outcome.difference is None
    assert lines(outcome)[0].startswith("versions.jax: 0.1 -> ")
    assert outcome.unknown == ["hardware.runtime"]


def test_a_resumed_run_is_reproduced_from_its_first_session(run, config):
    for later in (run / "checkpoints").iterdir():
        if later.name in ("4", "6", "8"):
            shutil.rmtree(later)
    for name in ("result.json", "report.md"):
        (run / name).unlink()
    trained(config, run, resume=True)
    edit(run / "passport.json", lambda passport: passport["sessions"][1]["versions"].update(jax="0.1"))
    outcome = reproduce(run)
    assert outcome.difference is None
    assert outcome.lines == 5
    assert len(outcome.notes) == 1
    assert outcome.notes[0].startswith("session 2 of the run: versions.jax: ")


def test_a_run_that_diverged_is_reproduced_up_to_its_end(config, tmp_path):
    diverging = {
        **config,
        "optimizer": {"name": "sgd", "learning_rate": 1e20},
        "schedule": {"name": "step", "boundaries": ({"steps": 100},), "warmup": {"steps": 99}},
        "train": {**config["train"], "duration": {"steps": 100}, "log_every": {"steps": 50}, "ema": None},
    }
    with pytest.raises(DivergenceError) as error:
        trained(diverging, tmp_path / "run")
    outcome = reproduce(tmp_path / "run", steps=99)
    assert outcome.difference is None
    assert outcome.step == error.value.step
    edit(tmp_path / "run" / "result.json", lambda result: result.update(steps=result["steps"] + 1))
    assert reproduce(tmp_path / "run", steps=99).difference.step == error.value.step


def test_a_run_that_went_on_with_reduced_rates_is_compared_up_to_where_it_went_back_to(run):
    edit(run / "result.json", lambda result: result.update(reduced_at=[6, 8]))
    outcome = reproduce(run)  # saves are at 2 and 4
    assert (outcome.difference, outcome.step) == (None, 4)
    assert "diverged at step 6" in outcome.notes[0]
    edit(run / "result.json", lambda result: result.update(reduced_at=[2]))
    with pytest.raises(UserError, match=r"diverged at step 2, and has no line from before"):
        reproduce(run)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sequential", "vmap"])
def test_runs_that_shared_a_program_are_reproduced_by_the_same_program(config, tmp_path, mode):
    vary = {"seed": (3, 4, 5), "optimizer": {"learning_rate": (0.05, 0.02, 0.05)}}
    settings = {**config["train"], "steps_per_dispatch": 2, "log_every": {"steps": 2}}
    together = {**config, "train": settings, "runs": {"vary": vary, "mode": mode}, "parallel": {"devices": 1}}
    train_many(together, tmp_path / "many")
    directories = sorted(path for path in (tmp_path / "many").iterdir() if path.is_dir())
    experiments = [build(json.loads((path / "config.json").read_text(encoding="utf-8"))) for path in directories]
    for index, directory in enumerate(directories):
        record = program_record(experiments, experiments, index, mode=mode, devices=1)
        edit(directory / "passport.json", first_session(functools.partial(dict.update, program=record)))
        outcome = reproduce(directory)
        assert outcome.difference is None, outcome.report()
        assert outcome.step == 8


@pytest.mark.slow
def test_a_run_that_shared_its_program_with_other_seeds_needs_no_record(config, tmp_path):
    settings = {**config["train"], "steps_per_dispatch": 2}
    train_many({**config, "train": settings, "runs": {"vary": {"seed": (3, 4)}}}, tmp_path / "many")
    edit(
        tmp_path / "many" / "seed=4" / "passport.json",
        first_session(lambda passport: passport.pop("program", None)),
    )
    outcome = reproduce(tmp_path / "many" / "seed=4")
    assert outcome.difference is None, outcome.report()
    assert "does not say which program" in outcome.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_dispatch", [1, 4])
def test_a_run_with_its_split_on_the_device_is_reproduced(config, tmp_path, steps_per_dispatch):
    data, settings = {**config["data"], "resident": True}, config["train"]
    settings = {**settings, "steps_per_dispatch": steps_per_dispatch}
    trained({**config, "data": data, "train": settings}, tmp_path / "run")
    assert reproduce(tmp_path / "run").difference is None


@pytest.mark.slow
def test_a_streamed_run_is_reproduced_and_one_changed_image_is_named(config, tmp_path):
    generator = np.random.default_rng(0)
    for index in range(48):
        file = tmp_path / "digits" / "train" / str(index % 3) / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(file)
    data = {"source": "folder", "name": "digits", "directory": str(tmp_path), "batch_size": 16, "channels": 1}
    data |= {"mean": (0.5,), "std": (0.3,), "splits": {"train": "train"}, "stream": {"workers": 0}}
    trained({**config, "data": data}, tmp_path / "run")
    outcome = reproduce(tmp_path / "run")
    assert outcome.difference is None
    assert lines(outcome) == []
    PIL.Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(file)
    outcome = reproduce(tmp_path / "run")
    assert [change.what for change in outcome.changes] == ["data.train.sha256"]
    assert outcome.difference is not None


def test_bad_input_is_a_user_error(run, tmp_path):
    with pytest.raises(UserError, match="--steps is 0; give at least 1"):
        reproduce(run, steps=0)
    with pytest.raises(UserError, match=r"nowhere/config.json does not exist"):
        reproduce(tmp_path / "nowhere")
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="has no line yet"):
        reproduce(run)
    edit(run / "passport.json", lambda passport: passport.update(sessions=[]))
    with pytest.raises(UserError, match="has no list of sessions"):
        reproduce(run)
    edit(run / "config.json", lambda config: config.update(sed=1))
    edit(run / "passport.json", lambda passport: passport.update(sessions=[{}]))
    with pytest.raises(UserError, match=r"no config of this version.*did you mean 'seed'"):
        reproduce(run)


@pytest.mark.parametrize("program", [1, {}, {"mode": "vmap", "devices": 1, "place": 3, "runs": [{}], "among": [{}]}])
def test_a_damaged_record_of_the_program_is_a_user_error(run, program):
    edit(run / "passport.json", first_session(lambda passport: passport.update(program=program)))
    with pytest.raises(UserError, match=r"passport.json is damaged: .*'program'"):
        reproduce(run)


def test_an_older_config_is_completed_and_that_is_told(run):
    edit(run / "config.json", lambda config: config.pop("parallel"))
    edit(run / "passport.json", first_session(lambda passport: passport["config"].pop("parallel")))
    edit(run / "passport.json", first_session(lambda passport: passport.update(hardware={"devices": 1})))
    outcome = reproduce(run, steps=3)
    assert outcome.difference is None
    assert [change.what for change in outcome.changes] == ["config, as this code reads it.parallel"]


def test_two_logs_are_compared_number_by_number(finished):
    rows = read_rows(finished / "metrics.jsonl")
    assert first_difference(rows, rows) is None
    assert largest_differences(rows, rows) == []
    other = [{**row, "train/loss": row["train/loss"] + row["step"]} if "train/loss" in row else row for row in rows]
    assert first_difference(rows, other).step == 3
    (largest,) = largest_differences(rows, other)
    assert (largest.metric, largest.step, largest.differing, largest.compared) == ("train/loss", 8, 3, 3)
    assert first_difference(rows, rows[:-1]).report()[0].startswith("the second has no line with validation/loss")
