"""The rows of `benchmark.py data`: ours against a peer in turn, in the peer's own environment."""

import contextlib
import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cnn_jax.benchmark.data_cases import DataRow, write_photographs
from cnn_jax.benchmark.peer import SCRIPTS, peer_environment
from cnn_jax.benchmark.race import Protocol, Side, describe, race
from cnn_jax.benchmark.rounds import Worker
from cnn_jax.benchmark.store import cores
from cnn_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
EQUAL_MOMENTS = 0.05
"""How far apart the moments of one batch of each side may be, normalised to a deviation of about 1."""
SCRIPT_OF = {"torch": "torch_data.py", "tensorflow": "tensorflow_data.py", "pillow": "pillow_decode.py"}

FindPython = Callable[[str], str | None]


def our_side(row: DataRow, *, side: str = "ours") -> Side:
    """A worker in this Python: our side, or the peer "fixed"."""
    # Batches of the host, and streams, are made on the CPU; a GPU beside it must not be taken.
    platform = {} if row.kind == "resident" else {"JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **platform}
    command = (sys.executable, "-m", "cnn_jax.benchmark.data_worker")
    return Side(command=command, environment=environment, options={"side": side})


def peer_side(row: DataRow, find_python: FindPython) -> Side | None:
    """The other side of a row.

    Args:
      row: whose `peer` it is.
      find_python: the name of a module to a Python that has it, or None after saying why there is none.
    """
    if row.peer == "fixed":
        return our_side(row, side="peer")
    python = find_python(row.peer)
    if python is None:
        return None
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = (python, str(SCRIPTS / SCRIPT_OF[row.peer]), str(cores()))
    return Side(command=command, environment={**peer_environment(), **quiet})


def measure_data(
    rows: Sequence[DataRow], *, find_python: FindPython, protocol: Protocol, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """One row for each of `rows`, with `goal`, the ratio that it should reach.

    Args:
      rows: of `data_cases`.
      find_python: as of `peer_side`; for "pillow" this Python will do.
      protocol: how long and how often.
      say: is told what goes on, one line at a time.

    Raises:
      UserError: the sides make other batches, or a worker failed.
    """
    with tempfile.TemporaryDirectory(prefix="cnn_jax_benchmark_") as name:
        photographs = pathlib.Path(name) / "photographs"
        for row in rows:
            say(f"{row.name}: starting")
            if row.kind == "stream":
                if not photographs.is_dir():
                    write_photographs(photographs, count=row.examples)
                row = dataclasses.replace(row, folder=str(photographs))
            found = _row(row, peer_side(row, find_python), protocol=protocol, say=say)
            say(describe(found))
            yield found


def _row(row: DataRow, peer: Side | None, *, protocol: Protocol, say: Callable[[str], None]) -> dict[str, Any]:
    request = {"row": dataclasses.asdict(row)}
    with contextlib.ExitStack() as opened:
        workers = {"ours": opened.enter_context(our_side(row).start())}
        if peer is not None:
            workers["peer"] = opened.enter_context(peer.start())
        about = {name: worker.ask("describe", **request) for name, worker in workers.items()}
        numbers = race(row.name, workers, about, request=request, protocol=protocol, say=say)
        if row.kind == "host" and "peer" in workers:
            _require_equal(row, workers, variant=numbers["peer_variant"])
    return {
        "model": row.name,
        "mode": row.mode,
        **numbers,
        "goal": row.goal,
        "batch_size": row.batch_size,
        "image": list(row.image),
        "examples": row.examples,
        "steps_per_dispatch": row.steps_per_dispatch,
    }


def _require_equal(row: DataRow, workers: Mapping[str, Worker], *, variant: str) -> None:
    """Refuse a comparison of different batches: other shapes, types or moments."""
    request = {"row": dataclasses.asdict(row), "variant": variant}
    ours, theirs = (workers[side].ask("sample", **request) for side in ("ours", "peer"))
    for what in ("shape", "type", "labels"):
        if ours[what] != theirs[what]:
            raise UserError(f"{row.name}: the sides differ, {what}: {ours[what]} and {theirs[what]}")
    for what in ("mean", "std"):
        if abs(ours[what] - theirs[what]) > EQUAL_MOMENTS:
            raise UserError(f"{row.name}: the sides differ, {what}: {ours[what]:.3f} and {theirs[what]:.3f}")
