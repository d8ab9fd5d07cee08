"""Results, logs, plans and studies from strangers are data: what they say is checked before it is used."""

import json
import shutil

import pytest
from synthetic_results import RESULT, make_directory

from cnn_jax.errors import UserError
from cnn_jax.study.analysis import analyse
from cnn_jax.study.cell import read_plan
from cnn_jax.study.make_report import make_report
from cnn_jax.study.stored import passports, read_study, row_of
from cnn_jax.study.tables import read_results, write_results

DEEP = "[" * 100_000
HOSTILE = {
    "deep lists": DEEP,
    "deep objects": '{"a":' * 100_000,
    "deep and whole": '{"a":' + "[" * 5000 + "]" * 5000 + "}",
    "deeper than anyone writes": '{"a":' + "[" * 150 + "]" * 150 + "}",
    "a number of thousands of digits": '{"a": ' + "9" * 5000 + "}",
    "a list": "[1]",
    "no UTF-8": b'{"a": "\xff"}',
}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_json_is_one_line(text, tmp_path, refused):
    content = HOSTILE[text]
    path = tmp_path / "result.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused("json", path, "result.json is damaged")
    if isinstance(content, str):
        path.write_text(f'{{"step": 1}}\n{content}\n{{"step": 2}}\n', encoding="utf-8")
        refused("rows", path, "line 2, is damaged")
        cell = '"' + content.replace('"', '""') + '"'
        header = "variant,seed,status,key,commit,hardware,data,chosen,message\n"
        path.write_text(f"{header}x,0,completed,k,c,h,,{cell},\n", encoding="utf-8")
        refused("results", path, "line 2")


@pytest.mark.parametrize("value", ['"text"', "[1]", '{"a": 1}', "9" * 400])
def test_a_log_has_numbers_that_a_float_can_hold(value, tmp_path, refused):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "train/loss": {value}}}\n{{"step": 2}}\n', encoding="utf-8")
    refused("rows", path, "line 1, is damaged")


def test_folders_in_the_place_of_files_are_one_line(tmp_path, refused):
    for reader in ("json", "rows", "results"):
        refused(reader, tmp_path, "cannot be read: Is a directory")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_directory(tmp_path_factory.mktemp("study") / "whole")


@pytest.fixture
def study(whole, tmp_path):
    """The directory of a finished study, whose files a test may change."""
    return pathlib_copy(whole, tmp_path / "study")


def pathlib_copy(source, target):
    shutil.copytree(source, target)
    return target


def change(path, **values):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


def first_cell(study):
    return sorted(path for path in (study / "cells").iterdir() if path.is_dir())[0]


def test_the_study_of_these_tests_has_a_report(study):
    _, rows = make_report(study)
    assert {row.status for row in rows} == {"completed"}


@pytest.mark.parametrize("name", sorted(RESULT))
def test_a_result_of_other_values_is_a_row_or_one_line(name, study):
    checked, cells = read_study(study), read_plan(study).cells
    whole = RESULT[name]
    for value in (None, [], {}, "<script>", 10**400, {"a": [1]}, [[1]], -1, True, *([] if whole is None else [whole])):
        change(cells[0].folder(study) / "result.json", **{name: value})
        try:
            rows = [row_of(checked, cell, study) for cell in cells]
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert "result.json is damaged" in str(error)  # noqa: PT017
        else:
            analyse(checked, rows)
            write_results(study / "results.csv", rows)
            assert read_results(study / "results.csv")


def test_a_result_without_what_it_must_have_is_one_line(study):
    (first_cell(study) / "result.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"result\.json is damaged \(KeyError"):
        row_of(read_study(study), read_plan(study).cells[0], study)


@pytest.mark.parametrize("sessions", [None, [], [1], [{}], [{"versions": {"jax": [1]}, "flags": {}}]])
def test_a_passport_of_other_values_is_one_line(sessions, study):
    change(first_cell(study) / "passport.json", sessions=sessions)
    with pytest.raises(UserError, match=r"passport\.json is damaged"):
        passports(read_plan(study).cells, study)


def test_numbers_that_are_none_have_a_report(study):
    path = first_cell(study) / "result.json"
    text = path.read_text(encoding="utf-8")
    for number in ("NaN", "Infinity"):
        path.write_text(text.replace('"test/accuracy": 0.5', f'"test/accuracy": {number}'), encoding="utf-8")
        assert make_report(study)[0].verdict == "inconclusive"


@pytest.mark.parametrize("name", ["variant", "key"])
@pytest.mark.parametrize("value", ["../../outside", "/tmp/outside", "..", "a\\b", "a\nb", "a\0b"])
def test_a_plan_names_no_folder_outside_of_its_study(name, value, study):
    plan = json.loads((study / "plan.json").read_text(encoding="utf-8"))
    plan["cells"][0][name] = value
    (study / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(UserError, match="is no part of a folder's name"):
        read_plan(study)


@pytest.mark.parametrize("identity", ["../c1", "/tmp/c1", "c1\n", "C1", ""])
def test_a_study_names_no_folder_outside_of_the_results(identity, study):
    change(study / "study.json", id=identity)
    with pytest.raises(UserError):
        read_study(study)


def test_a_stored_run_names_no_folder_outside_of_the_results(repository, tmp_path, monkeypatch):
    import importlib.util

    spec = importlib.util.spec_from_file_location("tabulate", repository / "experiments" / "tabulate_results.py")
    tabulate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tabulate)
    monkeypatch.setattr(tabulate, "RESULTS", tmp_path / "results")
    run = tmp_path / "run"
    run.mkdir()
    config = {"seed": 0, "parallel": {}, "data": {}, "train": {}}
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for seed, named in ((0, "a.py:../../../outside"), ("../../outside", "a.py"), (0, "..py"), (0, "a.py:/etc")):
        result = {"status": "completed", "commit": "c", "dirty": False, "seed": seed, "commits": ["c"]}
        (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
        sessions = [{"command": ["python", "train.py", f"--config={named}"]}]
        (run / "passport.json").write_text(json.dumps({"sessions": sessions}), encoding="utf-8")
        with pytest.raises(UserError, match="cannot be stored"):
            tabulate.store(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
