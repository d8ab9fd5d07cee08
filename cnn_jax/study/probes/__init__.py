"""Probes: further numbers of a trained network, beside those of its evaluation; PROBES is the table that studies name.

A probe is a function `(experiment, state, *, options) -> {name below the probe's: number}`; the empty name is the
probe's own number. It looks at the last of the experiment's evaluation splits with the parameters that evaluation
takes. Nothing in it depends on the batch size, and what is random is a function of the example alone: every network
is asked the same questions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.study.probes.equivariance import equivariance_error
from cnn_jax.study.probes.kernels import gradient_norms, sparsity
from cnn_jax.study.probes.robustness import (
    accuracy_by_position,
    corruption_accuracy,
    occlusion_accuracy,
    shift_consistency,
)
from cnn_jax.study.probes.units import dead_units
from cnn_jax.train.config_file import Node
from cnn_jax.train.config_node import check_node, options
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.state import TrainState

PROBES: dict[str, Callable[..., dict[str, float]]] = {
    "shift_consistency": shift_consistency,
    "accuracy_by_position": accuracy_by_position,
    "corruption_accuracy": corruption_accuracy,
    "occlusion_accuracy": occlusion_accuracy,
    "equivariance_error": equivariance_error,
    "dead_units": dead_units,
    "gradient_norms": gradient_norms,
    "sparsity": sparsity,
}


def check_probes(nodes: Sequence[Mapping[str, Any]]) -> tuple[Node, ...]:
    """The `{name, **options}` nodes of `study.probes` with every option filled in.

    Raises:
      UserError: as `check_node`, or a probe that is named twice.
    """
    checked = [
        check_node(f"study.probes.{index}", dict(node), PROBES, given=("experiment", "state"))
        for index, node in enumerate(nodes)
    ]
    names = [node["name"] for node in checked]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UserError(f"study.probes.{index}: {name!r} is there twice; give one node all the values")
    return tuple(checked)


def run_probes(nodes: Sequence[Mapping[str, Any]], experiment: Experiment, state: TrainState) -> dict[str, float]:
    """The numbers of all probes: `shift_consistency`, `shift_consistency/1`, ...

    Args:
      nodes: from `check_probes`.
      experiment: what was trained.
      state: its state, on the experiment's devices.

    Raises:
      UserError: an option that does not suit the images or the network.
    """
    found = {}
    for node in nodes:
        name = node["name"]
        for below, value in PROBES[name](experiment, state, **options(dict(node))).items():
            found[f"{name}/{below}" if below else name] = value
    return found
