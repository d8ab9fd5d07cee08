"""Is a run what it says? Train its first steps anew, compare the log to the bit, and tell what differs.

Example:
  python experiments/reproduce.py runs/quickstart --steps=200
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from cnn_jax import command


def main(arguments: Sequence[str]) -> int:
    """Reproduce, and print what came of it: 0 equal, 1 it differs."""
    parser = command.Parser("Train a run's first steps anew and compare its log, bit for bit; 1 if it differs.")
    parser.add_argument("run", metavar="RUN", help="a run directory; nothing is written into it")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="how many; default: 50")
    parser.add_argument("--data-directory", default=None, metavar="DIR", help="where the data is on this machine")
    parser.add_argument("--strict", action="store_true", help="exit with 1 also if anything else differs")
    parser.add_argument("--json", action="store_true", help="print what came of it for programs")
    known = parser.parse_args(arguments)
    from cnn_jax.train.reproduce import reproduce, use_cores_of  # after the arguments are known to be good

    def note(line: str) -> None:
        print(line, file=sys.stderr)

    run = pathlib.Path(known.run).expanduser()
    use_cores_of(run, note)
    outcome = reproduce(run, steps=known.steps, data_directory=known.data_directory, note=note)
    print(json.dumps(outcome.as_json(), indent=2) if known.json else "\n".join(outcome.report()))
    return 0 if outcome.difference is None and not (known.strict and outcome.changes) else 1


if __name__ == "__main__":
    command.run(main)
