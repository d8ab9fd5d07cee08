"""Running a study: what is done is not done again, by whomever, and a kill changes nothing."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.study.cell import Plan, read_plan, write_plan
from cnn_jax.study.index import claims_table
from cnn_jax.study.make_report import judge_anew, keep_report, make_report
from cnn_jax.study.report import RULE_ANCHOR
from cnn_jax.study.runner import work
from cnn_jax.study.spec import check_study
from cnn_jax.study.stored import read_study, row_of, write_study
from cnn_jax.train.checkpoint import Checkpoints
from cnn_jax.train.config import to_plain

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMES = ("seconds", "examples_per_second")
LINES: list[str] = []


def run(study: dict, directory: pathlib.Path, *, mode="sequential", **options):
    """Run and report; the rows by (variant, seed)."""
    checked = check_study(study)
    write_study(directory, checked)
    LINES.clear()
    cells = [built.cell for built in work(checked, directory, mode=mode, note=LINES.append, **options)]
    write_plan(directory, Plan(cells=tuple(cells)))
    return {(row.variant, row.seed): row for row in make_report(directory)[1]}


def trained() -> int:
    """Runs that the last call trained, as it told."""
    return sum(line.count(", ", line.index(" (")) + line.count("; ") + 1 for line in LINES if " done (" in line)


def without_times(rows):
    """What must be equal of two studies: all but how long they took."""
    return {
        cell: dataclasses.replace(row, values={k: v for k, v in row.values.items() if k not in TIMES})
        for cell, row in rows.items()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, module_study):
    """A directory in which a tiny study has run, and its rows."""
    directory = tmp_path_factory.mktemp("study") / "a finished study"
    return directory, run(module_study, directory)


def test_every_cell_has_its_numbers(finished):
    _, rows = finished
    assert trained() in (0, 9)
    assert {row.status for row in rows.values()} == {"completed"}
    for row in rows.values():
        assert row.values["steps"] == 12
        assert row.values["multiply_accumulates"] == (64 * 16 + 160 if row.variant == "hidden layer" else 640)
        assert row.values["test/error"] == pytest.approx(1 - row.values["test/accuracy"])
        assert 0 < row.values["train/accuracy"] <= 1
    assert len({row.values["test/loss"] for row in rows.values()}) == 9


def test_what_is_done_is_not_done_again(finished, module_study):
    directory, rows = finished
    before = (directory / "report.md").read_bytes(), (directory / "report.html").read_bytes()
    assert run(module_study, directory) == rows
    assert trained() == 0
    assert ((directory / "report.md").read_bytes(), (directory / "report.html").read_bytes()) == before


def test_one_that_is_deleted_runs_again_to_the_bit(finished, module_study, tmp_path):
    directory, rows = finished
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    (gone,) = (copy / "cells").glob("slow,seed=1,*")
    shutil.rmtree(gone)
    again = run(module_study, copy)
    assert trained() == 1
    assert without_times(again) == without_times(rows)


def test_the_report_needs_no_code_nor_data(finished, monkeypatch):
    directory, rows = finished
    monkeypatch.setattr("cnn_jax.study.build.code_version", lambda: "other")
    assert {(row.variant, row.seed): row for row in make_report(directory)[1]} == rows
    with (directory / "results.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 9


@pytest.mark.slow
def test_a_tuned_study_is_reported_with_its_choice_whoever_trains_it(module_study, tmp_path):
    grid = {"optimizer.learning_rate": (1e-6, 0.3)}
    process = start(command({**module_study, "tuning": {"grid": grid, "seeds": (7,)}}, tmp_path / "x", "--workers=2"))
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    rows = [row for row in rows_in(tmp_path / "x").values() if row.seed != 7]
    assert [row.status for row in rows] == ["completed"] * 9
    assert all(row.chosen == {"optimizer.learning_rate": 0.3} for row in rows)


def test_another_study_is_refused(finished, module_study):
    with pytest.raises(UserError, match="holds the study 'tiny', not 'other'"):
        run({**module_study, "id": "other"}, finished[0])
    with pytest.raises(UserError, match="holds the scale 'small', not 'full'"):
        run({**module_study, "scale": "full"}, finished[0])


@pytest.mark.slow
def test_runs_at_once_give_the_table_of_runs_in_turn(finished, module_study, tmp_path):
    _, rows = finished
    at_once = run(module_study, tmp_path, mode="vmap")
    assert at_once.keys() == rows.keys()
    for cell, row in rows.items():
        other = at_once[cell]
        assert (row.status, row.key, row.data) == (other.status, other.key, other.data)
        for name in set(row.values) - set(TIMES):
            assert other.values[name] == pytest.approx(row.values[name], rel=2e-4, abs=1e-6), (cell, name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sequential", "vmap"])
def test_a_run_that_diverges_harms_no_other(finished, module_study, tmp_path, mode):
    _, rows = finished
    variants = {**module_study["variants"], "huge": {"optimizer.learning_rate": 1e25}}
    found = run({**module_study, "variants": variants}, tmp_path, mode=mode)
    assert [found["huge", seed].status for seed in (0, 1, 2)] == ["diverged"] * 3
    assert "learning rate 1e+25" in found["huge", 0].message
    for cell, row in rows.items():
        assert found[cell].status == "completed"
        assert found[cell].values["test/loss"] == pytest.approx(row.values["test/loss"], rel=2e-4)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "diverged" in text
    run({**module_study, "variants": variants}, tmp_path, mode=mode)
    assert trained() == 0  # divergence is a result


@pytest.mark.slow
def test_a_run_that_fails_is_shown_and_not_repeated(module_study, tmp_path, monkeypatch):
    def fail(experiment, state):
        if experiment.config.seed == 1 and experiment.config.model["hidden"]:
            raise UserError("there is <no> memory")
        return {}

    monkeypatch.setattr("cnn_jax.study.runner._numbers", lambda _, *arguments: fail(*arguments))
    rows = run(module_study, tmp_path)
    assert {cell for cell, row in rows.items() if row.status == "failed"} == {("hidden layer", 1)}
    assert any("together failed, now one by one" in line for line in LINES)
    assert rows["hidden layer", 1].message == "UserError: there is <no> memory"
    assert sum(row.status == "completed" for row in rows.values()) == 8
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "there is &lt;no&gt; memory" in page
    assert "<no>" not in page
    run(module_study, tmp_path)
    assert trained() == 0
    (failure,) = (tmp_path / "cells").glob("hidden_layer,seed=1,*.failure.json")
    failure.unlink()
    monkeypatch.undo()
    assert run(module_study, tmp_path)["hidden layer", 1].status == "completed"
    assert trained() == 1


@pytest.mark.slow
def test_tuning_chooses_by_validation_and_never_what_diverges(module_study, tmp_path):
    grid = {"optimizer.learning_rate": (1e25, 1e-6, 0.1)}
    study = {**module_study, "variants": {"hidden layer": {"model.hidden": (16,)}}}
    study |= {"comparisons": module_study["comparisons"][:1], "tuning": {"grid": grid, "seeds": (7,)}}
    rows = run(study, tmp_path)
    assert len(rows) == 6
    assert all(row.chosen == {"optimizer.learning_rate": 0.1} for row in rows.values())
    assert "optimizer.learning_rate" in (tmp_path / "report.md").read_text(encoding="utf-8")
    # A variant that trains nowhere is a result, and the others are trained.
    wild = {"tuning_of": {"hidden layer": {"grid": {"optimizer.learning_rate": (1e25, 1e26)}, "seeds": (7,)}}}
    rows = run({**study, **wild, "id": "wild"}, tmp_path / "wild")
    assert {row.status for (variant, _), row in rows.items() if variant == "hidden layer"} == {"diverged"}
    assert {row.status for (variant, _), row in rows.items() if variant == "baseline"} == {"completed"}
    unknown = {"tuning": {"grid": grid, "seeds": (7,), "metric": "validation/acuracy"}}
    with pytest.raises(UserError, match=r"unknown study\.tuning\.metric 'validation/acuracy'; did you mean"):
        run({**study, **unknown, "id": "unknown"}, tmp_path / "unknown")


def write_file(study: dict, folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.py"
    lines = ["from ml_collections import ConfigDict", "", "def get_config():"]
    lines += [f"    return ConfigDict({study!r}, convert_dict=False)"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def command(study: dict, place: pathlib.Path, *arguments: str) -> list[str]:
    file = write_file(study, place.parent / "config")
    script = str(ROOT / "experiments" / "study.py")
    return [sys.executable, script, f"--study={file}", f"--workdir={place}", "--mode=in_turn", *arguments]


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})


def rows_in(directory: pathlib.Path):
    study = read_study(directory)
    rows = [row_of(study, cell, directory) for cell in read_plan(directory).cells]
    return {(row.variant, row.seed): row for row in rows}


def wait_for(pattern: str, directory: pathlib.Path, process: subprocess.Popen) -> bool:
    """Whether a file came to be while the process ran."""
    while process.poll() is None:
        if list(directory.glob(pattern)):
            return True
        time.sleep(0.01)
    return False


def assert_same(found, rows, *, mode: str) -> None:
    """To the bit in turn; at once, who is left of a group may be computed in a program of another size."""
    if mode == "in_turn":
        assert without_times(found) == without_times(rows)
        return
    assert found.keys() == rows.keys()
    for cell, row in rows.items():
        assert found[cell].status == row.status
        for name in set(row.values) - set(TIMES):
            assert found[cell].values[name] == pytest.approx(row.values[name], rel=2e-4, abs=1e-6), (cell, name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["in_turn", "together"])
def test_killed_at_any_moment_it_ends_with_the_same_table(finished, module_study, tmp_path, mode):
    rows, directory = finished[1], tmp_path / "killed"
    generator, killed = np.random.default_rng(0), 0
    for moment in range(5):
        process = start(command(module_study, directory, f"--mode={mode}"))
        # Once before anything is trained, then a moment behind the beginning of a run, its first save, a result.
        pattern = (
            "study.json",
            "cells/*/passport.json",
            "cells/*/passport.json",
            "cells/*/checkpoints",
            "cells/*/result.json",
        )
        if wait_for(pattern[moment], directory, process):
            time.sleep(float(generator.uniform(0, 1)))
            process.send_signal(signal.SIGKILL)
        process.communicate()
        begun, ended = (len(list(directory.glob(f"cells/*/{name}"))) for name in ("passport.json", "result.json"))
        killed += process.returncode == -signal.SIGKILL and begun > ended
    assert killed  # runs were killed that had begun
    process = start(command(module_study, directory, f"--mode={mode}"))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same(rows_in(directory), rows, mode=mode)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_processes_on_one_directory_do_every_cell_once(finished, module_study, tmp_path, killed):
    rows, directory = finished[1], tmp_path / "shared"
    processes = [start(command(module_study, directory)) for _ in range(2)]
    if killed:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(directory.glob("cells/*/config.json")):
            time.sleep(0.05)
        processes[0].send_signal(signal.SIGKILL)
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == (-signal.SIGKILL if killed and process is processes[0] else 0), errors
    assert without_times(rows_in(directory)) == without_times(rows)
    if not killed:
        for cell in directory.glob("cells/*"):
            assert len(json.loads((cell / "passport.json").read_text(encoding="utf-8"))["sessions"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [["--workers=2"], ["--workers=2", "--launcher=local"], ["--workers=2", "--mode=together"]]
)
def test_workers_do_the_study(finished, module_study, tmp_path, how):
    if "--launcher=local" in how:
        pytest.importorskip("submitit")
    rows, directory = finished[1], tmp_path / "with workers"
    process = start(command(module_study, directory, *how))
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    # Each worker has a share of the cores, which its rows say.
    one, other = (
        {cell: dataclasses.replace(row, hardware="") for cell, row in without_times(each).items()}
        for each in (rows_in(directory), rows)
    )
    assert_same(one, other, mode="together" if "--mode=together" in how else "in_turn")
    assert "Report: " in out
    if "--launcher=local" not in how:
        arguments = "--workers=2 --mode=" + ("together" if "--mode=together" in how else "in_turn")
        assert arguments in (directory / "report.md").read_text(encoding="utf-8")  # the command that makes it again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study=nowhere.py", "--workdir=x"], "config file 'nowhere.py' does not exist"),
        (["report", "nowhere"], "'nowhere' holds no study.json"),
        (["work", "nowhere"], "'nowhere' holds no study.json"),
        (["--study={file}", "--workdir=x", "--workers=0"], "--workers=0: at least 1"),
        (["--study={file}", "--workdir=x", "--config.model.hiden=3"], "did you mean 'hidden'"),
        (["--study={file}", "--workdir=x", "--study.seeds=(0,0)"], "has a seed twice"),
        (["--study={file}", "--workdir=x", "--sead=1"], "argument '--sead=1' is not understood"),
        (["--study={file}", "--workdir=x", "--scale=full"], "has no variants; drop ':full'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(module_study, tmp_path, arguments, message):
    file = write_file(module_study, tmp_path)
    arguments = [argument.replace("{file}", str(file)) for argument in arguments]
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "study.py"), *arguments],
        **{"cwd": tmp_path, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_a_cell_keeps_one_checkpoint(finished):
    directory, _ = finished
    for cell in (directory / "cells").iterdir():
        if cell.is_dir():
            assert Checkpoints(cell / "checkpoints", keep=None).steps() == [12]


def test_stored_runs_can_be_judged_anew_but_not_as_other_runs(finished, module_study, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(finished[0], directory)
    comparison = {"measure": "gap", "variant": "hidden layer", "claim": "less", "name": "another question"}
    judge_anew(directory, check_study({**module_study, "comparisons": (comparison,)}), "new.py", "0" * 64)
    make_report(directory)
    text = (directory / "report.md").read_text(encoding="utf-8")
    assert "another question" in text
    assert "--study=new.py" in text
    for change in (
        {"seeds": (0, 1)},
        {"variants": {**module_study["variants"], "slow": {"optimizer.learning_rate": 0.01}}},
        {"overrides": {"train.duration": {"steps": 8}}},
        {"probes": ({"name": "sparsity"},)},
    ):
        with pytest.raises(UserError, match=r"holds other runs than 'new\.py' describes"):
            judge_anew(directory, check_study({**module_study, **change}), "new.py", "")


def test_the_first_step_that_reaches_a_target_is_read_from_the_log(finished, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(finished[0], directory)
    cell = next(each for each in read_plan(directory).cells if (each.variant, each.seed) == ("baseline", 0))
    targets = {
        "at once": ("higher", 0.0),
        "never": ("higher", 1e9),
        "falls": ("lower", 1e9),
        "unheard": ("higher", 0.0),
    }
    steps_to = {
        name: {
            "steps_to": {"metric": f"train/{'los' if name == 'unheard' else 'loss'}", "target": at, "direction": way}
        }
        for name, (way, at) in targets.items()
    }
    study = read_study(directory)
    study = check_study({**to_plain(study), "measures": {**to_plain(study)["measures"], **steps_to}})

    def values():
        found = row_of(study, cell, directory).values
        return [found[name] for name in targets]

    assert values() == [4, 12, 4, None]
    path = cell.folder(directory) / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**result, "status": "early_stopped"}), encoding="utf-8")
    assert values() == [4, None, 4, None]  # it did not have the time to


def test_a_study_that_is_kept_is_in_the_table_of_claims(finished, module_study, tmp_path):
    place = keep_report(finished[0], tmp_path / "results")
    assert place == tmp_path / "results" / "tiny"
    assert {path.name for path in place.iterdir()} == {"study.json", "results.csv", "report.md", "figures"}
    (row,) = [
        line for line in claims_table(tmp_path / "results", readme=tmp_path / "README.md").splitlines()[2:] if line
    ]
    assert module_study["claim"] in row
    assert "(results/tiny/report.md)" in row
    assert keep_report(finished[0], tmp_path / "results") == place  # what was there is replaced
    # What a killed process has left is in nobody's way.
    shutil.copytree(place, tmp_path / "results" / ".tiny.123")
    assert len(claims_table(tmp_path / "results", readme=tmp_path / "README.md").splitlines()) == 3
    full = tmp_path / "full"
    shutil.copytree(finished[0], full)
    path = full / "study.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"small"', '"full"'), encoding="utf-8")
    assert keep_report(full, tmp_path / "results").name == "tiny_full"
    assert len(claims_table(tmp_path / "results", readme=tmp_path / "README.md").splitlines()) == 4


def test_the_readme_has_the_table_of_what_is_stored_and_the_rule():
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert claims_table(ROOT / "experiments" / "results", readme=readme) in text
    assert "\n#### How a verdict is made\n" in text  # RULE_ANCHOR
    assert RULE_ANCHOR == "how-a-verdict-is-made"
