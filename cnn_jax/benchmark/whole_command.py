"""The whole training command, start to finish, against a torch script of the same network and recipe."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cnn_jax.benchmark.peer import SCRIPTS, peer_environment
from cnn_jax.benchmark.rounds import PAUSE_SECONDS, compare
from cnn_jax.benchmark.store import cores
from cnn_jax.errors import UserError
from cnn_jax.train.config import resolve
from cnn_jax.train.config_file import load, override
from cnn_jax.train.run import open_data
from cnn_jax.train.run_directory import RESULT, read_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "classification" / "fashion_mnist_cnn.py"
LAYOUTS = ("eager", "channels_last")
SPLITS = ("train", "validation", "test")


def measure_command(
    *, epochs: int, rounds: int, python: str | None, overrides: Sequence[str], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row with a cold compilation cache (a new one each time) and one with a warm one.

    Ours reads the data set as any run does, evaluates ten times, saves checkpoints, draws figures and writes the
    report. The peer finds the same images as arrays on disk, and evaluates as often.

    Args:
      epochs: of training.
      rounds: how often each is run, in turn.
      python: one with torch, or None: then ours alone.
      overrides: `--config.key=value` assignments; the peer gets the images and labels of the config's splits, and has
        nothing else of it.
      say: is told what goes on, one line at a time.

    Raises:
      UserError: a command failed, or the sides trained networks of different sizes.
    """
    overrides = (f"--config.train.duration.epochs={epochs}", *overrides)
    with tempfile.TemporaryDirectory(prefix="cnn_jax_benchmark_") as name:
        folder = pathlib.Path(name)
        images = _export(folder, overrides)
        commands: dict[str, Callable[[int], float]] = {}
        parameters: dict[str, int] = {}
        versions: dict[str, str] = {}

        def ours(cache: str, index: int) -> float:
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "JAX_COMPILATION_CACHE_DIR": str(folder / cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            run = folder / f"{cache}_run_{index}"
            script = str(ROOT / "experiments" / "train.py")
            seconds, _ = _time(
                [sys.executable, script, f"--config={CONFIG}", f"--workdir={run}", *overrides], environment
            )
            result = read_json(run / RESULT)
            parameters["ours"] = result["parameters"]
            say(f"ours, {cache}: {seconds:.1f} s, test accuracy {result['metrics']['test/accuracy']:.4f}")
            return seconds

        def theirs(layout: str) -> float:
            script = str(SCRIPTS / "torch_fashion.py")
            arguments = [str(python), script, str(folder), str(epochs), layout, str(cores())]
            seconds, output = _time(arguments, peer_environment())
            result = json.loads(output)
            parameters["peer"], versions["torch"] = result["parameters"], result["torch"]
            say(f"torch, {layout}: {seconds:.1f} s, test accuracy {result['accuracy']:.4f}")
            return seconds

        commands["cold"] = lambda index: ours(f"cold_cache_{index}", index)
        commands["warm"] = lambda index: ours("warm_cache", index)
        layout = None
        if python is not None:
            trials = {layout: theirs(layout) for layout in LAYOUTS}
            layout = min(trials, key=trials.__getitem__)
            commands["peer"] = lambda _: theirs(str(layout))
        commands["warm"](-1)  # fills the cache
        if len(set(parameters.values())) > 1:
            raise UserError(f"the networks differ, parameters: {parameters}")
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for index in range(rounds):
            for name in commands if index % 2 == 0 else reversed(commands):
                time.sleep(PAUSE_SECONDS)
                seconds[name].append(commands[name](index))
    return [
        {
            "model": "classic_stack",
            "mode": f"whole command, epochs: {epochs}, {cache} cache",
            **compare(epochs * len(images), seconds[cache], seconds.get("peer")),
            "seconds": seconds[cache],
            "peer_seconds": seconds.get("peer"),
            "batch_size": 128,
            "image": list(images.shape[1:]),
            "parameters": parameters["ours"],
            "peer_variant": layout,
            "peer_versions": versions,
            "others": None,
        }
        for cache in ("cold", "warm")
    ]


def _export(folder: pathlib.Path, overrides: Sequence[str]) -> np.ndarray:
    """Write the splits of the config as arrays; the training images."""
    config = resolve(override(load(str(CONFIG)), overrides))
    source = open_data(config)
    loaded = {split: source.load(getattr(config.data.splits, split)) for split in SPLITS}
    for split, data in loaded.items():
        np.save(folder / f"{split}_images.npy", data.images)
        np.save(folder / f"{split}_labels.npy", data.labels)
    return loaded["train"].images


def _time(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, str]:
    """(seconds from start to end, standard output) of a command."""
    started = time.perf_counter()
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{pathlib.Path(command[1]).name} failed with status {done.returncode}: {last}")
    return seconds, done.stdout
