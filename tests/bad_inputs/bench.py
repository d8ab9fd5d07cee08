"""What the entries of the table have at hand: a place, small configs and files, commands, and the form of an error."""

import dataclasses
import importlib
import io
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from cnn_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EXPERIMENTS = ROOT / "experiments"


class Case(NamedTuple):
    """One bad input.

    Attributes:
      name: for the test's id.
      check: makes the bad input at the bench and asserts what becomes of it.
      slow: longer than a few seconds.
    """

    name: str
    check: Callable[["Bench"], None]
    slow: bool = False


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where an entry works.

    Attributes:
      path: an empty directory.
      config: logistic regression on digits, four steps; an entry may change it.
      fixture: a fixture of pytest by its name.
    """

    path: pathlib.Path
    config: dict[str, Any]
    fixture: Callable[[str], Any]

    def command(self, script: str, *arguments: object) -> int:
        """A command of `experiments/` in this process; its errors are raised."""
        self.fixture("monkeypatch").syspath_prepend(EXPERIMENTS)
        return importlib.import_module(script).main([str(argument) for argument in arguments])

    def process(self, script: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        """A command in a process of its own, which starts in the bench's directory."""
        command = [sys.executable, str(EXPERIMENTS / f"{script}.py"), *map(str, arguments)]
        own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(command, cwd=self.path, env=own, capture_output=True, text=True, check=False, timeout=300)

    def config_file(self, name: str = "config.py") -> pathlib.Path:
        """The config as a file."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = f"from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({self.config!r})\n"
        file.write_text(text, encoding="utf-8")
        return file


def tiny_regression() -> dict[str, Any]:
    """Logistic regression on some digits, which compiles in a second."""
    return {
        "task": {"name": "classification"},
        "model": {"name": "mlp", "hidden": (), "in_channels": 1},
        "data": {
            "source": "sklearn",
            "name": "digits",
            "splits": {"train": "train[:64]", "test": "test[:32]"},
            "batch_size": 16,
        },
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "train": {"duration": {"steps": 4}, "save_every": {"steps": 2}, "figures": False},
        "parallel": {"devices": 1},
    }


def changed(config: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a config with one value set."""
    key, _, rest = path.partition(".")
    return {**config, key: changed(config.get(key) or {}, rest, value) if rest else value}


def refused(message: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Assert that a call raises one line that matches a regular expression."""
    with pytest.raises(UserError, match=message) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)


def refused_by_status(message: str, done: "subprocess.CompletedProcess[str]") -> None:
    """Assert that a command in its own process ended with one line that has a text, and with status 2."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def image_file(
    path: pathlib.Path, *, mode: str = "RGB", size: tuple[int, int] = (8, 8), kind: str = "PNG", seed: int = 0
) -> pathlib.Path:
    """Write an image of noise, (height, width) pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    path.write_bytes(file.getvalue())
    return path


def image_folder(root: pathlib.Path, *, classes: tuple[str, ...] = ("cat", "dog"), **options: Any) -> pathlib.Path:
    """Folders train and test with eight and two images in the folder of each class."""
    for label, name in enumerate(classes):
        for split, count in {"train": 8, "test": 2}.items():
            for index in range(count):
                image_file(root / split / name / f"{index}.png", seed=100 * label + index, **options)
    return root


def on_folder(config: Mapping[str, Any], root: pathlib.Path, **data: Any) -> dict[str, Any]:
    """The config on a folder of images, in colour."""
    section = {"source": "folder", "name": str(root), "splits": {"train": "train", "test": "test"}, "batch_size": 8}
    return {**config, "model": {"name": "mlp", "hidden": ()}, "data": {**section, **data}}


STREAM = {"stream": {}, "mean": (0.5,) * 3, "std": (0.25,) * 3}
"""What `on_folder` needs for reading when images are needed."""
