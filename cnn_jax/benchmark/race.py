"""Two worker processes in turn: every form of each side is tried, the fastest of them is measured."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cnn_jax.benchmark.rounds import Worker, busy_seconds, compare, measure_in_turn

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
    """How one side's worker is started, and what its requests have besides the row.

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


def race(
    label: str,
    workers: Mapping[str, Worker],
    about: Mapping[str, Mapping[str, Any]],
    *,
    request: Mapping[str, Any],
    protocol: Protocol,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Warm up all variants of both sides, choose each side's fastest, and measure the two in turn.

    Args:
      label: of the row, for `say`.
      workers: "ours", and "peer" where there is one.
      about: of each side, `variants` and `examples`, how many a step has.
      request: what to prepare, besides the variant.
      protocol: how long and how often.
      say: is told what goes on, one line at a time.

    Returns:
      As `compare`, with `variant` and `peer_variant`, those that were measured; `trials`, examples per second of all;
      `warm_up_seconds`; `peer_versions`; `others`, the share of the machine that other processes took.
    """
    warm_up, trials, sides, chosen = {}, {}, {}, {}
    for side, worker in workers.items():
        variants = about[side]["variants"]
        for name in variants:
            seconds = worker.ask("prepare", **request, variant=name, warm_up=WARM_UP_STEPS)["seconds"]
            warm_up[f"{side}, {name}"] = seconds
            say(f"{label}: {side}, {name}, compiled and warmed up in {seconds:.1f} s")
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
    return {
        **compare(rates["ours"], rates.get("peer")),
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
