"""Measuring in turn: the order of turns, the statistics, and workers that end early."""

import sys

import pytest

from cnn_jax.benchmark import rounds
from cnn_jax.benchmark.rounds import Worker, WorkerError, compare, measure_in_turn

ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"got": json.loads(line)}), flush=True)
"""


def worker(code):
    return Worker([sys.executable, "-c", code], environment={}, options={"device": "cpu"})


def test_a_worker_answers_and_ends_with_its_input():
    with worker(ECHO) as process:
        assert process.ask("run", steps=3) == {"got": {"do": "run", "device": "cpu", "steps": 3}}
        assert process.ask("describe") == {"got": {"do": "describe", "device": "cpu"}}
        assert process.cpu_seconds() is None or process.cpu_seconds() >= 0
    assert process._process.returncode == 0


def test_a_worker_that_fails_says_why():
    fails = "import sys; sys.stdin.readline(); raise SystemExit('no such network')"
    with worker(fails) as process, pytest.raises(WorkerError, match="no such network"):
        process.ask("describe")
    with worker("pass") as process, pytest.raises(WorkerError, match="exit status 0"):
        process.ask("describe")


def test_sides_take_turns_in_both_orders(monkeypatch):
    monkeypatch.setattr(rounds, "PAUSE_SECONDS", 0.0)
    calls = []

    def side(name, seconds_per_step):
        def run(steps):
            calls.append((name, steps))
            return steps * seconds_per_step

        return run

    sides = {"ours": side("ours", 0.1), "peer": side("peer", 0.25)}
    found = measure_in_turn(sides, rounds=3, turn_seconds=1.0, budget_seconds=0.0)
    assert calls[:2] == [("ours", 2), ("peer", 2)]  # how long a step takes
    assert calls[2:] == [("ours", 10), ("peer", 4), ("peer", 4), ("ours", 10), ("ours", 10), ("peer", 4)]
    assert found["ours"] == pytest.approx([0.1] * 3)
    assert found["peer"] == pytest.approx([0.25] * 3)


def test_a_budget_adds_rounds(monkeypatch):
    monkeypatch.setattr(rounds, "PAUSE_SECONDS", 0.0)
    sides = {"ours": lambda steps: steps * 1.0}
    assert len(measure_in_turn(sides, rounds=2, turn_seconds=1.0, budget_seconds=60.0, most_rounds=7)["ours"]) == 7


def test_medians_and_ratios_of_rounds():
    # A machine that slows down both sides in one round leaves that round's ratio as it is.
    row = compare([100.0, 10.0, 50.0], [50.0, 5.0, 100.0])
    assert (row["ours"], row["ours_spread"]) == (50.0, [10.0, 100.0])
    assert (row["peer"], row["peer_spread"]) == (50.0, [5.0, 100.0])
    assert (row["ratio"], row["ratio_spread"], row["rounds"]) == (2.0, [0.5, 2.0], 3)
    alone = compare([100.0], None)
    assert (alone["peer"], alone["ratio"], alone["ratio_spread"]) == (None, None, None)
