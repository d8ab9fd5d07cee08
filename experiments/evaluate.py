"""Evaluate a finished or running training on one of its splits, or on any split of its data set.

Example:
  python experiments/evaluate.py --run=runs/quickstart --split=test
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.markup
import rich.table

from cnn_jax import command
from cnn_jax.errors import UserError
from cnn_jax.train.run_directory import write_json


def main(arguments: Sequence[str]) -> int:
    """Evaluate, print a table, and store the numbers in the run directory."""
    parser = command.Parser("Evaluate a run's checkpoint, exactly; the run may still be training.")
    parser.add_argument("--run", required=True, metavar="DIR", help="a run directory of experiments/train.py")
    parser.add_argument(
        "--split",
        default=None,
        help="train, validation, test, or a slice such as 'train[:1000]'; default: the run's last",
    )
    parser.add_argument(
        "--step", type=int, default=None, help="the checkpoint of this step; default: what the result used"
    )
    parser.add_argument("--batch-size", type=int, default=None, help="examples per batch; it cannot change the numbers")
    parser.add_argument("--data-directory", default=None, metavar="DIR", help="where the data is on this machine")
    known = parser.parse_args(arguments)
    from cnn_jax.train.session import evaluate_run  # after the arguments are known to be good: it starts JAX

    run = pathlib.Path(known.run).expanduser()
    numbers = evaluate_run(
        run,
        split=known.split,
        step=known.step,
        batch_size=known.batch_size,
        data_directory=known.data_directory,
    )
    origin = rich.markup.escape(numbers["origin"])
    table = rich.table.Table(title=f"{origin}, step {numbers['step']:,}, {numbers['examples']:,} examples")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in numbers["metrics"].items():
        table.add_row(rich.markup.escape(name), "–" if value is None else f"{value:.6f}")
    console = rich.console.Console(soft_wrap=True)
    console.print(table)
    file = run / file_name(numbers)
    try:
        write_json(file, numbers)
    except OSError as error:
        raise UserError(f"the numbers above could not be stored in {str(file)!r}: {error.strerror}") from None
    print(f"Stored in {file}")
    return 0


def file_name(numbers: Mapping[str, Any]) -> str:
    """One name for each split and step: `evaluation_test_step_606.json`, `evaluation_train_0-10_step_606.json`."""

    def bounds(match: re.Match) -> str:
        return f"_{match[1] or 0}-{match[2] or 'end'}"

    split = re.sub(r"\[(.*):(.*)\]", bounds, numbers["split"]).replace("%", "percent")
    return f"evaluation_{split}_step_{numbers['step']}.json"


if __name__ == "__main__":
    command.run(main)
