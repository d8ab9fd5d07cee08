"""The rows of a benchmark: workers are started, warmed up and measured in turn, one network after the other."""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cnn_jax.benchmark.cases import Case
from cnn_jax.benchmark.peer import SCRIPTS, peer_environment
from cnn_jax.benchmark.race import Protocol, Side, describe, race
from cnn_jax.benchmark.rounds import Worker
from cnn_jax.benchmark.store import cores
from cnn_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPERATIONS_PER_MAC = {"train": 6, "forward": 2}
"""A multiplication and an addition; in training for the output, the input's gradient and the kernel's."""
# Two processes share a GPU: JAX would reserve most of its memory.
SHARED_CARD = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def our_side(
    *, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None, runs: int | None = None
) -> Side:
    """Our worker in this Python.

    Args:
      overrides: `--config.key=value` assignments.
      environment: variables that differ from this process's.
      runs: train so many seeds in one program, with the data on the device; default is the step of one run, with a
        batch that is there already.
    """
    return Side(
        command=(sys.executable, "-m", "cnn_jax.benchmark.worker"),
        environment={**os.environ, "PYTHONPATH": str(ROOT), **SHARED_CARD, **(environment or {})},
        options={"overrides": list(overrides), "runs": runs},
    )


def torch_side(
    python: str, *, device: str = "cpu", autocast: bool = False, environment: Mapping[str, str] | None = None
) -> Side:
    """The torch worker in another Python, with as many threads as there are cores.

    Args:
      python: one that can import torch.
      device: "cpu" or "cuda".
      autocast: compute in bfloat16 where torch's autocast does.
      environment: variables that differ from this process's.
    """
    return Side(
        command=(python, str(SCRIPTS / "torch_worker.py"), str(cores())),
        environment={**peer_environment(), **(environment or {})},
        options={"device": device, "autocast": autocast},
    )


def measure(
    selection: Sequence[tuple[Case, Sequence[str]]],
    *,
    ours: Side,
    peer: Side | None,
    protocol: Protocol,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """One row for each case and mode.

    The variants of a side are tried first, in turn; the fastest of them is the one that is measured.

    Args:
      selection: cases and their modes.
      ours: our side.
      peer: the other, or None: then the row has our numbers alone.
      protocol: how long and how often.
      say: is told what goes on, one line at a time.

    Raises:
      UserError: the sides have different numbers of parameters, so they are not the same network, or other batches; or
        a worker failed.
    """
    for case, modes in selection:
        say(f"{case.model}: starting")
        with contextlib.ExitStack() as opened:
            workers = {"ours": opened.enter_context(ours.start())}
            if peer is not None:
                workers["peer"] = opened.enter_context(peer.start())
            about = {name: worker.ask("describe", case=dataclasses.asdict(case)) for name, worker in workers.items()}
            for what in ("parameters", "batch_size"):
                counts = {name: found[what] for name, found in about.items()}
                if len(set(counts.values())) > 1:
                    raise UserError(f"{case.model}: the sides differ, {what}: {counts}")
            for mode in modes:
                row = _row(case, mode, workers, about, protocol=protocol, say=say)
                say(describe(row))
                yield row


def _row(
    case: Case,
    mode: str,
    workers: Mapping[str, Worker],
    about: Mapping[str, Mapping[str, Any]],
    *,
    protocol: Protocol,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the sides in turn, and add what is known of the network."""
    request = {"case": dataclasses.asdict(case), "mode": mode}
    numbers = race(f"{case.model} {mode}", workers, about, request=request, protocol=protocol, say=say)
    ours = about["ours"]
    return {
        "model": case.model,
        "mode": mode,
        **numbers,
        "flops_per_second": numbers["ours"] * ours["macs"] * OPERATIONS_PER_MAC[mode],
        "batch_size": ours["batch_size"],
        "image": list(case.image),
        "parameters": ours["parameters"],
        "device": ours["device"] if ours["platform"] != "cpu" else None,
        "runs": ours["runs"],
    }
