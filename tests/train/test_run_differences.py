"""Two run directories side by side: exactly what differs, and nothing where nothing does."""

import json
import shutil

import pytest

from cnn_jax.errors import UserError
from cnn_jax.train.differences import ABSENT, Difference, assign, differences
from cnn_jax.train.run_differences import run_differences


def edit(path, change):
    """Change a JSON file in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_run(directory):
    """A run directory without a network: what a finished run has written."""
    (directory / "checkpoints" / "4").mkdir(parents=True)
    (directory / "checkpoints" / "8").mkdir()
    (directory / "checkpoints" / "12.orbax-checkpoint-tmp").mkdir()
    passport = {
        "started": "2026-01-01",
        "command": ["train.py"],
        "git": {"commit": "abc", "dirty": False, "diff": "", "untracked": {}},
        "source": {"sha256": "0", "files": {"cnn_jax/train/loop.py": "0"}},
        "versions": {"jax": "0.10"},
        "hardware": {"device": "cpu", "cores": 2, "host": "here"},
        "flags": {},
        "data": {"train": {"origin": "digits", "examples": 9, "sha256": "0", "digest_of": "pixels"}},
    }
    config = {"seed": 0, "optimizer": {"name": "sgd", "learning_rate": 0.1}, "train": {}}
    result = {
        "status": "completed",
        "metrics": {"test/accuracy": 0.9},
        "steps": 8,
        "seed": 0,
        "wall_seconds": 3.0,
        "per_class": {"test/confusion_matrix": [[1]]},
    }
    rows = [{"step": step, "train/loss": 1.0 / step, "time": {"seconds": step}} for step in (4, 8)]
    for name, value in (("config", config), ("passport", {"sessions": [passport]}), ("result", result)):
        (directory / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def runs(tmp_path):
    """Two equal runs."""
    for name in ("a", "b"):
        write_run(tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def test_a_run_and_itself_or_its_copy_do_not_differ(runs, tmp_path):
    for other in (runs[0], runs[1], shutil.copytree(runs[0], tmp_path / "copy")):
        found = run_differences(runs[0], other)
        assert found.equal
        assert found.report(aside=True) == ["no difference"]
        assert found.as_json()["equal"]


def test_times_hosts_and_commands_make_no_run_another_one(runs):
    edit(runs[1] / "result.json", lambda result: result.update(wall_seconds=9.0))
    edit(
        runs[1] / "passport.json",
        lambda passport: passport["sessions"][0]["hardware"].update(host="there"),
    )
    log = runs[1] / "metrics.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace('"seconds": 4', '"seconds": 5'), encoding="utf-8")
    found = run_differences(*runs)
    assert found.equal
    assert found.report() == ["no difference"]
    assert found.report(aside=True)[1:] == [
        "times, commands and hosts:",
        "  hardware.host: here -> there",
        "  result.wall_seconds: 3.0 -> 9.0",
    ]


def session_of(change):
    """An edit of the first session."""
    return lambda passport: change(passport["sessions"][0])


@pytest.mark.parametrize(
    ("file", "change", "line"),
    [
        ("config", lambda c: c.update(seed=1), "config.seed: 0 -> 1"),
        ("config", lambda c: c["train"].update(ema=None), "config.train.ema: absent -> None"),
        ("config", lambda c: c["optimizer"].update(learning_rate=0.2), "config.optimizer.learning_rate: 0.1 -> 0.2"),
        ("passport", session_of(lambda s: s["versions"].update(jax="0.11")), "versions.jax: 0.10 -> 0.11"),
        ("passport", session_of(lambda s: s["hardware"].update(cores=1)), "hardware.cores: 2 -> 1"),
        ("passport", session_of(lambda s: s["flags"].update(NPROC="1")), "flags.NPROC: absent -> 1"),
        ("passport", session_of(lambda s: s["git"].update(commit="abd")), "code.commit: abc -> abd"),
        (
            "passport",
            session_of(lambda s: s["source"]["files"].update({"cnn_jax/train/loop.py": "1"})),
            "code.cnn_jax/train/loop.py: 0 -> 1",
        ),
        ("passport", session_of(lambda s: s["data"]["train"].update(sha256="1")), "data.train.sha256: 0 -> 1"),
        ("passport", session_of(lambda s: s["data"].pop("train")), "data.train: digits -> absent"),
        ("result", lambda r: r["metrics"].update({"test/accuracy": 0.8}), "result.metrics.test/accuracy: 0.9 -> 0.8"),
        ("result", lambda r: r.update(status="diverged"), "result.status: completed -> diverged"),
        (
            "result",
            lambda r: r["per_class"].update({"test/confusion_matrix": [[2]]}),
            "result.per_class.test/confusion_matrix: one array -> another",
        ),
    ],
)
def test_one_difference_is_one_line(runs, file, change, line):
    edit(runs[1] / f"{file}.json", change)
    found = run_differences(*runs)
    assert not found.equal
    assert [each.strip() for each in found.report()[1:]] == [line]


def test_logs_checkpoints_and_missing_results_are_told(runs):
    log = runs[1] / "metrics.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace("0.125", "0.25"), encoding="utf-8")
    (runs[1] / "checkpoints" / "4").rmdir()
    (runs[1] / "result.json").unlink()
    found = run_differences(*runs)
    assert found.trace is not None
    assert found.trace.step == 8
    report = found.report()
    assert "  train/loss: 1 of 2 differ, most at step 8: 0.125 -> 0.25 (+0.125, relative 1.0e+00)" in report
    assert "  checkpoint 4: there -> absent" in report
    assert "  result.json: there -> not there" in report
    assert found.as_json()["log"]["first_difference"]["step"] == 8


def test_later_sessions_on_another_machine_are_told(runs):
    def resume(passport):
        second = json.loads(json.dumps(passport["sessions"][0]))
        second["hardware"]["cores"] = 64
        passport["sessions"].append(second)

    edit(runs[1] / "passport.json", resume)
    assert [each.strip() for each in run_differences(*runs).report()[1:]] == [
        f"inside {runs[1]}: session 2: hardware.cores: 2 -> 64",
        "sessions: 1 -> 2",
    ]


def test_a_config_that_was_edited_after_the_run_began_is_told(runs):
    config = json.loads((runs[1] / "config.json").read_text(encoding="utf-8"))
    edit(runs[1] / "passport.json", session_of(lambda s: s.update(config=config)))
    edit(runs[1] / "config.json", lambda config: config.update(seed=7))
    report = run_differences(*runs).report()
    assert f"  inside {runs[1]}: config.json.seed: 0 -> 7" in report


def test_what_an_older_passport_does_not_say_is_unknown(runs):
    edit(runs[1] / "passport.json", session_of(lambda s: s.pop("source")))
    edit(runs[1] / "passport.json", session_of(lambda s: s["hardware"].pop("cores")))
    found = run_differences(*runs)
    assert found.equal
    assert found.unknown == ["digests of the source files", "hardware.cores"]
    assert "not known, because a run does not record it:" in found.report()


@pytest.mark.parametrize(
    ("file", "content"), [("config.json", "{"), ("passport.json", "{}"), ("metrics.jsonl", "x\n{}")]
)
def test_a_damaged_run_is_a_user_error(runs, file, content):
    (runs[1] / file).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"is damaged"):
        run_differences(*runs)


def test_types_count_and_paths_can_be_assigned():
    then, now = {"a": [1, {"b": 0}], "c": 1}, {"a": [1, {"b": False}], "c": 1, "d": [1]}
    found = differences(then, now)
    assert found == [Difference("a.1.b", 0, False), Difference("d", ABSENT, [1])]
    assert found[1].as_json() == {"what": "d", "now": [1]}
    for change in found:
        assign(then, change.what, change.now)
    assert differences(then, now) == []
