"""The other side of the study benchmark: a loop over a torch script that trains the same network."""

import itertools
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from cnn_jax.benchmark.peer import SCRIPTS, peer_environment
from cnn_jax.benchmark.store import cores
from cnn_jax.benchmark.study_sides import Trained, told
from cnn_jax.benchmark.whole_command import timed
from cnn_jax.train.config import Config

FORMS = tuple(itertools.product(("eager", "channels_last"), dict.fromkeys((cores(), 1))))
"""Of the torch script: memory layout and threads; small networks may be faster with one."""
Form: TypeAlias = tuple[str, int]
"""Memory layout and threads."""
RunPeer = Callable[..., tuple[float, Mapping[str, Any]]]


def torch_runner(python: str, folder: pathlib.Path, config: Config, device: str, about: dict[str, Any]) -> RunPeer:
    """A function that runs the torch script: seconds, and what it printed.

    Args:
      python: one with torch.
      folder: has the splits as arrays.
      config: says how large batches are.
      device: "cpu" or "gpu".
      about: is given torch's version.
    """

    def run(layout: str, threads: int, *, epochs: int, seed: int = 0, rate: float = 0.1) -> tuple[float, Any]:
        options = {
            "epochs": epochs,
            "batch-size": config.data.batch_size,
            "seed": seed,
            "learning-rate": rate,
            "layout": layout,
            "threads": threads,
            "device": "cuda" if device == "gpu" else "cpu",
        }
        command = [python, str(SCRIPTS / "torch_quickstart.py"), str(folder)]
        command += [f"--{name}={value}" for name, value in options.items()]
        seconds, output = timed(command, peer_environment())
        result = json.loads(output)
        about["versions"] = {"torch": result["torch"]}
        return seconds, result

    return run


def fastest_forms(run_peer: RunPeer, epochs: int, *, say: Callable[[str], None]) -> tuple[Form, Form]:
    """The forms of the script that train fastest, start-up apart: all have the same.

    Args:
      run_peer: from `torch_runner`.
      epochs: of a trial.
      say: is told how long each took.

    Returns:
      Layout and number of threads: the best, and the best with one thread.
    """
    trials = {form: run_peer(*form, epochs=epochs)[1]["seconds"] for form in FORMS}
    for (layout, threads), seconds in trials.items():
        say(f"torch, {layout}, threads: {threads}: {seconds:.1f} s for {epochs} epochs")
    ordered = sorted(trials, key=lambda form: trials[form])
    return ordered[0], next(form for form in ordered if form[1] == 1)


def run_peer_loop(
    run_peer: RunPeer,
    cells: Sequence[tuple[int, float]],
    count: int,
    epochs: int,
    form: Form,
    *,
    at_once: int = 1,
    say: Callable[[str], None],
) -> tuple[float, list[Trained]]:
    """Train with torch in turn, or several scripts at once.

    Args:
      run_peer: from `torch_runner`.
      cells: (seed, rate) of each run that is timed.
      count: how many runs the whole loop has.
      epochs: of each run.
      form: layout of images and kernels in memory, and threads of torch.
      at_once: how many scripts run side by side.
      say: is told what came.

    Returns:
      Seconds of all `count`, those that are not timed taken to be like the others; and the timed runs.
    """

    def one(cell: tuple[int, float]) -> Trained:
        seed, rate = cell
        _, result = run_peer(*form, epochs=epochs, seed=seed, rate=rate)
        return Trained(seed, rate, result["validation"], result["accuracy"], result["parameters"])

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(one, cells))
    total = count * (time.perf_counter() - started) / len(cells)
    say(told(f"torch, {len(cells)} of {count} runs, at once: {at_once}", total, found))
    return total, found
