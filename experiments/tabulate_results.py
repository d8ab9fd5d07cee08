"""Write the README's table of results from stored `result.json` files; store finished runs with --store.

Results live in experiments/results/<config>/seed-<seed>.json, one file a run, as the run wrote them.

Example:
  python experiments/tabulate_results.py --store runs/seed0 runs/seed1
"""

import hashlib
import json
import pathlib
import re
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax import command
from cnn_jax.errors import UserError
from cnn_jax.train.config import NOT_IDENTITY, identity
from cnn_jax.train.markdown_text import code, escape
from cnn_jax.train.run_directory import CONFIG, PASSPORT, RESULT, read_json, write_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "experiments" / "results"
BEGIN, END = "<!-- results: written by experiments/tabulate_results.py -->", "<!-- end of results -->"
VARYING = ("--config", "--workdir", "--resume", command.NO_CACHE, "--config.seed")
VARYING += tuple(f"--config.{section}.{key}" for section, key in (*NOT_IDENTITY, ("parallel", "devices")))
HEADER = ("config", "result", "n", "evaluated on", "parameters", "steps", "hardware", "commit")


def main(arguments: Sequence[str]) -> int:
    """Store runs if asked to, then write the table."""
    parser = command.Parser("Write the README's table of results.")
    parser.add_argument("--store", nargs="+", default=[], metavar="RUN", help="finished run directories to store first")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 2 if the table is out of date")
    known = parser.parse_args(arguments)
    for directory in known.store:
        print(f"stored {store(pathlib.Path(directory)).relative_to(ROOT)}")
    command.write_section(README, table(load()), begin=BEGIN, end=END, remedy="make results", check=known.check)
    return 0


def store(directory: pathlib.Path) -> pathlib.Path:
    """Copy a finished run's result, with the command that made it, to where the table reads it.

    Raises:
      UserError: the run is not finished, diverged, was made with uncommitted changes, or would replace the result of
        another experiment.
    """
    result = read_json(directory / RESULT)
    if result["status"] == "diverged":
        raise UserError(f"{directory} diverged: {result.get('message')}")
    if result["commit"] is None or result["dirty"] or len(result.get("commits", [None])) != 1:
        raise UserError(f"{directory} was made with uncommitted changes or several commits; commit, and run it again")
    options = _options(read_json(directory / PASSPORT)["sessions"][0]["command"][2:])
    if "--config" not in options:
        raise UserError(f"{directory} was not made by a command with --config, so nobody could repeat it")
    # The seed and the places differ between the runs of one row.
    overrides = {key: value for key, value in options.items() if key not in VARYING}
    file, _, variant = options["--config"].partition(":")
    experiment = _experiment(read_json(directory / CONFIG))
    parts = [pathlib.Path(file).stem, variant, experiment[:8] if overrides else ""]
    name = "-".join(part for part in parts if part)
    if not re.fullmatch(r"\w[\w.+=-]*", name) or not isinstance(result["seed"], int):  # they come from the run's files
        raise UserError(
            f"{directory} cannot be stored as {name!r}, seed {result['seed']!r}: no names of a folder and file"
        )
    target = RESULTS / name / f"seed-{result['seed']}.json"
    others = {read_json(path)["experiment"] for path in target.parent.glob("seed-*.json")}
    if others - {experiment}:
        raise UserError(f"{target.parent} holds results of another experiment; delete the folder if that is obsolete")
    if _metric(result) not in result["metrics"]:
        raise UserError(
            f"{directory} was evaluated on neither a test nor a validation split: it has no {_metric(result)}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shortened = {key: value for key, value in result.items() if key != "per_class"}
    shortened["hardware"] = {key: value for key, value in result["hardware"].items() if key != "host"}
    shown = " ".join([options["--config"], *(shlex.quote(f"{key}={value}") for key, value in overrides.items())])
    write_json(target, {**shortened, "config": shown, "experiment": experiment})
    return target


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """`--key=value` and `--key value` arguments as a dictionary."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        key, separator, value = rest.pop(0).partition("=")
        if not separator and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        found[key] = value
    return found


def _experiment(config: dict[str, Any]) -> str:
    """A digest of a resolved config without its seed and what belongs to a machine: equal for the runs of one row."""
    rest = {key: value for key, value in identity(config).items() if key not in ("seed", "parallel")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def load() -> dict[str, list[dict[str, Any]]]:
    """Config name to the results of its seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*/seed-*.json")):
        found.setdefault(path.parent.name, []).append(read_json(path))
    return found


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A Markdown table, one row a config: mean ± standard deviation over seeds, never a best run."""
    if not results:
        return "No results are stored yet."
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---|---:|---|---:|---:|---|---|"]
    for runs in results.values():
        metric = _metric(runs[0])
        data = runs[0]["data"][metric.partition("/")[0]]
        accuracies = [100 * run["metrics"][metric] for run in runs]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        commits = sorted({run["commit"][:9] for run in runs})
        cells = (
            code(str(runs[0]["config"])),
            f"{metric} {statistics.mean(accuracies):.2f}{spread} %",
            str(len(runs)),
            f"{data['examples']:,} × {code(data['origin'])}",
            f"{runs[0]['parameters']:,}",
            _range([run["steps"] for run in runs]),
            escape(", ".join(sorted({_hardware(run) for run in runs}))),
            ", ".join(map(code, commits)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _metric(run: Mapping[str, Any]) -> str:
    """The test accuracy, or that on the validation split where the run has no test split."""
    return ("test" if "test" in run["data"] else "validation") + "/accuracy"


def _range(values: Sequence[int]) -> str:
    """One number, or the least and the greatest: early stopping ends seeds at different steps."""
    return f"{values[0]:,}" if len(set(values)) == 1 else f"{min(values):,} – {max(values):,}"


def _hardware(run: Mapping[str, Any]) -> str:
    hardware = run["hardware"]
    if hardware["platform"] == "cpu":
        return f"{hardware['processor']}, {hardware['cores']} cores"
    return f"{hardware['devices']} × {hardware['device']}"


if __name__ == "__main__":
    command.run(main)
