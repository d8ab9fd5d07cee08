"""A whole study, start to finish, against a loop over a torch script of the same runs and against our runs in turn."""

import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from cnn_jax.benchmark.rounds import PAUSE_SECONDS, compare
from cnn_jax.benchmark.store import cores
from cnn_jax.benchmark.study_peer import fastest_forms, run_peer_loop, torch_runner
from cnn_jax.benchmark.study_sides import (
    CONFIG,
    Trained,
    accuracy,
    run_own_loop,
    run_study,
    settings,
    write_study_file,
)
from cnn_jax.benchmark.whole_command import export_splits
from cnn_jax.errors import UserError
from cnn_jax.train.config import Config, resolve
from cnn_jax.train.config_file import load, override
from cnn_jax.train.duration import Duration

GOAL = {"cpu": 3.0, "gpu": 20.0}
"""How many times faster than the loop over the torch script a study should be."""
OF_THE_STUDY = ("seed", "optimizer.learning_rate", "train.duration", "data.batch_size")
"""Keys that the benchmark sets, or that the script knows only by the benchmark's arguments."""


def measure_study(
    *,
    epochs: int,
    seeds: int,
    rates: Sequence[float],
    runs_of_loop: int,
    workers: int,
    rounds: int,
    device: Literal["cpu", "gpu"],
    python: Callable[[], str | None],
    overrides: Sequence[str],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row against the loop over the torch script, and one against our own runs in turn; each side starts cold.

    On a CPU with several cores there is a row against as many loops at once, too, each with one thread and its share of
    the runs: what somebody does who does not wait.

    A study is all of the command: start, plan with its measured steps, compilation, training, evaluation and report,
    with an empty cache of compiled programs; the library of convolutions is there, as torch's is. Of each loop
    `runs_of_loop` runs, each a process of its own, are timed, and the rest is taken to be like them. Our own loop
    begins with an empty cache too, and finds its programs there from the second run on. All evaluate ten times; ours
    save once, at the end, and draw no figures of single runs.

    Args:
      epochs: of each run.
      seeds: how many.
      rates: learning rates; each is trained with every seed.
      runs_of_loop: how many runs of a loop are timed.
      workers: processes of the study.
      rounds: how often each side is timed, in turn.
      device: on which both sides train.
      python: gives one with torch, once the arguments are checked; or None: then the row has our numbers alone.
      overrides: `--config.key=value` assignments for ours; the peer gets the images and labels of the config's splits,
        and has nothing else of it.
      say: is told what goes on, one line at a time.

    Raises:
      UserError: bad arguments, a command failed, or the sides trained networks of different sizes.
    """
    config = _checked(epochs, seeds, rates, runs_of_loop, workers, rounds, overrides)
    torch = python()
    cells = list(itertools.product(range(seeds), rates))
    some, at_once = cells[:runs_of_loop], min(cores(), runs_of_loop) if device == "cpu" else 1
    with tempfile.TemporaryDirectory(prefix="cnn_jax_benchmark_") as name:
        folder = pathlib.Path(name)
        images = export_splits(folder, config)
        study = write_study_file(folder / "study.py", epochs=epochs, seeds=seeds, rates=rates)
        about: dict[str, Any] = {"peer_variant": None, "versions": {}}
        sides: dict[str, Callable[[], tuple[float, list[Trained]]]] = {
            "ours": lambda: run_study(folder, study, rates, workers, device, overrides, say=say),
            "own loop": lambda: run_own_loop(folder, some, len(cells), epochs, device, overrides, about, say=say),
        }
        if torch is not None:
            run_peer = torch_runner(torch, folder, config, device, about)
            best, single = fastest_forms(run_peer, max(1, epochs // 3), say=say)
            about["peer_variant"] = f"a loop, {best[0]}, {best[1]} thread{'s' if best[1] > 1 else ''}"
            sides["peer"] = lambda: run_peer_loop(run_peer, some, len(cells), epochs, best, say=say)
            if at_once > 1:
                about["at_once"] = f"{at_once} loops at once, {single[0]}, 1 thread each"
                sides["peer at once"] = lambda: run_peer_loop(
                    run_peer, some, len(cells), epochs, single, at_once=at_once, say=say
                )
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        trained: dict[str, list[Trained]] = {}
        for index in range(rounds):
            for side in sides if index % 2 == 0 else reversed(sides):
                time.sleep(PAUSE_SECONDS)
                taken, trained[side] = sides[side]()
                seconds[side].append(taken)
    parameters = {side: sorted({run.parameters for run in runs}) for side, runs in trained.items()}
    if len(set(map(tuple, parameters.values()))) > 1:
        raise UserError(f"the networks differ, parameters: {parameters}")
    examples = len(cells) * epochs * len(images)
    speeds = {side: [examples / each for each in values] for side, values in seconds.items()}
    common = {
        "seeds": seeds,
        "learning_rates": list(rates),
        "workers": workers,
        "timed_runs_of_loop": runs_of_loop,
        "scaled_to_runs": len(cells),
        "seconds": seconds["ours"],
        "accuracy": {side: accuracy(runs) for side, runs in trained.items()},
        "batch_size": config.data.batch_size,
        "image": list(images.shape[1:]),
        "parameters": parameters["ours"][0],
        "device": about["device"] if device == "gpu" else None,
        "peer_versions": about["versions"],
        "others": None,
    }
    what = f"{seeds} seeds × {len(rates)} rates, epochs: {epochs}; loop: {runs_of_loop} runs timed"
    against = [
        ("peer", f"study of {what}", about["peer_variant"], {"goal": GOAL[device]}),
        ("own loop", f"the same study against our runs in turn; {what}", "our runs in turn", {}),
    ]
    if "peer at once" in sides:
        against.insert(
            1, ("peer at once", f"the same study against several scripts at once; {what}", about["at_once"], {})
        )
    return [
        {
            "model": config.model["name"],
            "mode": mode,
            **compare(speeds["ours"], speeds.get(side)),
            "peer_seconds": seconds.get(side),
            "peer_variant": variant,
            **goal,
            **common,
        }
        for side, mode, variant, goal in against
    ]


def _checked(
    epochs: int,
    seeds: int,
    rates: Sequence[float],
    runs_of_loop: int,
    workers: int,
    rounds: int,
    overrides: Sequence[str],
) -> Config:
    """The config, if all arguments are good."""
    for name, value in (("epochs", epochs), ("seeds", seeds), ("workers", workers), ("rounds", rounds)):
        if value < 1:
            raise UserError(f"--{name}={value} must be 1 or more")
    if len(rates) < 2 or len(set(rates)) < len(rates) or min(rates) <= 0:
        raise UserError(f"--rates={','.join(map(str, rates))} must be two or more different numbers above 0")
    if not 2 <= runs_of_loop <= seeds * len(rates):
        raise UserError(f"--runs-of-loop={runs_of_loop} must be from 2 to all {seeds * len(rates)} runs")
    for text in overrides:
        if text.removeprefix("--config.").startswith(OF_THE_STUDY):
            raise UserError(f"{text} is not the benchmark's to change; it has --seeds, --rates and --epochs")
    own = [f"--config.{path}={value!r}" for path, value in settings(epochs).items()]
    config = resolve(override(load(str(CONFIG)), [*own, *overrides]))
    assert config.train.duration == Duration(epochs=epochs)
    if None in dict(config.data.splits).values():
        raise UserError("the peer has three splits; name all of config.data.splits")
    return config
