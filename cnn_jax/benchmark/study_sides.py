"""Our sides of the study benchmark, as timed commands: a study, and the same runs in turn."""

import csv
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnn_jax.benchmark.whole_command import ROOT, own_environment, timed
from cnn_jax.errors import UserError
from cnn_jax.train.run_directory import RESULT, read_json

CONFIG = ROOT / "configs" / "quickstart.py"
STUDY_FILE = '''"""Learning rates of a network; written by `experiments/benchmark.py study`."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict(convert_dict=False)
    for name, value in {values!r}.items():
        config[name] = value
    return config.lock()
'''


class Trained(NamedTuple):
    """What one run came to.

    Attributes:
      seed: its seed.
      rate: its learning rate.
      validation: accuracy.
      test: accuracy.
      parameters: of its network.
    """

    seed: int
    rate: float
    validation: float
    test: float
    parameters: int


def write_study_file(path: pathlib.Path, *, epochs: int, seeds: int, rates: Sequence[float]) -> pathlib.Path:
    """Write the study: the quickstart's network at each rate, the first of which is the baseline's.

    Args:
      path: of the file.
      epochs: of each run.
      seeds: how many, from 0.
      rates: at least two.
    """
    others = {_variant(rate, rates): rate for rate in rates[1:]}
    values = {
        "id": "benchmark",
        "title": "Learning rates",
        "claim": "The learning rate makes no difference.",
        "baseline": str(CONFIG),
        "overrides": {**settings(epochs), "optimizer.learning_rate": rates[0]},
        "variants": {name: {"optimizer.learning_rate": rate} for name, rate in others.items()},
        "seeds": tuple(range(seeds)),
        "measures": {"test/accuracy": {"share": True}},
        "comparisons": tuple(
            {"measure": "test/accuracy", "variant": name, "claim": "equal", "smallest": 0.01} for name in others
        ),
    }
    path.write_text(STUDY_FILE.format(values=values), encoding="utf-8")
    return path


def accuracy(runs: Sequence[Trained]) -> dict[str, float | int]:
    """The mean test accuracy over seeds at the rate that is best on the validation split.

    Args:
      runs: at least one.

    Returns:
      `rate`, `test`, and `runs`, the number of seeds.
    """
    by_rate: dict[float, list[Trained]] = {}
    for run in runs:
        by_rate.setdefault(run.rate, []).append(run)
    best = max(by_rate, key=lambda rate: statistics.fmean(run.validation for run in by_rate[rate]))
    return {"rate": best, "test": statistics.fmean(run.test for run in by_rate[best]), "runs": len(by_rate[best])}


def settings(epochs: int) -> dict[str, Any]:
    """What differs from the quickstart's config, of the study and of our own runs in turn.

    Args:
      epochs: of each run.
    """
    return {
        "train.duration": {"epochs": epochs},
        "train.figures": False,
        "train.save_every": {"epochs": epochs},
    }


def _variant(rate: float, rates: Sequence[float]) -> str:
    return "baseline" if rate == rates[0] else f"rate {rate}"


def _environment(cache: pathlib.Path, device: str) -> dict[str, str]:
    """Of our commands: a cache of their own, the platform of the peer."""
    return {**own_environment(cache), **({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {})}


def run_study(
    folder: pathlib.Path,
    study: pathlib.Path,
    rates: Sequence[float],
    workers: int,
    device: str,
    overrides: Sequence[str],
    *,
    say: Callable[[str], None],
) -> tuple[float, list[Trained]]:
    """Run the study with an empty cache of compiled programs.

    Args:
      folder: for its directories.
      study: the file.
      rates: those of the file, in its order.
      workers: processes.
      device: "cpu" or "gpu".
      overrides: `--config.key=value` assignments.
      say: is told what came.

    Returns:
      Seconds, and the runs that did not diverge.
    """
    cache, workdir = (pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=folder)) for prefix in ("cache_", "study_"))
    script = str(ROOT / "experiments" / "study.py")
    arguments = [f"--study={study}", f"--workdir={workdir}", f"--workers={workers}", *overrides]
    seconds, _ = timed([sys.executable, script, *arguments], _environment(cache, device))
    with (workdir / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "completed"]
    if not rows:
        raise UserError("every run of the study diverged; give smaller --rates")
    rate_of = {_variant(rate, rates): rate for rate in rates}
    found = [
        Trained(
            seed=int(row["seed"]),
            rate=rate_of[row["variant"]],
            validation=float(row["validation/accuracy"]),
            test=float(row["test/accuracy"]),
            parameters=int(float(row["parameters"])),
        )
        for row in rows
    ]
    say(told("the study", seconds, found))
    return seconds, found


def run_own_loop(
    folder: pathlib.Path,
    cells: Sequence[tuple[int, float]],
    count: int,
    epochs: int,
    device: str,
    overrides: Sequence[str],
    about: dict[str, Any],
    *,
    say: Callable[[str], None],
) -> tuple[float, list[Trained]]:
    """Train our runs in turn, the first with an empty cache of compiled programs.

    Args:
      folder: for their directories.
      cells: (seed, rate) of each run that is timed, at least two.
      count: how many runs the whole loop has.
      epochs: of each run.
      device: "cpu" or "gpu".
      overrides: `--config.key=value` assignments.
      about: is given the name of the device.
      say: is told what came.

    Returns:
      Seconds of all `count`, those that are not timed taken to be like the second and later ones; and the timed runs.
    """
    environment = _environment(pathlib.Path(tempfile.mkdtemp(prefix="cache_", dir=folder)), device)
    script = str(ROOT / "experiments" / "train.py")
    shared = [f"--config.{path}={value!r}" for path, value in settings(epochs).items()]
    taken, found = [], []
    for seed, rate in cells:
        run = tempfile.mkdtemp(prefix="run_", dir=folder)
        own = [f"--config.seed={seed}", f"--config.optimizer.learning_rate={rate}"]
        arguments = [f"--config={CONFIG}", f"--workdir={run}", *shared, *overrides, *own]
        seconds, _ = timed([sys.executable, script, *arguments], environment)
        result = read_json(pathlib.Path(run) / RESULT)
        about["device"] = result["hardware"]["device"]
        metrics = result["metrics"]
        found.append(
            Trained(seed, rate, metrics["validation/accuracy"], metrics["test/accuracy"], result["parameters"])
        )
        taken.append(seconds)
    total = taken[0] + (count - 1) * statistics.fmean(taken[1:])
    say(told(f"our runs in turn, {len(cells)} of {count}, the first {taken[0]:.1f} s", total, found))
    return total, found


def told(what: str, seconds: float, runs: Sequence[Trained]) -> str:
    """A line for the user.

    Args:
      what: was run.
      seconds: of all runs.
      runs: those that were timed.
    """
    best = accuracy(runs)
    shown = f"test accuracy {best['test']:.4f} at rate {best['rate']} (seeds: {best['runs']})"
    return f"{what}: {seconds:.1f} s in all, {shown}"
