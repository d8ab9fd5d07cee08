"""Write the README's table of results from stored `result.json` files; store finished runs with --store.

Results live in experiments/results/<config>/seed-<seed>.json, one file a run, as the run wrote them.

Example:
  python experiments/tabulate_results.py --store runs/seed0 runs/seed1
"""

import argparse
import json
import pathlib
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax import command
from cnn_jax.errors import UserError
from cnn_jax.train.run_directory import PASSPORT, RESULT, read_json, write_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "experiments" / "results"
BEGIN, END = "<!-- results: written by experiments/tabulate_results.py -->", "<!-- end of results -->"
HEADER = ("config", "result", "n", "evaluated on", "parameters", "steps", "hardware", "commit")


def main(arguments: Sequence[str]) -> int:
    """Store runs if asked to, then write the table."""
    parser = argparse.ArgumentParser(description="Write the README's table of results.", allow_abbrev=False)
    parser.add_argument("--store", nargs="+", default=[], metavar="RUN", help="finished run directories to store first")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 2 if the table is out of date")
    known = parser.parse_args(arguments)
    for directory in known.store:
        print(f"stored {store(pathlib.Path(directory)).relative_to(ROOT)}")
    text = README.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise UserError(f"{README} has no place for the table; it needs the lines {BEGIN!r} and {END!r}")
    before, _, rest = text.partition(BEGIN)
    updated = f"{before}{BEGIN}\n{table(load())}\n{END}{rest.partition(END)[2]}"
    if known.check:
        if updated != text:
            raise UserError("the README's table of results is out of date; run `make results`")
    elif updated != text:
        README.write_text(updated, encoding="utf-8")
        print(f"wrote the table of results into {README}")
    return 0


def store(directory: pathlib.Path) -> pathlib.Path:
    """Copy a finished run's result, with the command that made it, to where the table reads it.

    Raises:
      UserError: the run is not finished, diverged, or was made with uncommitted changes.
    """
    result = read_json(directory / RESULT)
    if result["status"] == "diverged":
        raise UserError(f"{directory} diverged: {result.get('message')}")
    if result["commit"] is None or result["dirty"]:
        raise UserError(f"{directory} was made with uncommitted changes; commit, and run it again")
    arguments = read_json(directory / PASSPORT)["sessions"][0]["command"]
    reference = next((a.removeprefix("--config=") for a in arguments if a.startswith("--config=")), None)
    if reference is None:
        raise UserError(f"{directory}: its command has no --config=FILE, so nobody could repeat it: {arguments}")
    # The seed and the places differ between the runs of one row.
    varying = ("--workdir", "--config.seed", "--config.data.directory", "--resume")
    kept = [a for a in arguments[1:] if not a.startswith(varying)]
    file, _, variant = reference.partition(":")
    name = pathlib.Path(file).stem + (f"-{variant}" if variant else "")
    target = RESULTS / name / f"seed-{result['seed']}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    shortened = {key: value for key, value in result.items() if key != "per_class"}
    write_json(target, {**shortened, "command": shlex.join(["python", *kept])})
    return target


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
    for name, runs in results.items():
        for key in ("config", "evaluated on", "parameters", "steps"):
            if len({json.dumps(_facts(run)[key]) for run in runs}) != 1:
                raise UserError(f"experiments/results/{name}: the runs differ in {key}; store runs of one config")
        facts = _facts(runs[0])
        accuracies = [100 * run["metrics"][facts["metric"]] for run in runs]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        commits = sorted({run["commit"][:9] for run in runs})
        cells = (
            f"`{facts['config']}`",
            f"{facts['metric']} {statistics.mean(accuracies):.2f}{spread} %",
            str(len(runs)),
            facts["evaluated on"],
            f"{facts['parameters']:,}",
            f"{facts['steps']:,}",
            ", ".join(sorted({_hardware(run) for run in runs})),
            ", ".join(f"`{commit}`" for commit in commits),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _facts(run: Mapping[str, Any]) -> dict[str, Any]:
    """What all runs of one row have in common."""
    split = "test" if "test" in run["data"] else "validation"
    config = run["command"].partition("--config=")[2].split(" ")[0]
    return {
        "config": config,
        "metric": f"{split}/accuracy",
        "evaluated on": f"{run['data'][split]['examples']:,} × `{run['data'][split]['origin']}`",
        "parameters": run["parameters"],
        "steps": run["steps"],
    }


def _hardware(run: Mapping[str, Any]) -> str:
    hardware = run["hardware"]
    if hardware["platform"] == "cpu":
        return f"{hardware['processor']}, {hardware['cores']} cores"
    return f"{hardware['devices']} × {hardware['device']}"


if __name__ == "__main__":
    command.run(main)
