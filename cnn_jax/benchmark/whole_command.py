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
from cnn_jax.ops.native.library import FOLDER as LIBRARY_FOLDER
from cnn_jax.ops.native.library import library, library_folder
from cnn_jax.train.config import Config, resolve
from cnn_jax.train.config_file import load, override
from cnn_jax.train.duration import Duration
from cnn_jax.train.run import open_data
from cnn_jax.train.run_directory import RESULT, read_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "classification" / "fashion_mnist_cnn.py"
LAYOUTS = ("eager", "channels_last")
CACHES = ("JAX_COMPILATION_CACHE_DIR", "CNN_JAX_DECODED_CACHE")
SPLITS = ("train", "validation", "test")


def measure_command(
    *, epochs: int, rounds: int, python: Callable[[], str | None], overrides: Sequence[str], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row with cold caches of compiled programs and decoded images (new ones each time), and one with warm ones.

    Ours reads the data set as any run does, evaluates ten times, saves checkpoints, draws figures and writes the
    report. The peer finds the same images as arrays on disk, and evaluates as often.

    Args:
      epochs: of training.
      rounds: how often each is run, in turn.
      python: gives one with torch, once the config is checked; or None: then ours alone.
      overrides: `--config.key=value` assignments; the peer gets the images and labels of the config's splits, and has
        nothing else of it.
      say: is told what goes on, one line at a time.

    Raises:
      UserError: a command failed, or the sides trained networks of different sizes.
    """
    overrides = (f"--config.train.duration.epochs={epochs}", *overrides)
    config = resolve(override(load(str(CONFIG)), overrides))
    if config.train.duration != Duration(epochs=epochs) or None in dict(config.data.splits).values():
        raise UserError(
            "the peer trains for --epochs on three splits; leave config.train.duration alone and name all three"
        )
    torch = python()
    with tempfile.TemporaryDirectory(prefix="cnn_jax_benchmark_") as name:
        folder = pathlib.Path(name)
        images = export_splits(folder, config)
        commands: dict[str, Callable[[int], dict[str, Any]]] = {
            "cold": lambda index: _ours(folder, f"cold_cache_{index}", overrides, say=say),
            "warm": lambda _: _ours(folder, "warm_cache", overrides, say=say),
        }
        first, layout = {"ours": commands["warm"](0)}, None  # fills the cache
        if torch is not None:
            trials = {layout: _theirs(torch, folder, epochs, layout, say=say) for layout in LAYOUTS}
            layout = min(trials, key=lambda layout: trials[layout]["seconds"])
            first["peer"] = trials[layout]
            commands["peer"] = lambda _: _theirs(torch, folder, epochs, str(layout), say=say)
        parameters = {side: result["parameters"] for side, result in first.items()}
        if len(set(parameters.values())) > 1:
            raise UserError(f"the networks differ, parameters: {parameters}")
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for index in range(rounds):
            for name in commands if index % 2 == 0 else reversed(commands):
                time.sleep(PAUSE_SECONDS)
                seconds[name].append(commands[name](index)["seconds"])
    rates = {name: [epochs * len(images) / each for each in values] for name, values in seconds.items()}
    return [
        {
            "model": config.model["name"],
            "mode": f"whole command, epochs: {epochs}, {cache} cache",
            **compare(rates[cache], rates.get("peer")),
            "seconds": seconds[cache],
            "peer_seconds": seconds.get("peer"),
            "batch_size": config.data.batch_size,
            "image": list(images.shape[1:]),
            "parameters": parameters["ours"],
            "peer_variant": layout,
            "peer_versions": {"torch": first["peer"]["torch"]} if "peer" in first else {},
            "others": None,
        }
        for cache in ("cold", "warm")
    ]


def own_environment(cache: pathlib.Path) -> dict[str, str]:
    """Of our commands: compiled programs and decoded images in a cache of their own.

    The library of convolutions is the one that is there, as PyTorch's is: it belongs to the installation.

    Args:
      cache: the folder.
    """
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    if library().digest:
        environment[LIBRARY_FOLDER] = str(library_folder(os.environ))
    return {**environment, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}


def _ours(folder: pathlib.Path, cache: str, overrides: Sequence[str], *, say: Callable[[str], None]) -> dict[str, Any]:
    """Train with the cache of this name; seconds and parameters."""
    environment = {**own_environment(folder / cache), "JAX_PLATFORMS": "cpu"}  # the peer's
    run = tempfile.mkdtemp(prefix="run_", dir=folder)
    script = str(ROOT / "experiments" / "train.py")
    seconds, _ = timed([sys.executable, script, f"--config={CONFIG}", f"--workdir={run}", *overrides], environment)
    result = read_json(pathlib.Path(run) / RESULT)
    say(f"ours, {cache}: {seconds:.1f} s, test accuracy {result['metrics']['test/accuracy']:.4f}")
    return {"seconds": seconds, "parameters": result["parameters"]}


def _theirs(
    python: str, folder: pathlib.Path, epochs: int, layout: str, *, say: Callable[[str], None]
) -> dict[str, Any]:
    """Train with torch; seconds, parameters, accuracy and torch's version."""
    script = str(SCRIPTS / "torch_fashion.py")
    seconds, output = timed([python, script, str(folder), str(epochs), layout, str(cores())], peer_environment())
    result = json.loads(output)
    say(f"torch, {layout}: {seconds:.1f} s, test accuracy {result['accuracy']:.4f}")
    return {"seconds": seconds, **result}


def export_splits(folder: pathlib.Path, config: Config) -> np.ndarray:
    """Write the splits of a config as arrays, `{split}_images.npy` and `{split}_labels.npy`, for a script of torch.

    Args:
      folder: where to.
      config: names all three splits.

    Returns:
      The training images, `[N, H, W, C]`.
    """
    source = open_data(config)
    loaded = {split: source.load(getattr(config.data.splits, split)) for split in SPLITS}
    for split, data in loaded.items():
        np.save(folder / f"{split}_images.npy", data.images)
        np.save(folder / f"{split}_labels.npy", data.labels)
    return loaded["train"].images


def timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, str]:
    """Run a command: (seconds from start to end, standard output).

    Args:
      command: an interpreter, a script and its arguments.
      environment: all of its environment variables.

    Raises:
      UserError: it failed; with the last line that it wrote.
    """
    started = time.perf_counter()
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{pathlib.Path(command[1]).name} failed with status {done.returncode}: {last}")
    return seconds, done.stdout
