"""What the commands in `experiments/` share: the config argument, the compilation cache, errors and exit statuses."""

import argparse
import io
import logging
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from cnn_jax.data import decoded
from cnn_jax.errors import DivergenceError, ProcessLostError, StorageError, UserError
from cnn_jax.memory import keep_freed_memory
from cnn_jax.paths import cache_home
from cnn_jax.processor import kind
from cnn_jax.train.config_file import Node, load, override

NO_CACHE, CACHE_FOLDER = "--no-compilation-cache", "JAX_COMPILATION_CACHE_DIR"
NO_DECODED = "--no-data-cache"
OVERRIDES = "override any config key, for example --config.optimizer.learning_rate=0.1"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all errors of a command are."""

    def __init__(self, description: str, *, prog: str | None = None):
        super().__init__(description=description, prog=prog, allow_abbrev=False)
        # Read by `run`: JAX takes the cache from the environment when it is imported.
        self.add_argument(NO_CACHE, action="store_true", help="keep no compiled programs for the next start")
        self.add_argument(NO_DECODED, action="store_true", help="keep no decoded images for the next start")

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
          UserError: always.
        """
        raise UserError(f"{message}; --help shows the arguments")


def run(main: Callable[[Sequence[str]], int], *, goes_on_with: str | None = None) -> None:
    """Run a command and exit: 0 done, 1 training diverged, lost a process or its disk, 2 bad input, 130 or 143 stopped.

    Args:
      main: takes the arguments, returns the exit status.
      goes_on_with: what the same command needs to go on after it was stopped, such as "--resume", or "" for nothing;
        None where it begins anew.
    """
    # Orbax and TFDS log every file they touch, and whole tracebacks of errors that they also raise.
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # × and ± on a terminal that has only ASCII
    keep_freed_memory(os.environ)
    if NO_CACHE not in sys.argv:
        os.environ.update(compilation_cache(os.environ))
    home = cache_home(os.environ)
    if NO_DECODED in sys.argv or home is None:
        os.environ.pop(decoded.FOLDER, None)
    else:
        os.environ.setdefault(decoded.FOLDER, str(home / "decoded"))
    try:
        status = main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except DivergenceError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except ProcessLostError as error:
        print(f"error: {error}", file=sys.stderr)
        _leave(1)
    except StorageError as error:
        print(f"error: {error}{_how_to_go_on(goes_on_with)}", file=sys.stderr)
        status = 1
        if _others_wait(error):
            _leave(status)
    except KeyboardInterrupt as error:
        # One that a training has saved says so, and which signal it was.
        print(f"{error if error.args else 'interrupted'}{_how_to_go_on(goes_on_with)}", file=sys.stderr)
        status = getattr(error, "status", 130)
        if not error.args:
            _leave(status)  # what is half compiled would end the interpreter with a segmentation fault
    sys.exit(status)


def _leave(status: int) -> NoReturn:
    """End without a word to the other processes: at a normal exit JAX would wait for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _others_wait(error: Exception) -> bool:
    """Whether other processes of the run do not know yet that this one has failed."""
    if "jax" not in sys.modules:
        return False
    import jax

    from cnn_jax.train.distributed import AGREED

    return jax.process_count() > 1 and AGREED not in getattr(error, "__notes__", ())


def _how_to_go_on(goes_on_with: str | None) -> str:
    """The command that was given, as it goes on."""
    if goes_on_with is None:
        return ""
    added = [goes_on_with] if goes_on_with and goes_on_with not in sys.argv else []
    return f"; to go on:\n  {shlex.join([sys.executable, *sys.argv, *added])}"


def compilation_cache(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that make JAX keep every compiled program; {} if the environment says where, or has no place.

    The folder belongs to the user, and to one kind of processor: a home may be shared, but not machine code.

    Args:
      environment: `XDG_CACHE_HOME` or `HOME` says where caches are.

    Example:
      >>> compilation_cache({"JAX_COMPILATION_CACHE_DIR": "/mine"})
      {}
    """
    home = cache_home(environment)
    if CACHE_FOLDER in environment or home is None:
        return {}
    folder = pathlib.Path(home, f"compiled-{kind()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}
    # Small programs too: a start compiles hundreds.
    seconds = environment.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return {CACHE_FOLDER: str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": seconds}


def config_parser(description: str) -> Parser:
    """A parser with the `--config` argument; pass it to `parse`."""
    parser = Parser(description)
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


def write_section(file: pathlib.Path, content: str, *, begin: str, end: str, remedy: str, check: bool) -> None:
    """Put generated text between two marker lines of a file.

    Args:
      file: such as the README.
      content: what is to stand there.
      begin: the line before it.
      end: the line after it.
      remedy: the command that writes it, for the error.
      check: write nothing.

    Raises:
      UserError: the file has no such lines, or with `check` another text between them.
    """
    text = file.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise UserError(f"{file} has no place for the text; it needs the lines {begin!r} and {end!r}")
    before, _, rest = text.partition(begin)
    updated = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    if updated == text:
        return
    if check:
        raise UserError(f"{file} is out of date between {begin!r} and {end!r}; run `{remedy}`")
    file.write_text(updated, encoding="utf-8")
    print(f"wrote {file}")
