"""Config files and command-line overrides: from a path and assignments to plain values.

A config file defines `get_config(variant=None)`, which returns an `ml_collections.ConfigDict` of plain values.
"""

import ast
import inspect
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from cnn_jax.errors import UserError
from cnn_jax.train.duration import UNITS

Node = dict[str, Any]


def plain(value: Any) -> Any:
    """A config as dictionaries, tuples and scalars: ConfigDicts and lists are converted, at every depth."""
    if isinstance(value, ml_collections.ConfigDict | Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    return value


def load(reference: str) -> Node:
    """The config that a file's `get_config` returns, as plain values.

    Args:
      reference: `path.py` or `path.py:variant`; the part after the colon is the argument of `get_config`.

    Raises:
      UserError: no such file, no `get_config`, or the file itself fails (with its line).
    """
    path, separator, variant = reference, "", ""
    if not pathlib.Path(reference).is_file():  # a path may itself have a colon
        path, separator, variant = reference.rpartition(":") if ":" in reference else (reference, "", "")
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"config file {path!r} does not exist; give the path of a Python file with get_config()")
    # Compiled here and not imported: the import system would run the cached code of a file that was edited within the
    # same second, and write its cache beside the user's file.
    namespace: dict[str, Any] = {"__name__": file.stem, "__file__": str(file)}
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), namespace)
        if "get_config" not in namespace:
            raise UserError(f"config file {path!r} defines no get_config()")
        if separator and not inspect.signature(namespace["get_config"]).parameters:
            raise UserError(f"config file {path!r} has no variants; drop ':{variant}'")
        config = namespace["get_config"](variant) if separator else namespace["get_config"]()
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno or 1}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # the file is the user's own code: it may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        at = f"{path}:{lines[-1]}" if lines else path
        raise UserError(f"{at}: {type(error).__name__}: {error}".replace("\n", " ")) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"get_config() of {path!r} returned a {type(config).__name__}; return a ConfigDict")
    return plain(config)


def parse_value(text: str) -> Any:
    """The value of a command-line override: a Python literal, or true, false, none, or else the text itself.

    Example:
      >>> parse_value("0.1"), parse_value("(1, 2)"), parse_value("true"), parse_value("runs/a b")
      (0.1, (1, 2), True, 'runs/a b')
    """
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return plain(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def override(config: Node, assignments: Sequence[str]) -> Node:
    """A copy of a config with `--config.key.path=value` assignments applied, in order.

    A number in a path is an index into a tuple. Setting one unit of a duration (`train.duration.epochs=3`) replaces
    the unit that the file gives.

    Raises:
      UserError: an argument is not of that form, or a path leads through a value that is no node.
    """
    result = plain(config)
    for assignment in assignments:
        target, separator, text = assignment.partition("=")
        if not separator or not target.startswith("--config."):
            raise UserError(
                f"argument {assignment!r} is not understood; overrides look like --config.train.accumulate=2"
            )
        result = assign(result, target.removeprefix("--config."), parse_value(text), shown=assignment)
    return result


def assign(config: Node, path: str, value: Any, *, shown: str = "") -> Node:
    """A copy of a config with one value set.

    Args:
      config: plain values.
      path: keys with dots between them, as in `override`.
      value: a plain value.
      shown: the assignment as the user wrote it, for messages; default is `path=value`.

    Raises:
      UserError: the path leads through a value that is no node.

    Example:
      >>> assign({"train": {"duration": {"steps": 5}}}, "train.duration.epochs", 2)
      {'train': {'duration': {'epochs': 2}}}
    """
    return _assign(config, path.split("."), plain(value), shown or f"{path}={value!r}")


def _assign(node: Any, keys: Sequence[str], value: Any, assignment: str) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, tuple):
        if not key.isdecimal() or int(key) >= len(node):
            raise UserError(f"{assignment!r}: {key!r} is no index of a tuple of {len(node)}")
        at = int(key)
        return (*node[:at], _assign(node[at], rest, value, assignment), *node[at + 1 :])
    if node is None:
        node = {}
    if not isinstance(node, dict):
        raise UserError(f"{assignment!r}: {key!r} leads through the value {node!r}, which has no keys")
    if key in UNITS and not rest and node.keys() <= set(UNITS):
        return {key: value}
    return {**node, key: _assign(node.get(key), rest, value, assignment)}
