"""What a config may say: every key, type and range is checked before anything is allocated.

A node that becomes an object is `{name, **kwargs}`: the name is looked up in a literal table and the kwargs are the
table entry's keyword arguments. `resolve` and `check_node` fill in every default, so that `config.json` in a run
directory states all.
"""

import difflib
import functools
import hashlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from cnn_jax.errors import UserError, unknown_name
from cnn_jax.train.config_file import Node, plain
from cnn_jax.train.duration import UNITS, Duration

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
STRICT = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
# Of this machine, not of the experiment: what the data are stands in the passport, and a batch is global.
NOT_IDENTITY = (("data", "directory"), ("parallel", "devices"))
DEFAULT_GROUPS: tuple[dict[str, Any], ...] = ({"pattern": ".*"},)


class _Section(pydantic.BaseModel):
    model_config = STRICT


class Splits(_Section):
    """Which examples are for what: a named split of the source, or a slice of one such as `train[:90%]`."""

    train: str = "train"
    validation: str | None = None
    test: str | None = None


class Data(_Section):
    """Where examples come from and how they are batched and augmented."""

    source: str
    name: str
    directory: str | None = None
    splits: Splits = Field(default_factory=Splits)
    split_seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=1, lt=2**31)]
    evaluation_batch_size: Annotated[int, Field(ge=1, lt=2**31)] = 512
    mean: tuple[float, ...] | None = None
    std: tuple[Rate, ...] | None = None
    augment: tuple[Node, ...] = ()


class ParameterGroup(_Section):
    """What holds for the parameters whose path matches a regular expression; the first match in the table counts.

    `learning_rate` and `decay` multiply those of the optimizer. Frozen parameters get no gradient and no decay; their
    layers' BatchNorm statistics still move, and the logged gradient norm counts them.
    """

    pattern: str
    learning_rate: NotNegative = 1.0
    decay: NotNegative = 1.0
    frozen: bool = False


class OptimizerCommon(_Section):
    """What every optimizer takes beside its own options; `l1` and `l2` are explained at `optim.make_optimizer`."""

    learning_rate: Annotated[float, Field(gt=0, lt=1e30)]
    l1: NotNegative = 0.0
    l2: NotNegative = 0.0


class Ema(_Section):
    """Exponential moving average of parameters and statistics; evaluation uses it."""

    decay: Annotated[float, Field(gt=0, lt=1)]


class EarlyStopping(_Section):
    """Stop when a validation metric has not improved for `patience` evaluations; the best checkpoint is the result."""

    metric: str = "validation/accuracy"
    mode: Literal["max", "min"] = "max"
    patience: Positive = 5
    min_delta: NotNegative = 0.0


class Train(_Section):
    """How long to train, and how often to log, evaluate and save; by default at most ten evaluations and saves."""

    duration: Duration
    accumulate: Positive = 1
    clip_norm: Rate | None = None
    log_every: Duration = Duration(steps=50)
    evaluate_every: Duration | None = None
    save_every: Duration | None = None
    keep_checkpoints: Positive = 2
    ema: Ema | None = None
    early_stopping: EarlyStopping | None = None
    tensorboard: bool = False


class Parallel(_Section):
    """Devices to use: all local ones unless a number is given."""

    devices: Positive | None = None


class Config(_Section):
    """The top level of every training config."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    task: Node
    model: Node
    data: Data
    optimizer: Node
    schedule: Node = Field(default_factory=lambda: {"name": "constant"})
    parameter_groups: tuple[ParameterGroup, ...] = Field(
        default_factory=lambda: tuple(ParameterGroup(**group) for group in DEFAULT_GROUPS)
    )
    train: Train
    parallel: Parallel = Field(default_factory=Parallel)


def resolve(config: Node) -> Config:
    """Check the fixed part of a config and fill in its defaults; `{name, **kwargs}` nodes are checked by `check_node`.

    Raises:
      UserError: an unknown key (with the nearest valid one), a wrong type, or a value out of range.
    """
    try:
        return Config.model_validate(plain(config))
    except pydantic.ValidationError as error:
        raise _first_error("config", error, Config) from error


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
        raise _first_error(path, error, schema, node=node) from error
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


def _first_error(
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


def to_plain(value: Any) -> Any:
    """A resolved config, or a part of one, as JSON values: what `config.json` holds."""
    if isinstance(value, Duration):
        return {unit: getattr(value, unit) for unit in UNITS if getattr(value, unit) is not None}
    if isinstance(value, pydantic.BaseModel):
        return {name: to_plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def sha256(config: Config) -> str:
    """The identity of an experiment: a digest of the resolved config without what belongs to this machine."""
    values = to_plain(config)
    for section, key in NOT_IDENTITY:
        values[section].pop(key)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def difference(old: Any, new: Any, *, path: str = "config") -> list[str]:
    """What differs between two plain configs, one `path: old -> new` a line; what is NOT_IDENTITY is left out.

    Example:
      >>> difference({"seed": 0, "a": {"b": 1}}, {"seed": 1, "a": {"b": 1}})
      ['config.seed: 0 -> 1']
    """
    if path in {".".join(("config", *keys)) for keys in NOT_IDENTITY} or old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            lines += difference(old.get(key), new.get(key), path=f"{path}.{key}")
        return lines
    return [f"{path}: {old!r} -> {new!r}"]
