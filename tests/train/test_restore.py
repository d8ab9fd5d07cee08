"""Where runs go on after what can happen to their checkpoints: killed renamings, damage in arrays alone, groups."""

import errno
import json
import shutil
import subprocess
import sys

import jax.numpy as jnp
import pytest

from cnn_jax.errors import StorageError, UserError
from cnn_jax.train import manifest as module
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.checkpoint_arrays import read_arrays
from cnn_jax.train.manifest import MANIFEST, _encode
from cnn_jax.train.session import train, train_many
from cnn_jax.train.writers import read_rows

STATE, METRICS = {"x": jnp.arange(3.0)}, {"n": jnp.float32(0)}


@pytest.fixture(scope="module")
def short_config(session_tiny_config):
    settings = {**session_tiny_config["train"], "duration": {"steps": 12}, "save_every": {"steps": 4}, "figures": False}
    settings |= {"evaluate_every": {"steps": 4}, "log_every": {"steps": 4}, "ema": None}
    return {
        **session_tiny_config,
        "model": {"name": "mlp", "hidden": (), "in_channels": 1},
        "data": {**session_tiny_config["data"], "augment": ()},
        "train": settings,
    }


@pytest.fixture(scope="module")
def finished(short_config, tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "run"
    train(short_config, directory)
    return directory


def cut(finished, tmp_path):
    """The run as a kill before its result leaves it."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return tmp_path / "run"


def reseal(folder, change):
    """Change a manifest so that its own digest fits: files are what it says, arrays are not."""
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["content"]
    change(content)
    (folder / MANIFEST).write_bytes(_encode(content))


def test_arrays_that_are_not_what_was_saved_are_gone_back_from_too(finished, short_config, tmp_path, capsys):
    run = cut(finished, tmp_path)

    def change(content):
        content["arrays"]["state"]["params/head/output/bias"]["sha256"] = "0" * 64

    reseal(run / "checkpoints" / "12", change)
    train(short_config, run, resume=True)
    shown = capsys.readouterr().err
    assert "checkpoint 12 is damaged: " in shown
    assert "the array params/head/output/bias is not what was written" in shown
    assert "training goes on from step 8: steps 9 to 12 are trained again" in shown
    ours, whole = (read_arrays(path / "checkpoints" / "12") for path in (run, finished))
    assert all(ours[path].tobytes() == whole[path].tobytes() for path in whole)


def test_a_folder_under_the_name_of_another_step_is_gone_back_from(finished, short_config, tmp_path, capsys):
    run = cut(finished, tmp_path)
    shutil.rmtree(run / "checkpoints" / "12")
    (run / "checkpoints" / "8").rename(run / "checkpoints" / "12")
    train(short_config, run, resume=True)
    assert "checkpoint 12 in" in (shown := capsys.readouterr().err)
    assert "it is the checkpoint of step 8" in shown
    ours, whole = (read_arrays(path / "checkpoints" / "12") for path in (run, finished))
    assert all(ours[path].tobytes() == whole[path].tobytes() for path in whole)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("files"),
        lambda content: content.update(files={"../../../etc/hostname": [1, "0"]}),
        lambda content: content.update(arrays=3),
        lambda content: content["arrays"]["state"]["step"].update(shape="wide"),
        lambda content: content["arrays"]["state"]["step"].update(dtype="no type"),
    ],
)
def test_a_manifest_that_says_nonsense_is_damage(finished, short_config, tmp_path, capsys, change):
    run = cut(finished, tmp_path)
    reseal(run / "checkpoints" / "12", change)
    train(short_config, run, resume=True)
    assert f"checkpoint 12 is damaged: {MANIFEST} does not say what a manifest says" in capsys.readouterr().err


def test_progress_of_a_later_version_is_refused(finished, short_config, tmp_path):
    run = cut(finished, tmp_path)
    reseal(run / "checkpoints" / "12", lambda content: content["progress"].update(mood="good"))
    with pytest.raises(UserError, match=r"the checkpoint of step 12 is of another cnn_jax: .*'mood'"):
        train(short_config, run, resume=True)


def test_a_kill_between_taking_and_giving_a_name_loses_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(8, STATE, METRICS, Progress())
    checkpoints.close()
    (tmp_path / "8").rename(tmp_path / ".saving-8")  # where `_give_name` is between its two renamings
    (tmp_path / ".saving-9").mkdir()  # and this one was still being written
    again = Checkpoints(tmp_path, keep=1)
    assert again.steps() == [8]
    assert [path.name for path in tmp_path.iterdir()] == ["8"]
    again.close()


def test_what_cannot_be_read_just_now_is_no_damage(finished, short_config, tmp_path, monkeypatch):
    run = cut(finished, tmp_path)

    def too_many_files(path):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(module, "_sha256", too_many_files)
    with pytest.raises(UserError, match="cannot be read: Too many open files; try again when it can"):
        train(short_config, run, resume=True)
    assert not (run / "checkpoints" / "damaged").exists()


def test_names_that_are_no_steps_are_left_alone(tmp_path):
    for name in ("007", "12a", "damaged", "-3"):
        (tmp_path / name).mkdir()
    reader = Checkpoints(tmp_path, keep=None)
    assert reader.steps() == []
    reader.close()


def many(config, seeds, **settings):
    return {**config, "train": {**config["train"], **settings}, "runs": {"vary": {"seed": seeds}}}


def test_a_run_that_is_added_to_others_does_not_take_them_back(short_config, tmp_path):
    train_many(many(short_config, (0, 1)), tmp_path / "runs")
    for run in (tmp_path / "runs").iterdir():
        (run / "result.json").unlink()
    with pytest.raises(UserError, match=r"'.*seed=2' is new, but '.*seed=0' is at step 12: they cannot go on together"):
        train_many(many(short_config, (0, 1, 2)), tmp_path / "runs", resume=True)
    assert (tmp_path / "runs" / "seed=0" / "checkpoints" / "12").is_dir()


def test_damage_in_one_of_many_runs_takes_all_back_and_keeps_what_was_good(short_config, tmp_path, capsys):
    whole = train_many(many(short_config, (0, 1)), tmp_path / "runs")
    for run in (tmp_path / "runs").iterdir():
        (run / "result.json").unlink()
    (tmp_path / "runs" / "seed=1" / "checkpoints" / "12" / MANIFEST).unlink()
    again = train_many(many(short_config, (0, 1)), tmp_path / "runs", resume=True)
    shown = capsys.readouterr().err
    assert "checkpoint 12 is damaged: manifest.json is missing" in shown
    assert (
        "seed=0 has to go back with another run, to step 8; its later steps are in its folder checkpoints/dropped"
        in shown
    )
    assert (tmp_path / "runs" / "seed=0" / "checkpoints" / "dropped" / "12").is_dir()
    assert {name: result["metrics"] for name, result in again.items()} == {
        name: result["metrics"] for name, result in whole.items()
    }


def test_a_save_that_fails_in_one_of_many_runs_leaves_a_step_that_all_have(short_config, tmp_path, monkeypatch):
    finish = Checkpoints._finish

    def fail(self, response, folder, saved):
        response.result()
        if saved.step == 8 and "seed=1" in str(folder):
            raise StorageError("no space")
        finish(self, response, folder, saved)

    monkeypatch.setattr(Checkpoints, "_finish", fail)
    config = many(short_config, (0, 1), keep_checkpoints=1)
    with pytest.raises(StorageError, match="no space"):
        train_many(config, tmp_path / "runs")
    monkeypatch.undo()
    there = [
        {path.name for path in (tmp_path / "runs" / name / "checkpoints").glob("[0-9]*")}
        for name in ("seed=0", "seed=1")
    ]
    assert "4" in there[0] & there[1]
    results = train_many(config, tmp_path / "runs", resume=True)
    assert all(result["status"] == "completed" for result in results.values())


def test_the_last_state_is_evaluated_where_the_best_is_lost_during_training(
    short_config, tmp_path, monkeypatch, capsys
):
    settings = {**short_config["train"], "early_stopping": {"metric": "validation/accuracy", "patience": 50}}
    settings["early_stopping"] |= {"min_delta": 5.0}  # the first evaluation stays the best
    restore = Checkpoints.restore

    def damaged(self, step, *templates):
        (self._directory / str(step) / MANIFEST).unlink()
        return restore(self, step, *templates)

    monkeypatch.setattr(Checkpoints, "restore", damaged)
    result = train({**short_config, "train": settings}, tmp_path / "run")
    assert result["evaluated_step"] == 12
    assert "the last state is evaluated instead of the best" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_standard_error_that_takes_no_more_is_no_reason_to_stop(repository, tmp_path):
    command = [sys.executable, str(repository / "experiments" / "train.py"), "--config=configs/quickstart.py"]
    command += ["--config.train.duration.steps=20", "--config.train.figures=false", f"--workdir={tmp_path / 'run'}"]
    command += ["--config.train.log_every.steps=5"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, cwd=repository, stdout=subprocess.DEVNULL, stderr=full, check=False)
    assert done.returncode == 0
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) >= 4
