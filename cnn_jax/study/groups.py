"""Which cells are trained together: those that differ only in what a compiled program can take as an argument."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cnn_jax.data.sources import LabelledImages
from cnn_jax.study.build import Built
from cnn_jax.train.config import identity, to_plain
from cnn_jax.train.many_runs import can_share

TRACEABLE = (
    r"seed",  # initial values, data order, augmentation and dropout
    r"optimizer\.(learning_rate|momentum|weight_decay|decay|beta1|beta2|epsilon|l1|l2)",
    r"schedule\.(final|start|floor|factor)",
    r"task\.loss\.(label_smoothing|gamma|alpha)",
    r"model\.(dropout_rate|input_dropout_rate|spatial_dropout_rate|negative_slope)",
    r"parameter_groups\.\d+\.(learning_rate|decay)",
    r"train\.(clip_norm|ema\.decay)",
    r"data\.augment\.\d+\.\w+",
)
"""The keys that may differ between the runs of one program, where both values are numbers and neither is 0.

A 0 switches something off, which makes another program; whole numbers of an augmentation are sizes, and shapes are no
arguments either. Whether the programs are really the same but for these numbers is checked when they are traced.
"""
_TRACEABLE = re.compile("|".join(f"(?:{path})" for path in TRACEABLE))
TRACED = "traced"


def groups_of(cells: Sequence[Built]) -> list[list[Built]]:
    """The cells by the program that trains them, in the order of the first of each.

    Those that cannot be lifted into one program are kept apart, each config with its seeds; early stopping and streams
    are for one run at a time.
    """
    by_structure: dict[str, list[Built]] = {}
    for built in cells:
        by_structure.setdefault(_structure(built), []).append(built)
    found: list[list[Built]] = []
    for members in by_structure.values():
        if can_share([built.experiment for built in members]):
            found.append(members)
            continue
        by_config: dict[str, list[Built]] = {}
        for built in members:
            by_config.setdefault(_config_but_for_its_seed(built), []).append(built)
        found += by_config.values()
    return found


def is_alone(built: Built) -> bool:
    """Whether a run shares no program: its images are streamed, or it may end before the others."""
    experiment = built.experiment
    return (
        not isinstance(experiment.splits["train"], LabelledImages) or experiment.config.train.early_stopping is not None
    )


def _structure(built: Built) -> str:
    if is_alone(built):
        return built.cell.key
    values = identity(to_plain(built.experiment.config))
    return json.dumps([_without_numbers(values), built.cell.data], sort_keys=True)


def _config_but_for_its_seed(built: Built) -> str:
    return json.dumps({**identity(to_plain(built.experiment.config)), "seed": TRACED}, sort_keys=True)


def _without_numbers(value: Any, path: str = "") -> Any:
    """A plain config in which the numbers that can be traced all look the same."""
    if isinstance(value, Mapping):
        return {key: _without_numbers(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_numbers(item, f"{path}.{index}") for index, item in enumerate(value)]
    traced = _TRACEABLE.fullmatch(path) and (path == "seed" or (isinstance(value, float) and value != 0))
    return TRACED if traced else value


SHARE_OF_MEMORY = 0.5
"""Of the device's that the runs of a group may take."""


def most_together(built: Built, *, memory: int | None = None) -> int:
    """How many runs like this one fit in memory when they are trained at once.

    A run holds its parameters, their gradients and the optimizer's numbers, and the maps of all layers of a batch for
    the backward pass, which are counted from the trace of a forward pass.

    Args:
      built: one of the group.
      memory: of the device, in bytes; default is what the device says, or on a CPU what the machine has.
    """
    state = built.experiment.abstract_state()
    bytes_of_state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state) if hasattr(x.dtype, "itemsize"))
    available = (memory or _memory()) * SHARE_OF_MEMORY
    return max(1, int(available // (2 * bytes_of_state + _bytes_of_maps(built))))


def _bytes_of_maps(built: Built) -> int:
    """What all operations of a forward pass of a batch give: an upper bound of what the backward pass keeps."""
    experiment = built.experiment
    batch = experiment.batch(0)
    state = experiment.abstract_state()

    def loss(params: Any, model_state: Any, batch: Any, key: Any) -> Any:
        return experiment.task.loss(params, model_state, batch, key, train=True)[0]

    image = jax.ShapeDtypeStruct(batch["image"].shape, "float32")
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()} | {"image": image}
    jaxpr = jax.make_jaxpr(loss)(state.params, state.model_state, shapes, experiment.key)
    return sum(
        variable.aval.size * variable.aval.dtype.itemsize
        for equation in jaxpr.jaxpr.eqns
        for variable in equation.outvars
        if hasattr(variable.aval.dtype, "itemsize")
    )


def _memory() -> int:
    """Of the device, in bytes; on a CPU the machine's. What is free changes, and who is trained with whom must not."""
    statistics = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
