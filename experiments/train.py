"""Train a network from a config file: train, evaluate, report; continue with --resume.

Example:
  python experiments/train.py --config=configs/quickstart.py --workdir=runs/quickstart --config.seed=1
"""

import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.markup
import rich.table

from cnn_jax import command
from cnn_jax.paths import work_directory_path
from cnn_jax.train.config import resolve
from cnn_jax.train.config_file import override


def main(arguments: Sequence[str]) -> int:
    """Train, and print the result."""
    parser = command.config_parser("Train a network from a config file.")
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="the run directory; everything is written there"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in the directory, if there is one")
    parser.add_argument(
        "--on_divergence",
        choices=("stop", "restore_and_reduce"),
        help="after a loss that is not finite: stop, or go back, with half the rates",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="of process 0, or auto (Slurm, Kubernetes, TPU)",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes")
    parser.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    known, config = command.parse(parser, arguments)
    workdir = work_directory_path(known.workdir, example="runs/first")
    if known.on_divergence is not None:
        config = override(config, [f"--config.train.on_divergence={known.on_divergence}"])
    # After the arguments are known to be good: it starts JAX.
    from cnn_jax.train import distributed, run
    from cnn_jax.train.session import train, train_many

    # Before JAX takes a device.
    run.check_nodes(resolve({section: value for section, value in config.items() if section != "runs"}))
    distributed.start(coordinator=known.coordinator, processes=known.processes, process=known.process)
    if config.get("runs") is None:
        config.pop("runs", None)  # `--config.runs=none` makes one run of a file that has many
        results = {workdir: train(config, workdir, resume=known.resume)}
    else:
        results = train_many(config, workdir, resume=known.resume)
        results = {workdir / name: result for name, result in results.items()}
    for directory, result in results.items() if distributed.is_first() else ():
        show(result, directory)
    return 1 if any(result["status"] == "diverged" for result in results.values()) else 0


def show(result: Mapping[str, Any], workdir: pathlib.Path) -> None:
    """The result as a table, where the run directory is, and what to do next."""
    console = rich.console.Console(soft_wrap=True)
    table = rich.table.Table(title=f"{result['model']}, seed {result['seed']}: {result['status'].replace('_', ' ')}")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for split, data in result["data"].items():
        numbers = {name: v for name, v in result["metrics"].items() if name.startswith(f"{split}/")}
        if numbers:
            # Where a number comes from stands beside it: a validation split is no test set.
            origin = rich.markup.escape(data["origin"])
            table.add_row(f"[bold]{origin}[/bold]", f"{data['examples']:,} examples")
        for name, value in numbers.items():
            table.add_row(name, "–" if value is None else f"{value:.4f}", end_section=name == list(numbers)[-1])
    table.add_row("steps", f"{result['steps']:,}")
    table.add_row("wall time", f"{result['wall_seconds']:.1f} s")
    if result["examples_per_second"] is not None:
        table.add_row("training speed", f"{result['examples_per_second']:,.0f} examples/s")
    console.print(table)
    if "message" in result:
        print(f"error: {result['message']}")
    directory = workdir.expanduser().resolve()
    print(f"Run directory: {directory}")
    if not (directory / "report.md").exists():
        return
    print(f"Next: read {directory / 'report.md'} (figures beside it), or")
    # The interpreter that has cnn_jax, which may not be the one that `python` names.
    python, here = pathlib.Path(sys.executable), pathlib.Path.cwd()
    again = [str(python.relative_to(here)) if python.is_relative_to(here) else str(python)]
    again += [str(pathlib.Path(sys.argv[0]).with_name("evaluate.py")), f"--run={workdir}", "--split=train"]
    print(f"  {shlex.join(again)}")


if __name__ == "__main__":
    command.run(main, goes_on_with="--resume")
