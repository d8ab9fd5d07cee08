"""torchvision's parameters in our layout, without torch: what the converters of all families share."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn_jax.errors import UserError

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


def convert(
    state: Mapping[str, np.ndarray], variables: Mapping[str, Any], *, our_module: Callable[[str], str | None]
) -> dict[str, Any]:
    """A model's variables with every value taken from a torchvision state dict.

    Kernels `[O, I, *k]` become `[*k, I, O]`, the dense layer `[K, C]` becomes `[C, K]`. The running variances are taken
    as they are, which is right for evaluation; torch's are unbiased ones. `num_batches_tracked` has no counterpart and
    is left out.

    Args:
      state: torch's keys and arrays, in torch's layout.
      variables: `{"params": ..., "batch_stats": ...}` of our model, or its shapes from `jax.eval_shape`; only
        structure, shapes and types are read.
      our_module: torchvision's name of a module to our path of it, None if the model has none.

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
        path = _our_path(key, our_module)
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


def _our_path(key: str, our_module: Callable[[str], str | None]) -> str | None:
    """The path of a torchvision key in our variables; None if the model has no place for it."""
    module, _, leaf = key.rpartition(".")
    path = our_module(module)
    if path is None:
        return None
    kind = path.rpartition("/")[2].rstrip("0123456789")
    collection, our_leaf = LEAVES.get((kind, leaf), (None, None))
    return f"{collection}/{path}/{our_leaf}" if collection else None


def _our_layout(value: np.ndarray, path: str) -> np.ndarray:
    if path.endswith("/kernel"):
        # [O, I, *k] -> [*k, I, O]; for a dense layer [K, C] -> [C, K]
        return np.moveaxis(value, (1, 0), (-2, -1))
    return value
