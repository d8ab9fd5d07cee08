"""The rows of a benchmark: workers are started, warmed up and measured in turn, one network after the other."""

import contextlib
import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cnn_jax.benchmark.cases import Case
from cnn_jax.benchmark.peer import SCRIPTS, peer_environment
from cnn_jax.benchmark.rounds import Worker, busy_seconds, compare, measure_in_turn
from cnn_jax.benchmark.store import cores
from cnn_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
WARM_UP_STEPS = 2
OPERATIONS_PER_MAC = {"train": 6, "forward": 2}
"""A multiplication and an addition; in training for the output, the input's gradient and the kernel's."""
TRIAL_ROUNDS = 3
# Two processes share a GPU: JAX would reserve most of its memory.
SHARED_CARD = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


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
        return Worker(self.command, environment=self.environment, options=self.options)


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
    """Warm up all variants of both sides, choose each side's fastest, and measure the two in turn."""
    warm_up, trials, sides, chosen = {}, {}, {}, {}
    for side, worker in workers.items():
        variants = about[side]["variants"]
        for name in variants:
            request = {"case": dataclasses.asdict(case), "mode": mode, "variant": name, "warm_up": WARM_UP_STEPS}
            seconds = worker.ask("prepare", **request)["seconds"]
            warm_up[f"{side}, {name}"] = seconds
            say(f"{case.model} {mode}: {side}, {name}, compiled and warmed up in {seconds:.1f} s")
        timers = {name: _timer(worker, name) for name in variants}
        if len(variants) > 1:
            found = measure_in_turn(
                timers, rounds=TRIAL_ROUNDS, turn_seconds=protocol.turn_seconds / 2, budget_seconds=0.0
            )
            trials |= {name: about[side]["examples"] / min(seconds) for name, seconds in found.items()}
        chosen[side] = max(variants, key=lambda name: trials.get(name, 0.0))
        sides[side] = timers[chosen[side]]
    before = _used(workers.values())
    found = measure_in_turn(
        sides, rounds=protocol.rounds, turn_seconds=protocol.turn_seconds, budget_seconds=protocol.row_seconds
    )
    others = _share_of_others(before, _used(workers.values()))
    rates = {side: [about[side]["examples"] / seconds for seconds in found[side]] for side in workers}
    numbers = compare(rates["ours"], rates.get("peer"))
    return {
        "model": case.model,
        "mode": mode,
        **numbers,
        "flops_per_second": numbers["ours"] * about["ours"]["macs"] * OPERATIONS_PER_MAC[mode],
        "batch_size": about["ours"]["batch_size"],
        "image": list(case.image),
        "parameters": about["ours"]["parameters"],
        "device": about["ours"]["device"] if about["ours"]["platform"] != "cpu" else None,
        "runs": about["ours"]["runs"],
        "variant": chosen["ours"],
        "peer_variant": chosen.get("peer"),
        "trials": trials,
        "peer_versions": about["peer"]["versions"] if "peer" in about else {},
        "warm_up_seconds": warm_up,
        "others": others,
    }


def _used(workers: Iterable[Worker]) -> tuple[float, float | None, float | None]:
    """(now, processor seconds of the whole machine, those of the workers)."""
    own = [worker.cpu_seconds() for worker in workers]
    known = [seconds for seconds in own if seconds is not None]
    return time.perf_counter(), busy_seconds(), sum(known) if len(known) == len(own) else None


def _share_of_others(
    before: tuple[float, float | None, float | None], after: tuple[float, float | None, float | None]
) -> float | None:
    """How much of the machine's processor time other processes took, 0 to 1; None where the system does not tell."""
    (start, busy_before, own_before), (stop, busy_after, own_after) = before, after
    if busy_before is None or busy_after is None or own_before is None or own_after is None:
        return None
    used = (busy_after - busy_before) - (own_after - own_before)
    return max(0.0, used / ((stop - start) * (os.cpu_count() or 1)))


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
