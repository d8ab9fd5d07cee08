"""Stored benchmarks: JSON with hardware, versions, commit and command, and the README's section made of it."""

import os
import pathlib
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.processor import processor
from cnn_jax.train.passport import git_state, versions
from cnn_jax.train.run_directory import read_json, write_json

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "results" / "benchmarks"
NOT_QUIET = 0.05
"""Share of the machine's time that other processes may take before a table says so."""

OF_THIS_MACHINE = ("--torch-python", "--tensorflow-python")
PEERS = {"torch": "PyTorch", "tensorflow": "TensorFlow", "pillow": "Pillow"}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def document(
    rows: Sequence[Mapping[str, Any]], *, peer_versions: Mapping[str, str], device: str | None = None
) -> dict[str, Any]:
    """Rows with everything that their numbers depend on.

    Args:
      rows: with `model`, `mode`, `ours`, `peer`, `ratio`.
      peer_versions: of the peer's packages.
      device: the accelerator; default is the processor.
    """
    git = git_state()
    flags = {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_PLATFORMS") if name in os.environ}
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        # Paths of this machine are nobody's business.
        "command": [pathlib.Path(sys.argv[0]).name, *(a for a in sys.argv[1:] if not a.startswith(OF_THIS_MACHINE))],
        "commit": git["commit"],
        "dirty": git["dirty"],
        "hardware": {"device": device or processor(), "cores": cores(), "system": platform.system()},
        "versions": {"python": platform.python_version(), **versions(), **peer_versions},
        "flags": flags,
        "rows": [dict(row) for row in rows],
    }


def save(name: str, contents: Mapping[str, Any]) -> pathlib.Path:
    """Write `experiments/results/benchmarks/<name>.json`, in place of what was there."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, contents)
    return path


def stored() -> dict[str, dict[str, Any]]:
    """Name to contents of every stored benchmark."""
    return {path.stem: read_json(path) for path in sorted(RESULTS.glob("*.json"))}


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's section: one table a stored benchmark, below it where and with what it was made."""
    if not found:
        return "No benchmarks are stored yet."
    return "\n\n".join(f"{_table(contents['rows'])}\n\n{_origin(name, contents)}" for name, contents in found.items())


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    other = "one run alone" if any(row.get("runs", 1) > 1 for row in rows) else "PyTorch"
    if any("goal" in row for row in rows):  # of several peers; each row names its own
        other = "peer"
    lines = [
        f"| model | mode | images | batch | ours | {other} | ratio | least – greatest | {other}'s fastest form |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        peer = ("–",) * 4
        if row["ratio"] is not None:
            least, greatest = row["ratio_spread"]
            form = row["peer_variant"].replace("_", " ")
            peer = (_number(row["peer"]), f"{row['ratio']:.2f}×", f"{least:.2f} – {greatest:.2f}", form)
        size = "×".join(str(axis) for axis in row["image"])
        many = f", {row['runs']} runs: {row['variant']}" if row.get("runs", 1) > 1 else ""
        cells = (f"`{row['model']}`", row["mode"] + many, size, f"{row['batch_size']}", _number(row["ours"]), *peer)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _origin(name: str, contents: Mapping[str, Any]) -> str:
    """Hardware, versions, commit and command in a sentence, and whether the machine was quiet."""
    hardware, packages = contents["hardware"], contents["versions"]
    torch = "".join(f", {shown} {packages[name]}" for name, shown in PEERS.items() if name in packages)
    if all(row["peer"] is None for row in contents["rows"]):
        torch = ", without PyTorch"
    commit = f"`{contents['commit'][:9]}`" if contents["commit"] else "no commit"
    changed = " with uncommitted changes" if contents["dirty"] else ""
    rounds = sorted({row["rounds"] for row in contents["rows"]})
    span = f"{rounds[0]} to {rounds[-1]} rounds" if len(rounds) > 1 else f"{rounds[0]} round" + "s" * (rounds[0] > 1)
    others = max((row["others"] for row in contents["rows"] if row["others"] is not None), default=0.0)
    noise = f" Other processes took up to {others:.0%} of the machine." if others > NOT_QUIET else ""
    return (
        f"Medians of {span} in turn, examples per second: {hardware['device']},"
        f" {hardware['cores']} cores, JAX {packages['jax']}{torch}, commit {commit}{changed},"
        f" `{' '.join(contents['command'])}`, `experiments/results/benchmarks/{name}.json`.{noise}"
    )
