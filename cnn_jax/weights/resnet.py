"""torchvision's ResNet parameters for our ResNets, without torch: NumPy arrays in torch's layout."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn_jax.errors import UserError

MODULES = (
    (r"conv1", "backbone/stem/conv"),
    (r"bn1", "backbone/stem/norm"),
    (r"layer(\d+)\.(\d+)\.conv(\d)", "backbone/stage{0}/block{1}/conv{2}"),
    (r"layer(\d+)\.(\d+)\.bn(\d)", "backbone/stage{0}/block{1}/norm{2}"),
    (r"layer(\d+)\.(\d+)\.downsample\.0", "backbone/stage{0}/block{1}/shortcut/conv"),
    (r"layer(\d+)\.(\d+)\.downsample\.1", "backbone/stage{0}/block{1}/shortcut/norm"),
    (r"fc", "head/output"),
)
"""torchvision's module names and ours; torch counts the blocks of a stage from 0, we from 1."""

LEAVES = {
    ("conv", "weight"): ("params", "kernel"),
    ("conv", "bias"): ("params", "bias"),
    ("norm", "weight"): ("params", "scale"),
    ("norm", "bias"): ("params", "bias"),
    ("norm", "running_mean"): ("batch_stats", "mean"),
    ("norm", "running_var"): ("batch_stats", "var"),
    ("output", "weight"): ("params", "kernel"),
    ("output", "bias"): ("params", "bias"),
}
"""(kind of our module, torch's leaf) -> (our collection, our leaf)."""


def convert_resnet(state: Mapping[str, np.ndarray], variables: Mapping[str, Any]) -> dict[str, Any]:
    """A model's variables with every value taken from a torchvision state dict.

    Kernels `[O, I, *k]` become `[*k, I, O]`, the dense layer `[K, C]` becomes `[C, K]`. The running variances are taken
    as they are, which is right for evaluation; torch's are unbiased ones. `num_batches_tracked` has no counterpart and
    is left out.

    Args:
      state: torch's keys and arrays, in torch's layout.
      variables: `{"params": ..., "batch_stats": ...}` of a ResNet-18, 34, 50, 101 or 152 of this library, or its shapes
        from `jax.eval_shape`; only structure, shapes and types are read.

    Returns:
      A tree of the same structure, shapes and types.

    Raises:
      UserError: keys that the model has no place for, leaves of the model without a key, or shapes that differ: all of
        them in one message, and nothing is converted.
    """
    wanted: dict[str, Any] = traverse_util.flatten_dict(dict(variables), sep="/")
    found, unused, differing = {}, [], []
    for key, value in state.items():
        if key.endswith(".num_batches_tracked"):
            continue
        path = _our_path(key)
        if path not in wanted:
            unused.append(key)
            continue
        value = _our_layout(np.asarray(value), path)
        if value.shape != wanted[path].shape:
            differing.append(f"{key} {value.shape} but {path} {wanted[path].shape}")
        found[path] = value
    missing = sorted(set(wanted) - set(found))
    problems = []
    if missing:
        problems.append(f"the model's {', '.join(missing)} have no key")
    if unused:
        problems.append(f"the keys {', '.join(sorted(unused))} have no place in the model")
    if differing:
        problems.append(f"shapes differ, in our layout: {', '.join(differing)}")
    if problems:
        raise UserError(f"the weights do not fit the model: {'; '.join(problems)}")
    converted = {path: jnp.asarray(found[path], leaf.dtype) for path, leaf in wanted.items()}
    return traverse_util.unflatten_dict(converted, sep="/")


def _our_path(key: str) -> str | None:
    """The path of a torchvision key in our variables; None if it is no key of a ResNet."""
    module, _, leaf = key.rpartition(".")
    for pattern, ours in MODULES:
        match = re.fullmatch(pattern, module)
        if match:
            # stage, block (from 0 to from 1), and the number of the convolution or norm
            numbers = [int(number) + (place == 1) for place, number in enumerate(match.groups())]
            path = ours.format(*numbers)
            kind = path.rpartition("/")[2].rstrip("0123456789")
            collection, our_leaf = LEAVES.get((kind, leaf), (None, None))
            return f"{collection}/{path}/{our_leaf}" if collection else None
    return None


def _our_layout(value: np.ndarray, path: str) -> np.ndarray:
    if path.endswith("/kernel"):
        # [O, I, *k] -> [*k, I, O]; for a dense layer [K, C] -> [C, K]
        return np.moveaxis(value, (1, 0), (-2, -1))
    return value
