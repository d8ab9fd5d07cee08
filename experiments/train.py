"""Train a network from a config file: train, evaluate, report; continue with --resume.

Example:
  python experiments/train.py --config=configs/quickstart.py --workdir=runs/quickstart --config.seed=1
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.table

from cnn_jax import command


def main(arguments: Sequence[str]) -> int:
    """Train, and print the result."""
    parser = command.config_parser("Train a network from a config file.")
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="the run directory; everything is written there"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in the directory, if there is one")
    known, config = command.parse(parser, arguments)
    from cnn_jax.train.session import train  # after the arguments are known to be good: it starts JAX

    result = train(config, known.workdir, resume=known.resume)
    show(result, pathlib.Path(known.workdir))
    return 1 if result["status"] == "diverged" else 0


def show(result: Mapping[str, Any], workdir: pathlib.Path) -> None:
    """The result as a table, where the run directory is, and what to do next."""
    console = rich.console.Console(soft_wrap=True)
    table = rich.table.Table(title=f"{result['model']}, seed {result['seed']}: {result['status'].replace('_', ' ')}")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in result["metrics"].items():
        table.add_row(name, "–" if value is None else f"{value:.4f}")
    table.add_section()
    table.add_row("steps", f"{result['steps']:,}")
    table.add_row("wall time", f"{result['wall_seconds']:.1f} s")
    if result["examples_per_second"] is not None:
        table.add_row("training speed", f"{result['examples_per_second']:,.0f} examples/s")
    console.print(table)
    if "message" in result:
        console.print(f"error: {result['message']}", highlight=False)
    directory = workdir.expanduser().resolve()
    console.print(f"Run directory: {directory}", highlight=False)
    console.print(f"Next: read {directory / 'report.md'} (figures beside it), or", highlight=False)
    console.print(f"  python experiments/evaluate.py --run='{workdir}'", highlight=False)


if __name__ == "__main__":
    command.run(main)
