"""The rows of a benchmark: workers are started, warmed up and measured in turn, one network after the other."""

import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cnn_jax.benchmark.cases import Case
from cnn_jax.benchmark.peer import SCRIPTS, peer_environment
from cnn_jax.benchmark.rounds import Worker, compare, measure_in_turn
from cnn_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
WARM_UP_STEPS = 2
TRIAL_ROUNDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How each row is measured.

    Attributes:
      rounds: at least this many.
      turn_seconds: how long one side runs before it is the other's turn.
      row_seconds: more rounds are made while a row's rounds fit into this.
    """

    rounds: int = 5
    turn_seconds: float = 1.0
    row_seconds: float = 25.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """How one side's worker is started, and what its requests have besides the case.

    Attributes:
      command: the process.
      environment: all of its environment variables.
      options: merged into every request.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def start(self) -> Worker:
        """A new worker process."""
        return Worker(self.command, environment=self.environment)


def our_side(*, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Side:
    """Our worker in this Python.

    Args:
      overrides: `--config.key=value` assignments.
      environment: variables that differ from this process's.
    """
    return Side(
        command=(sys.executable, "-m", "cnn_jax.benchmark.worker"),
        environment={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        options={"overrides": list(overrides)},
    )


def torch_side(python: str) -> Side:
    """The torch worker in another Python, with as many threads as there are cores."""
    return Side(command=(python, str(SCRIPTS / "torch_worker.py"), str(cores())), environment=peer_environment())


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(
    selection: Sequence[tuple[Case, Sequence[str]]],
    *,
    ours: Side,
    peer: Side | None,
    protocol: Protocol,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """One row for each case and mode.

    The peer's variants are tried first, in turn; the fastest of them is the peer of the row.

    Args:
      selection: cases and their modes.
      ours: our side.
      peer: the other, or None: then the row has our numbers alone.
      protocol: how long and how often.
      say: is told what goes on, one line at a time.

    Raises:
      UserError: the sides have different numbers of parameters, so they are not the same network.
    """
    for case, modes in selection:
        described = dataclasses.asdict(case)
        say(f"{case.model}: starting")
        with ours.start() as mine:
            theirs = None
            try:
                about = {"ours": mine.ask("describe", case=described, **ours.options)}
                if peer is not None:
                    theirs = peer.start()
                    about["peer"] = theirs.ask("describe", case=described, **peer.options)
                counts = {name: found["parameters"] for name, found in about.items()}
                if len(set(counts.values())) > 1:
                    raise UserError(f"{case.model}: the networks differ, parameters: {counts}")
                for mode in modes:
                    request = {"case": described, "mode": mode, "warm_up": WARM_UP_STEPS}
                    yield _row(case, request, mine, theirs, about, ours=ours, peer=peer, protocol=protocol, say=say)
            finally:
                if theirs is not None:
                    theirs.__exit__()


def _row(
    case: Case,
    request: Mapping[str, Any],
    mine: Worker,
    theirs: Worker | None,
    about: Mapping[str, Mapping[str, Any]],
    *,
    ours: Side,
    peer: Side | None,
    protocol: Protocol,
    say: Callable[[str], None],
) -> dict[str, Any]:
    mode = request["mode"]
    variant = about["ours"]["variants"][0]
    compiled = {"ours": mine.ask("prepare", **request, variant=variant, **ours.options)["seconds"]}
    say(f"{case.model} {mode}: ours compiled and warmed up in {compiled['ours']:.1f} s")
    sides = {"ours": _timer(mine, variant)}
    chosen, trials = None, {}
    if theirs is not None and peer is not None:
        for name in about["peer"]["variants"]:
            compiled[name] = theirs.ask("prepare", **request, variant=name, **peer.options)["seconds"]
            say(f"{case.model} {mode}: peer {name} warmed up in {compiled[name]:.1f} s")
        timers = {name: _timer(theirs, name) for name in about["peer"]["variants"]}
        found = measure_in_turn(timers, rounds=TRIAL_ROUNDS, turn_seconds=protocol.turn_seconds / 2, budget_seconds=0)
        trials = {name: case.batch_size / min(seconds) for name, seconds in found.items()}
        chosen = max(trials, key=trials.__getitem__)
        sides["peer"] = timers[chosen]
    load = os.getloadavg()[0]
    found = measure_in_turn(
        sides, rounds=protocol.rounds, turn_seconds=protocol.turn_seconds, budget_seconds=protocol.row_seconds
    )
    numbers = compare(case.batch_size, found["ours"], found.get("peer"))
    row = {
        "model": case.model,
        "mode": mode,
        **numbers,
        "batch_size": case.batch_size,
        "image": list(case.image),
        "parameters": about["ours"]["parameters"],
        "peer_variant": chosen,
        "peer_trials": trials,
        "warm_up_seconds": compiled,
        "load": load,
    }
    say(describe(row))
    return row


def _timer(worker: Worker, variant: str) -> Callable[[int], float]:
    return lambda steps: worker.ask("run", variant=variant, steps=steps)["seconds"]


def describe(row: Mapping[str, Any]) -> str:
    """A row as one line of text."""
    text = f"{row['model']} {row['mode']}: ours {row['ours']:,.1f} examples/s"
    if row["ratio"] is None:
        return text
    least, greatest = row["ratio_spread"]
    return (
        f"{text}, {row['peer_variant']} {row['peer']:,.1f}; {row['ratio']:.2f}× ({least:.2f} to {greatest:.2f},"
        f" {row['rounds']} rounds)"
    )


def today() -> str:
    """Now, as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
