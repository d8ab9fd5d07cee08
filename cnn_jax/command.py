"""What the commands in `experiments/` share: the config argument, one-line errors and exit statuses."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from cnn_jax.errors import DivergenceError, UserError
from cnn_jax.train.config_file import Node, load, override

OVERRIDES = "override any config key, for example --config.optimizer.learning_rate=0.1"


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Run a command and exit: 0 done, 1 training diverged, 2 bad input, 130 interrupted."""
    # Orbax and TFDS log every file they touch; a user's terminal shows our own messages.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        status = main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except DivergenceError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume goes on from the last checkpoint", file=sys.stderr)
        status = 130
    sys.exit(status)


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the `--config` argument; pass it to `parse`."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument(
        "--config", required=True, metavar="FILE[:VARIANT]", help="a Python file with get_config(); " + OVERRIDES
    )
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, Node]:
    """Arguments, and the config with its overrides applied.

    Raises:
      UserError: an argument that is neither known nor a config override.
    """
    known, rest = parser.parse_known_args(arguments)
    overrides: list[str] = []
    for argument in rest:
        # `--config.seed 1` is as common as `--config.seed=1`.
        if overrides and "=" not in overrides[-1] and not argument.startswith("--"):
            overrides[-1] += f"={argument}"
        else:
            overrides.append(argument)
    return known, override(load(known.config), overrides)
