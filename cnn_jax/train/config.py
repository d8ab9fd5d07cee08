"""What a config may say: every key, type and range is checked before anything is allocated.

A node that becomes an object is `{name, **kwargs}`: the name is looked up in a literal table and the kwargs are the
table entry's keyword arguments. `resolve` and `config_node.check_node` fill in every default, so that `config.json` in
a run directory states all.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from cnn_jax.train.config_file import Node, plain
from cnn_jax.train.config_node import STRICT, first_error
from cnn_jax.train.duration import UNITS, Duration

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


def _of_unit_pixels(value: float) -> float:
    """A mean or deviation of pixels in [0, 1]: those of 0 to 255 would train on nearly nothing, without a word."""
    if not 0 <= value <= 1:
        raise ValueError(f"{value} is not in [0, 1], where pixels are; divide those of pixels from 0 to 255 by 255")
    return value


def _of_text(value: str) -> str:
    """A path whose bytes are text: it goes into what a run writes."""
    if not value.isprintable():
        raise ValueError(f"{value!r} has characters that cannot be printed, or bytes that are no text; rename it")
    return value


OfPixels = Annotated[float, pydantic.AfterValidator(_of_unit_pixels)]
Place = Annotated[str, pydantic.AfterValidator(_of_text)]
# Of this machine, not of the experiment; beside these all of `parallel` but for the mode "pmap", see `identity`.
NOT_IDENTITY = (
    *(("data", key) for key in ("directory", "resident", "stream", "on_corrupt", "max_corrupt")),
    *(("train", key) for key in ("steps_per_dispatch", "figures", "on_divergence")),
)
DEFAULT_GROUPS: tuple[dict[str, Any], ...] = ({"pattern": ".*"},)


class _Section(pydantic.BaseModel):
    model_config = STRICT


class Splits(_Section):
    """Which examples are for what: a named split of the source, or a slice of one such as `train[:90%]`."""

    train: str = "train"
    validation: str | None = None
    test: str | None = None


class Wrappers(_Section):
    """What is done to the examples of each split: nodes of `data.wrappers.WRAPPERS`, in order."""

    train: tuple[Node, ...] = ()
    validation: tuple[Node, ...] = ()
    test: tuple[Node, ...] = ()


class Transforms(_Section):
    """What each image goes through on the host, such as a resize: nodes of HOST_TRANSFORMS, in order."""

    train: tuple[Node, ...] = ()
    evaluation: tuple[Node, ...] = ()


class Stream(_Section):
    """Images are read when they are needed: for sets that do not fit in memory.

    Attributes:
      workers: processes that decode and transform; with 0 the threads of the training process do.
    """

    workers: Annotated[int, Field(ge=0, le=256)] = 0


class Data(_Section):
    """Where examples come from, and how they are batched and augmented.

    They are held in memory; `resident` puts them on the device, `stream` reads them from their files again in each
    epoch. `on_corrupt` says what becomes of an image that cannot be read: "error", or "skip" counts it, up to
    `max_corrupt` in each process. `channels` is what image files are decoded to. `mean` and `std`, one number a
    channel, are those of pixels in [0, 1]; left out, they are measured on the training split.
    """

    source: str
    name: Place
    directory: Place | None = None
    splits: Splits = Field(default_factory=Splits)
    wrappers: Wrappers = Field(default_factory=Wrappers)
    split_seed: Annotated[int, Field(ge=0)] = 0
    channels: Literal[1, 3, 4] | None = None
    transforms: Transforms = Field(default_factory=Transforms)
    on_corrupt: Literal["error", "skip"] = "error"
    max_corrupt: Annotated[int, Field(ge=0)] = 100
    batch_size: Annotated[int, Field(ge=1, lt=2**31)]
    evaluation_batch_size: Annotated[int, Field(ge=1, lt=2**31)] = 512
    mean: tuple[OfPixels, ...] | None = None
    std: tuple[Annotated[OfPixels, Field(gt=0)], ...] | None = None
    augment: tuple[Node, ...] = ()
    resident: bool = False
    stream: Stream | None = None


class ParameterGroup(_Section):
    """What holds for the parameters whose path matches a regular expression; the first match in the table counts.

    `learning_rate` and `decay` multiply those of the optimizer. Frozen parameters get no gradient and no decay; their
    layers' BatchNorm statistics still move, and the logged gradient norm counts them. `optimizer` is one of the group's
    own, with its own rate. With `until` the schedule is fitted to that duration instead of the run's, and from then on
    the rate is 0.
    """

    pattern: str
    learning_rate: NotNegative = 1.0
    decay: NotNegative = 1.0
    frozen: bool = False
    optimizer: Node | None = None
    until: Duration | None = None


class OptimizerCommon(_Section):
    """What every optimizer takes beside its own options; `l1` and `l2` are explained at `optim.make_optimizer`."""

    learning_rate: Annotated[float, Field(gt=0, lt=1e30)]
    l1: NotNegative = 0.0
    l2: NotNegative = 0.0


class InitCommon(_Section):
    """What every initialiser takes beside its own options: how many training images it is given, the first ones."""

    examples: Positive = 5000


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
    """How long to train, and how often to log, evaluate and save; by default at most ten evaluations and saves.

    One call of the device takes `steps_per_dispatch` steps, or fewer before a log line, an evaluation or a save; more
    than one needs `data.resident`. With `evaluate_training` the end is also evaluated on the training split, as it is.
    `figures` are drawn at the end; many short runs are faster without. `on_divergence` see `session.train`.
    """

    duration: Duration
    steps_per_dispatch: Positive = 1
    accumulate: Positive = 1
    clip_norm: Rate | None = None
    log_every: Duration = Duration(steps=50)
    evaluate_every: Duration | None = None
    save_every: Duration | None = None
    keep_checkpoints: Positive = 2
    ema: Ema | None = None
    early_stopping: EarlyStopping | None = None
    evaluate_training: bool = False
    figures: bool = True
    tensorboard: bool = False
    on_divergence: Literal["stop", "restore_and_reduce"] = "stop"


class ShardingRule(_Section):
    """Where the parameters lie whose path matches a regular expression; the first match in the table counts.

    A divided parameter is cut along the largest of its axes that `parallel.model` divides. It stays whole where there
    is no such axis, or where it has fewer than `minimum` elements and a message would cost more than the memory.
    """

    pattern: str
    divided: bool = True
    minimum: Positive = 1024


class Parallel(_Section):
    """On which devices a run is, and what is divided over them; the batch always is.

    `mode` says what BatchNorm sees in training. "jit": the whole batch, so that the number of devices changes nothing.
    "pmap": the part of the batch that lies on its own device, as the classic papers trained, so that the number of
    devices is part of the experiment; gradients are the mean's, running statistics are averaged over devices.

    Attributes:
      devices: how many; all, of every process, unless a number is given.
      mode: "jit" or "pmap".
      model: into how many parts parameters, their averages and the optimizer's state are cut by the rules of
        `sharding`; 1 keeps them whole on every device, the number of devices is fully sharded training.
      sharding: rules for the paths of parameters; each must match something, and together all.
    """

    devices: Positive | None = None
    mode: Literal["jit", "pmap"] = "jit"
    model: Positive = 1
    sharding: tuple[ShardingRule, ...] = Field(default_factory=lambda: (ShardingRule(pattern=".*"),))


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
    init: Node | None = None
    train: Train
    parallel: Parallel = Field(default_factory=Parallel)


def resolve(config: Node) -> Config:
    """Check the fixed part of a config and fill in its defaults; `{name, **kwargs}` nodes are checked by `config_node`.

    Raises:
      UserError: an unknown key (with the nearest valid one), a wrong type, or a value out of range.
    """
    try:
        return Config.model_validate(plain(config))
    except pydantic.ValidationError as error:
        raise first_error("config", error, Config) from error


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


def identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a plain config makes the experiment: all but what belongs to the machine that it runs on.

    What the data are stands in the passport, not where. Steps are the same however many are dispatched at once. A batch
    is global, so devices are left out, but for the mode "pmap", where BatchNorm sees one device's share.

    Args:
      values: from `to_plain`, or read from a `config.json`.
    """
    values = {section: dict(value) if isinstance(value, Mapping) else value for section, value in values.items()}
    for section, key in NOT_IDENTITY:
        values.get(section, {}).pop(key, None)
    parallel = values.get("parallel", {})
    values["parallel"] = {key: parallel[key] for key in ("mode", "devices") if parallel.get("mode") == "pmap"}
    return values


def sha256(config: Config) -> str:
    """The digest of an experiment's identity."""
    return config_digest(to_plain(config))


def config_digest(values: Mapping[str, Any]) -> str:
    """`sha256` of plain values: from `to_plain`, or read from a `config.json`."""
    return hashlib.sha256(json.dumps(identity(values), sort_keys=True).encode()).hexdigest()


def difference(old: Any, new: Any, *, path: str = "config") -> list[str]:
    """What differs between two plain configs, one `path: old -> new` a line.

    Example:
      >>> difference({"seed": 0, "a": {"b": 1}}, {"seed": 1, "a": {"b": 1}})
      ['config.seed: 0 -> 1']
    """
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            lines += difference(old.get(key), new.get(key), path=f"{path}.{key}")
        return lines
    return [f"{path}: {old!r} -> {new!r}"]
