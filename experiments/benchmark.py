"""Time training: ours and PyTorch in turn on this CPU, with medians and ratios.

Example:
  python experiments/benchmark.py cpu --rows=lenet5:train,resnet20 --torch-python=/path/to/venv/bin/python
"""

import sys
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

from cnn_jax import command
from cnn_jax.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Run one subcommand."""
    parser = command.Parser("Time training, in turn with PyTorch.")
    commands = parser.add_subparsers(dest="command", required=True)
    cpu = commands.add_parser(
        "cpu",
        help="steps and forward passes on this CPU",
        description="Examples per second on this CPU, against PyTorch.",
    )
    cpu.add_argument("--rows", default="", help="such as lenet5:train,resnet20; default: all")
    cpu.add_argument("--torch-python", metavar="PATH", help="a Python with torch; default: an environment made once")
    cpu.add_argument(
        "--peer", default="torch", choices=("torch", "plain", "none"), help="plain: ours without the flags below"
    )
    cpu.add_argument(
        "--environment", action="append", default=[], metavar="KEY=VALUE", help="for our worker, such as XLA_FLAGS=…"
    )
    cpu.add_argument("--rounds", type=int, default=5, help="at least this many")
    cpu.add_argument("--row-seconds", type=float, default=25.0, help="more rounds while they fit into this")
    cpu.add_argument("--turn-seconds", type=float, default=1.0, help="one side's turn")
    known, overrides = parser.parse_known_args(arguments)
    return run_cpu(known, overrides)


def run_cpu(known: Any, overrides: Sequence[str]) -> int:
    """The CPU table."""
    from cnn_jax.benchmark.cases import CPU_CASES, select
    from cnn_jax.benchmark.peer import find_torch
    from cnn_jax.benchmark.table import Protocol, measure, our_side, torch_side

    selection = select(known.rows, CPU_CASES)
    for assignment in known.environment:
        if "=" not in assignment:
            raise UserError(f"--environment={assignment} is no KEY=VALUE")
    environment = dict(assignment.split("=", 1) for assignment in known.environment)
    peer, why = None, "--peer=none"
    if known.peer == "plain":
        peer = our_side()
    elif known.peer == "torch":
        python, why = find_torch(known.torch_python)
        peer = torch_side(python) if python else None
    if peer is None:
        print(f"no peer: {why}")
    rows = list(
        measure(
            selection,
            ours=our_side(overrides=overrides, environment=environment),
            peer=peer,
            protocol=Protocol(rounds=known.rounds, turn_seconds=known.turn_seconds, row_seconds=known.row_seconds),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    )
    show(rows)
    return 0


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The rows as a table."""
    table = rich.table.Table(title="examples per second, medians over rounds")
    for name in ("model", "mode", "ours", "peer", "ratio", "least to greatest", "peer's variant"):
        table.add_column(name, justify="left" if name in ("model", "mode", "peer's variant") else "right")
    for row in rows:
        peer = ("–",) * 4
        if row["ratio"] is not None:
            least, greatest = row["ratio_spread"]
            peer = (f"{row['peer']:,.1f}", f"{row['ratio']:.2f}×", f"{least:.2f} – {greatest:.2f}", row["peer_variant"])
        table.add_row(row["model"], row["mode"], f"{row['ours']:,.1f}", *peer)
    rich.console.Console(soft_wrap=True).print(table)


if __name__ == "__main__":
    command.run(main)
