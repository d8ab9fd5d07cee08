"""The other side of the study benchmark: a loop over a torch script that trains the same network."""

import itertools
import json
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnn_jax.benchmark.peer import SCRIPTS, peer_environment
from cnn_jax.benchmark.store import cores
from cnn_jax.benchmark.study_sides import Trained, told
from cnn_jax.benchmark.whole_command import timed
from cnn_jax.train.config import Config

FORMS = tuple(itertools.product(("eager", "channels_last"), dict.fromkeys((cores(), 1))))
"""Of the torch script: memory layout and threads; small networks may be faster with one."""
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


def fastest_form(run_peer: RunPeer, epochs: int, *, say: Callable[[str], None]) -> tuple[str, int]:
    """The form of the script that trains fastest, start-up apart: all have the same.

    Args:
      run_peer: from `torch_runner`.
      epochs: of a trial.
      say: is told how long each took.

    Returns:
      Layout and number of threads.
    """
    trials = {form: run_peer(*form, epochs=epochs)[1]["seconds"] for form in FORMS}
    for (layout, threads), seconds in trials.items():
        say(f"torch, {layout}, threads: {threads}: {seconds:.1f} s for {epochs} epochs")
    return min(trials, key=lambda form: trials[form])


def run_peer_loop(
    run_peer: RunPeer,
    cells: Sequence[tuple[int, float]],
    count: int,
    epochs: int,
    layout: str,
    threads: int,
    *,
    say: Callable[[str], None],
) -> tuple[float, list[Trained]]:
    """Train with torch in turn.

    Args:
      run_peer: from `torch_runner`.
      cells: (seed, rate) of each run that is timed.
      count: how many runs the whole loop has.
      epochs: of each run.
      layout: of images and kernels in memory.
      threads: of torch.
      say: is told what came.

    Returns:
      Seconds of all `count`, those that are not timed taken to be like the others; and the timed runs.
    """
    taken, found = [], []
    for seed, rate in cells:
        seconds, result = run_peer(layout, threads, epochs=epochs, seed=seed, rate=rate)
        found.append(Trained(seed, rate, result["validation"], result["accuracy"], result["parameters"]))
        taken.append(seconds)
    total = count * statistics.fmean(taken)
    say(told(f"torch, {len(cells)} of {count} runs", total, found))
    return total, found
