"""A node `{name, **kwargs}` of a config: its name is looked up in a table, its kwargs are checked and completed.

The kwargs are the keyword arguments of the table's entry; the annotations of its signature are the schema.
"""

import difflib
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pydantic

from cnn_jax.errors import UserError, unknown_name
from cnn_jax.train.config_file import Node

STRICT = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def check_node(
    path: str,
    node: Node,
    table: Mapping[str, Callable],
    *,
    given: Sequence[str] = (),
    common: type[pydantic.BaseModel] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Node:
    """Check a `{name, **kwargs}` node against a table of functions, and fill in the defaults of its kwargs.

    Args:
      path: where the node stands, for messages, for example "config.model".
      node: the node.
      table: name to a function whose keyword arguments are annotated with plain types.
      given: parameters that the caller passes itself; the config may not set them.
      common: keys that every entry of the table takes beside its own.
      defaults: values for parameters that the config leaves out, where the function has them.

    Returns:
      The node with every parameter present.

    Raises:
      UserError: no name, an unknown one (lists the known), an unknown key, a wrong type or a missing parameter.
    """
    function = look_up(path, node, table)
    fixed: Sequence[str] = ()
    if isinstance(function, functools.partial):  # what an entry fixes is no option of it
        function, fixed = function.func, tuple(function.keywords)
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in (*given, *fixed)
    }
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
    }
    for name, field in (common.model_fields if common else {}).items():
        fields[name] = (field.rebuild_annotation(), field.get_default(call_default_factory=True))
        if field.is_required():
            fields[name] = (field.rebuild_annotation(), ...)
    schema = pydantic.create_model(node["name"], __config__=STRICT, **fields)
    values = {name: value for name, value in (defaults or {}).items() if name in parameters}
    values |= {key: value for key, value in node.items() if key != "name"}
    try:
        checked = schema.model_validate(values)
    except pydantic.ValidationError as error:
        raise first_error(path, error, schema, node=node) from error
    return {"name": node["name"], **{name: getattr(checked, name) for name in fields}}


def look_up(path: str, node: Node, table: Mapping[str, Callable]) -> Callable:
    """The entry of a table that a node names.

    Raises:
      UserError: no name, or an unknown one (lists the known).
    """
    if "name" not in node:
        raise UserError(f"{path} has no name; known: {', '.join(sorted(table))}")
    if not isinstance(node["name"], str) or node["name"] not in table:
        raise unknown_name(f"{path}.name", str(node["name"]), table)
    return table[node["name"]]


def options(node: Node, *, without: Sequence[str] = ()) -> Node:
    """The keyword arguments of a checked node."""
    return {key: value for key, value in node.items() if key != "name" and key not in without}


def first_error(
    path: str, error: pydantic.ValidationError, schema: type[pydantic.BaseModel], *, node: Node | None = None
) -> UserError:
    """The first thing wrong, in one line.

    Args:
      path: where the values stand.
      error: what pydantic found.
      schema: what they were checked against.
      node: the `{name, **kwargs}` node that they are, if so.
    """
    # A misspelt key is also a missing one: the misspelling is what helps.
    first = min(error.errors(), key=lambda e: e["type"] not in ("extra_forbidden", "unexpected_keyword_argument"))
    # Pydantic adds the member of a union that it tried, such as `int` or `tuple[int, ...]`, behind the place.
    members = {"int", "float", "str", "bool"}
    key, *deeper = (str(part) for part in first["loc"])
    place = [key, *(part for part in deeper if part not in members and not re.search(r"[\[-]", part))]
    where = ".".join([path, *place])
    value = first.get("input")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *parents, key = first["loc"]
        known = _keys(schema, parents)
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        valid = f"Valid here: {', '.join(sorted(known))}" if known else "It takes no options"
        whole = f"; to change the name with its options, set {path}={{'name': ...}} whole" if node else ""
        return UserError(f"{where}: unknown key {str(key)!r}{hint} {valid}{whole}")
    if first["type"] in ("missing", "missing_argument"):
        return UserError(f"{where}: missing; it has no default")
    if first["type"] == "model_type" and first.get("ctx", {}).get("class_name") == "Duration":
        return UserError(f"{where}: should be a duration such as {{'steps': 100}}, got {value!r}")
    if isinstance(first.get("ctx", {}).get("error"), ValueError):
        return UserError(f"{where}: {first['ctx']['error']}")
    return UserError(f"{where}: {first['msg'].removeprefix('Input ')}, got {value!r} ({type(value).__name__})")


def _keys(schema: Any, parents: Sequence[Any]) -> list[str]:
    """The valid keys of a nested section."""
    for parent in parents:
        if isinstance(schema, type) and issubclass(schema, pydantic.BaseModel) and parent in schema.model_fields:
            schema = schema.model_fields[parent].annotation
            options = [schema, *typing.get_args(schema)]
            schema = next((option for option in options if hasattr(option, "model_fields")), schema)
    return list(getattr(schema, "model_fields", {}))
