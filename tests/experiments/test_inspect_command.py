"""`experiments/inspect_data.py` end to end: the quickstart, a stream of photographs with problems, one-line errors."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cnn_jax.data.sources import open_source
from cnn_jax.errors import UserError

FILES = {"data.json", "data.md", "samples.png", "balance.png", "sizes.png"}
SPLITS = {"train": "train[:150]", "validation": "train[150:200]", "test": "test[:50]"}
SMALL = [f"--config.data.splits={SPLITS!r}"]


@pytest.fixture(scope="module")
def main(repository):
    """The command's `main` in this process."""
    spec = importlib.util.spec_from_file_location("inspect_command", repository / "experiments/inspect_data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["inspect_command"] = module  # for its annotations
    spec.loader.exec_module(module)
    yield lambda *arguments: module.main([f"--config={repository}/configs/quickstart.py", *map(str, arguments)])
    del sys.modules["inspect_command"]


@pytest.fixture(scope="module")
def quickstart(main, tmp_path_factory):
    directory = tmp_path_factory.mktemp("inspection") / "quickstart"
    assert main(f"--workdir={directory}", "--strict", *SMALL) == 0
    return directory


def read(directory):
    return json.loads((directory / "data.json").read_text(encoding="utf-8"))


def test_the_quickstart_is_counted_and_drawn(quickstart):
    assert {path.name for path in quickstart.iterdir()} == FILES
    found = read(quickstart)
    assert found["findings"] == []
    source = open_source("sklearn", "digits")
    for split, spec in SPLITS.items():
        assert found["splits"][split]["class_counts"] == np.bincount(source.load(spec).labels).tolist()
    for name in ("samples.png", "balance.png", "sizes.png"):
        with Image.open(quickstart / name) as figure:
            assert min(figure.size) > 200
            assert figure.convert("L").getextrema() == (0, 255)
        assert f"({name})" in (quickstart / "data.md").read_text(encoding="utf-8")


def test_a_second_inspection_of_the_same_data_writes_the_same(main, quickstart, capsys):
    before = {path.name: path.read_bytes() for path in quickstart.iterdir()}
    assert main(f"--workdir={quickstart}", *SMALL) == 0
    assert {path.name: path.read_bytes() for path in quickstart.iterdir()} == before
    assert f'"mean": {tuple(read(quickstart)["splits"]["train"]["levels"][0]["mean"])}' in capsys.readouterr().out


def test_without_a_work_directory_nothing_is_written(main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(*SMALL, "--config.data.splits.train=train[:20]") == 0
    assert list(tmp_path.iterdir()) == []
    assert "sklearn/digits/train[:20]" in capsys.readouterr().out


def test_an_empty_class_fails_only_a_strict_inspection(main, capsys):
    arguments = (*SMALL, "--config.data.splits.validation=train[150:152]")
    assert main(*arguments) == 0
    assert main(*arguments, "--strict") == 1
    assert "validation: no example of " in capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of unequal sizes; one of each class is in both splits, and one file is damaged."""
    root = tmp_path_factory.mktemp("photographs")
    for name in ("china", "$flower$"):
        whole = load_sample_image(f"{name.strip('$')}.jpg")
        for split, top in (("train", 200), ("val", 100)):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                cut = whole[top + 10 * number : top + 10 * number + 40, 200 : 250 + number]
                Image.fromarray(cut).save(root / split / name / f"{number}.png")
    (root / "val" / "china" / "leak [1].png").write_bytes((root / "train" / "$flower$" / "3.png").read_bytes())
    (root / "train" / "china" / "damaged.png").write_bytes((root / "train" / "china" / "0.png").read_bytes()[:200])
    return root


def folder_config(folder, **data):
    values = {"source": "folder", "name": str(folder), "splits": {"train": "train", "validation": "validation"}}
    values |= {"batch_size": 4, "augment": ({"name": "mixup"},), **data}
    return f"--config.data={values!r}"


def test_a_stream_of_photographs_with_a_leak_and_a_damaged_file(main, folder, tmp_path, capsys):
    transforms = {"train": ({"name": "random_crop", "size": 32},), "evaluation": ({"name": "center_crop", "size": 32},)}
    config = folder_config(folder, stream={"workers": 2}, on_corrupt="skip", transforms=transforms)
    assert main(config, f"--workdir={tmp_path / 'out'}", "--strict") == 1
    shown = capsys.readouterr().out
    found = read(tmp_path / "out")
    assert found["findings"] == [
        "leakage: 1 image in more than one split",
        "train: 1 of 9 images cannot be read",
    ]
    [leak] = found["copies"]["equal"]["listed"]
    assert leak["different_labels"]
    assert [one["name"].rsplit("/", 2)[1:] for one in leak["members"]] == [
        ["$flower$", "3.png"],
        ["china", "leak [1].png"],
    ]
    for text in ("leak [1].png", "damaged.png", *found["findings"]):
        assert text in shown
    assert found["splits"]["train"]["sizes"]["least"] == [40, 50]
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_photographs_that_do_not_fit_into_one_array_are_drawn_as_stored(main, folder, tmp_path, capsys):
    assert main(folder_config(folder, augment=()), f"--workdir={tmp_path / 'out'}") == 0
    assert "only equal-sized images make a batch" in capsys.readouterr().out
    assert (tmp_path / "out" / "samples.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workdir=",), "--workdir is empty"),
        (("--config.data.splits.train=trian",), "did you mean 'train'"),
        (("--config.data.augment.0.name=random_flop",), "did you mean 'random_flip'"),
        (("--config.data.name=digitz",), "unknown data set"),
        (("--stricter",), "'--stricter' is not understood"),
    ],
)
def test_bad_input_says_what_to_do(main, arguments, message):
    with pytest.raises(UserError) as error:
        main(*arguments)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_directory_with_other_files_is_refused_and_left_alone(main, tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match=r"holds 'config.json'; choose an empty --workdir"):
        main(f"--workdir={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_help_fits_on_a_screen_and_errors_are_one_line(repository):
    def run(*arguments):
        command = [sys.executable, "experiments/inspect_data.py", *arguments]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)

    shown = run("--help")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) <= 24
    refused = run("--config=nowhere.py")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert len(refused.stderr.splitlines()) == 1
