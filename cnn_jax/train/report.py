"""What a finished run says of itself: `result.json` for programs and `report.md` for people."""

import json
import pathlib
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax.train.checkpoint import Progress
from cnn_jax.train.config import sha256, to_plain
from cnn_jax.train.evaluate import scalars
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.markdown_text import code, escape, fenced
from cnn_jax.train.run_directory import REPORT, RunDirectory
from cnn_jax.train.state import TrainState


def make_result(
    experiment: Experiment, directory: RunDirectory, *, status: str, steps: int, progress: Progress
) -> dict[str, Any]:
    """The content of `result.json` for any end of a run; `describe_evaluation` adds what a finished one has.

    Args:
      experiment: what was run.
      directory: holds the passport.
      status: "completed", "early_stopped" or "diverged".
      steps: optimizer steps done.
      progress: times.
    """
    sessions = directory.sessions()
    passport = sessions[-1]
    speed = progress.timed_examples / progress.training_seconds if progress.training_seconds else None
    return {
        "status": status,
        "metrics": {},
        "steps": steps,
        "evaluated_step": None,
        "seed": experiment.config.seed,
        "config_sha256": sha256(experiment.config),
        "commit": passport["git"]["commit"],
        # Of all sessions: a run that was resumed from other code is not that of one commit.
        "commits": sorted({str(session["git"]["commit"]) for session in sessions}),
        "dirty": any(session["git"]["dirty"] for session in sessions),
        "wall_seconds": progress.seconds,
        "examples_per_second": speed,
        "model": experiment.config.model["name"],
        "data": {split: {"origin": d["origin"], "examples": d["examples"]} for split, d in passport["data"].items()},
        # Of this session: an image that an earlier one met is not met again before the next epoch.
        "corrupt": {split: list(data.corrupt) for split, data in experiment.splits.items() if data.corrupt},
        "hardware": passport["hardware"],
    } | ({"reduced_at": list(progress.reduced_at)} if progress.reduced_at else {})


def describe_evaluation(state: TrainState, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `result.json` says of the evaluated state.

    Args:
      state: what was evaluated; with early stopping not always the last one.
      values: split to its metrics; numbers go under `metrics`, arrays under `per_class`.
    """
    numbers: dict[str, float | None] = {}
    arrays: dict[str, Any] = {}
    for split, computed in values.items():
        # JSON has no NaN.
        numbers |= {name: v if np.isfinite(v) else None for name, v in scalars(computed, split).items()}
        arrays |= {f"{split}/{name}": np.asarray(v).tolist() for name, v in computed.items() if np.ndim(v)}
    return {
        "metrics": numbers,
        "evaluated_step": int(state.step),
        "parameters": sum(int(x.size) for x in jax.tree.leaves(state.params)),
        "per_class": arrays,
    }


def write_report(
    experiment: Experiment, directory: RunDirectory, result: Mapping[str, Any], figures: Sequence[pathlib.Path]
) -> None:
    """Write `report.md`: the result first, then figures, then what it takes to get the number again."""
    passport = directory.sessions()[-1]
    hardware, git = passport["hardware"], passport["git"]
    lines = [f"# {result['model']} on {escape(experiment.splits['train'].origin)}", ""]
    lines += [f"{result['status'].replace('_', ' ').capitalize()} after {result['steps']:,} steps;"]
    lines += [f"evaluated is the state of step {result['evaluated_step']:,}.", ""]
    if result["metrics"]:
        lines += ["| metric | value | measured on |", "|---|---:|---|"]
    else:
        lines += ["No split was evaluated: the config has neither validation nor test."]
    for name, value in result["metrics"].items():
        data = result["data"][name.partition("/")[0]]
        lines.append(f"| {name} | {_number(value)} | {data['examples']:,} × {code(data['origin'])} |")
    lines += ["", "## Figures", ""]
    for figure in figures:
        title = figure.stem.replace("_", " ").capitalize()
        lines += [f"### {title}", "", f"![{title}]({figure.relative_to(directory.path).as_posix()})", ""]
    for split, problems in result["corrupt"].items():
        lines += [f"## {len(problems):,} images of {split} could not be read", ""]
        lines += [*(f"- {escape(problem)}" for problem in problems), ""]
    lines += ["## Per class", "", *_per_class(experiment, result)]
    speed = result["examples_per_second"]
    rows = {
        "seed": result["seed"],
        **({"rates halved after diverging at step": result["reduced_at"]} if "reduced_at" in result else {}),
        "parameters": f"{result['parameters']:,}",
        "commit": f"{git['commit']}{' with uncommitted changes' if git['dirty'] else ''}",
        "started": passport["started"],
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "wall time": f"{result['wall_seconds']:.1f} s",
        "training speed": "not measured" if speed is None else f"{speed:,.0f} examples/s",
        "device": f"{hardware['devices']} × {hardware['device']} ({hardware['processor']}, {hardware['cores']} cores)",
        "versions": ", ".join(f"{name} {version}" for name, version in passport["versions"].items()),
        "config digest": result["config_sha256"],
    }
    lines += ["", "## Provenance", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {escape(str(value))} |" for name, value in rows.items()]
    lines += ["", "The command:", "", *fenced(shlex.join(passport["command"]).splitlines(), "sh")]
    lines += ["", "## Data", "", "| split | origin | examples | sha256 |", "|---|---|---:|---|"]
    lines += [
        f"| {s} | {escape(d['origin'])} | {d['examples']:,} | `{d['sha256'][:16]}…` |"
        for s, d in passport["data"].items()
    ]
    config = json.dumps(to_plain(experiment.config), indent=2, ensure_ascii=False)
    lines += ["", "## Config", "", *fenced(config.splitlines(), "json")]
    (directory.path / REPORT).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")


def _per_class(experiment: Experiment, result: Mapping[str, Any]) -> list[str]:
    """A table of precision, recall and F1 for the last evaluated split."""
    if not experiment.evaluation_splits:
        return ["No split was evaluated."]
    split = experiment.evaluation_splits[-1]
    columns = {name: result["per_class"].get(f"{split}/per_class_{name}") for name in ("precision", "recall", "f1")}
    if any(column is None for column in columns.values()):
        return ["The task has no per-class metrics."]
    lines = [
        f"On {code(experiment.splits[split].origin)}:",
        "",
        "| class | precision | recall | F1 |",
        "|---|---:|---:|---:|",
    ]
    names = class_names(experiment, len(columns["f1"]))
    for index, name in enumerate(names):
        cells = " | ".join(_number(column[index]) for column in columns.values())
        lines.append(f"| {escape(name)} | {cells} |")
    return lines


def class_names(experiment: Experiment, count: int) -> list[str]:
    """One name per output of the network: those of the data, then numbers."""
    known = experiment.splits["train"].class_names
    return [known[index] if index < len(known) else str(index) for index in range(count)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
