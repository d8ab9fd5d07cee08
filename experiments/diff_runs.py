"""What differs between two runs: config, code, data, environment, log, checkpoints, result.

Example:
  python experiments/diff_runs.py runs/first runs/second
"""

import json
import pathlib
from collections.abc import Sequence

from cnn_jax import command


def main(arguments: Sequence[str]) -> int:
    """Print what differs: 0 nothing, 1 something."""
    parser = command.Parser("Tell exactly what differs between two runs; exits with 1 if anything does.")
    parser.add_argument("first", metavar="A", help="a run directory, finished or not")
    parser.add_argument("second", metavar="B", help="another one")
    parser.add_argument("--all", action="store_true", help="also times, commands and hosts, which always differ")
    parser.add_argument("--json", action="store_true", help="print the differences for programs")
    known = parser.parse_args(arguments)
    from cnn_jax.train.run_differences import run_differences  # after the arguments are known to be good

    found = run_differences(pathlib.Path(known.first), pathlib.Path(known.second))
    print(json.dumps(found.as_json(), indent=2) if known.json else "\n".join(found.report(aside=known.all)))
    return 0 if found.equal else 1


if __name__ == "__main__":
    command.run(main)
