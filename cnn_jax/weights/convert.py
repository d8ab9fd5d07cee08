"""torch's parameters as ours and back, without torch: NumPy arrays under torch's names and in torch's layout."""

import collections
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn_jax import models
from cnn_jax.errors import UserError, unknown_name
from cnn_jax.types import PyTree
from cnn_jax.untrusted import listed
from cnn_jax.weights.key_maps import KEY_MAPS
from cnn_jax.weights.layout import KeyMap, LayoutError, Rule, to_ours, to_theirs

logger = logging.getLogger(__name__)


def convert(
    name: str,
    state: Mapping[str, np.ndarray],
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    new_head: jax.Array | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """The variables of a model with every value taken from torch's state dict.

    Kernels `[O, I, *k]` become `[*k, I, O]`, dense layers `[K, C]` become `[C, K]`. The running variances are taken as
    they are; torch's are unbiased ones. `num_batches_tracked` has no counterpart and is left out. Lower precision
    becomes float32 exactly; float64 is rounded to it.

    Args:
      name: of the model, a key of `KEY_MAPS`.
      state: torch's keys and arrays, in torch's layout.
      num_classes: None: as many as the state has.
      in_channels: None: as many as the state has. With 1 the stem's kernels are summed over their channels, with more
        than the state has they are repeated, in turn, and scaled so that equal channels give the same sums.
      new_head: where `num_classes` is not the state's, the key from which the layers behind the features are
        initialised; they are named in a log message. Without it such a state is refused.
      **arguments: of the model.

    Returns:
      `{"params": ..., "batch_stats": ...}`, the latter where the model has statistics.

    Raises:
      UserError: an unknown model, keys that the model has no place for, leaves of the model without a key, shapes that
        differ: all of them in one message, and nothing is converted. So are tensors that are not of real numbers, and
        finite ones that float32 has no numbers for.
    """
    key_map = key_map_of(name)
    keys_today = {key: key_map.current(key) for key in state}
    if len(set(keys_today.values())) < len(state):
        raise UserError(f"the weights do not fit the model: {_twice(keys_today)} are the same tensor")
    state = {keys_today[key]: value for key, value in state.items()}
    known_classes, known_channels = _sizes(key_map, state)
    num_classes = known_classes if num_classes is None else num_classes
    in_channels = known_channels if in_channels is None else in_channels
    model = models.create(name, num_classes=num_classes, in_channels=in_channels, **arguments)
    wanted = flat_shapes(model, name)
    keys = key_map.keys(wanted)
    renewed = set()
    if num_classes != known_classes:
        renewed = {path for path in wanted if _module(path) in key_map.heads}
        if new_head is None:
            new = [wanted[path].shape for path in sorted(renewed)]
            shapes = ", ".join(f"{(*shape[:-1], known_classes)} -> {shape}" for shape in new)
            raise UserError(
                f"the weights have {known_classes} classes, the model {num_classes}: give new_head=jax.random.key(0) to"
                f" initialise {', '.join(sorted(renewed))} anew (shapes {shapes})"
            )
        logger.warning("initialised anew for %d classes: %s", num_classes, ", ".join(sorted(renewed)))
    found, differing = {}, []
    for path, entry in keys.items():
        if entry is None or entry[0] not in state or path in renewed:
            continue
        key, shape = entry[0], wanted[path].shape
        try:
            value = to_ours(_real(key, state[key], wanted[path].dtype), path, entry[1])
        except LayoutError as error:
            differing.append(f"{key} {np.shape(state[key])} ({error}) but {path} {shape}")
            found[path] = None
            continue
        if _module(path) == key_map.stem and path.endswith("/kernel") and value.ndim == len(shape):
            value = adapt_channels(value, in_channels)
        if value.shape != shape:
            differing.append(f"{key} {value.shape} but {path} {shape}")
        found[path] = value
    _require_all(wanted, keys, key_map, state, found=set(found) | renewed, differing=differing)
    converted = {path: jnp.asarray(value, wanted[path].dtype) for path, value in found.items()}
    if renewed:
        assert new_head is not None
        converted |= _initial(model, name, new_head, renewed)
    places = {entry[0] for entry in keys.values() if entry is not None}
    left_out = sum(key not in places and key_map.is_auxiliary(key) for key in state)
    if left_out:
        logger.warning("%d auxiliary tensors of the weights are left out; auxiliary=True takes them", left_out)
    return traverse_util.unflatten_dict({path: converted[path] for path in wanted}, sep="/")


def to_torch(name: str, variables: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """The model's variables under torch's names and in torch's layout: the inverse of `convert`, exact.

    torch's `load_state_dict` takes it; `num_batches_tracked`, which we do not have, it then sets to 0 itself.

    Args:
      name: of the model, a key of `KEY_MAPS`.
      variables: `{"params": ..., "batch_stats": ...}`, all that the model has.
      **arguments: of the model. Whether it has auxiliary heads, the variables say.

    Raises:
      UserError: an unknown model, leaves that it does not have, leaves that are missing, shapes that differ: all of
        them in one message.
    """
    return flat_to_torch(name, traverse_util.flatten_dict(dict(variables), sep="/"), **arguments)


def flat_to_torch(name: str, flat: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """`to_torch` of leaves by their paths, `params/head/output/kernel`.

    Raises:
      UserError: as `to_torch`.
    """
    key_map = key_map_of(name)
    entries = key_map.keys(flat).values()
    if any(entry is not None and key_map.is_auxiliary(entry[0]) for entry in entries):
        arguments = {**arguments, "auxiliary": True}
    num_classes = _size(flat, f"params/{key_map.heads[0]}/kernel", -1) or 1
    in_channels = _size(flat, f"params/{key_map.stem}/kernel", -2) or 3
    model = models.create(name, **{**arguments, "num_classes": num_classes, "in_channels": in_channels})
    wanted = flat_shapes(model, name)
    extra, missing = sorted(set(flat) - set(wanted)), sorted(set(wanted) - set(flat))
    differing = [
        f"{path} {np.shape(flat[path])} instead of {wanted[path].shape}"
        for path in sorted(set(wanted) & set(flat))
        if np.shape(flat[path]) != wanted[path].shape
    ]
    problems = [f"{listed(extra)} have no place in it"] if extra else []
    problems += [f"{', '.join(missing)} are missing"] if missing else []
    problems += [f"shapes differ: {', '.join(differing)}"] if differing else []
    if problems:
        raise UserError(f"these variables are none of model {name!r}: {'; '.join(problems)}")
    state: dict[str, np.ndarray] = {}
    for path, entry in key_map.keys(flat).items():
        assert entry is not None, path
        key, rule = entry
        assert key not in state, key
        state[key] = to_theirs(np.asarray(flat[path]), path, rule)
    return state


def key_map_of(name: str) -> KeyMap:
    """The key map of a model.

    Raises:
      UserError: the model has none; the message lists those that have one.
    """
    if name not in KEY_MAPS:
        raise unknown_name("model with torch weights", name, KEY_MAPS)
    return KEY_MAPS[name]


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The kernel of a first convolution, `[*k, I, O]`, for images of another number of channels.

    One channel gets the sum, so that a grey image gives what its three equal channels gave. More get the given ones in
    turn, times I / channels.

    Example:
      >>> adapt_channels(np.ones((1, 3, 2)), 4)[0, :, 0].tolist()
      [0.75, 0.75, 0.75, 0.75]
    """
    given = kernel.shape[-2]
    if channels == given:
        return kernel
    if channels == 1:
        return kernel.sum(axis=-2, keepdims=True)
    return kernel[..., np.arange(channels) % given, :] * np.asarray(given / channels, kernel.dtype)


def sizes_of(name: str, variables: Mapping[str, Any]) -> tuple[int, int]:
    """(classes, image channels) of a model's variables.

    Raises:
      UserError: an unknown model, or variables of another one.
    """
    key_map = key_map_of(name)
    flat: dict[str, Any] = traverse_util.flatten_dict(dict(variables), sep="/")
    sizes = []
    for module, axis in ((key_map.heads[0], -1), (key_map.stem, -2)):
        path = f"params/{module}/kernel"
        if path not in flat:
            raise UserError(f"these variables are none of model {name!r}: {path} is not there")
        sizes.append(int(flat[path].shape[axis]))
    return sizes[0], sizes[1]


def flat_shapes(model: nn.Module, name: str) -> dict[str, Any]:
    """Shapes and types of a model's variables by their paths."""
    return traverse_util.flatten_dict(jax.eval_shape(_init(model, name), jax.random.key(0)), sep="/")


def _init(model: nn.Module, name: str) -> Any:
    shape = (1, *key_map_of(name).image, model.in_channels)
    # The image is made where this is traced: it takes no memory, however many channels there are.
    return lambda key: model.init(key, jnp.zeros(shape, jnp.float32), train=False)


def _initial(model: nn.Module, name: str, key: jax.Array, paths: set[str]) -> dict[str, PyTree]:
    """These leaves of an initialised model; the others are not computed."""

    def init(key: jax.Array) -> dict[str, PyTree]:
        flat = traverse_util.flatten_dict(_init(model, name)(key), sep="/")
        return {path: flat[path] for path in paths}

    return jax.jit(init)(key)


def _module(path: str) -> str:
    """`params/head/output/kernel` -> `head/output`."""
    return path.partition("/")[2].rpartition("/")[0]


def _sizes(key_map: KeyMap, state: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """(classes, image channels) of a state."""
    shapes = []
    for module, axis in ((key_map.heads[0], 0), (key_map.stem, 1)):
        entry = key_map.find(f"params/{module}/kernel")
        assert entry is not None, module
        if entry[0] not in state:
            raise UserError(f"the weights do not fit the model: {entry[0]} is not among the {len(state)} keys")
        shape = np.shape(state[entry[0]])
        if len(shape) < 2 or 0 in shape:
            raise UserError(
                f"the weights do not fit the model: shapes differ: {entry[0]} {shape} but params/{module}/kernel has"
                " 2 axes or more, and none of size 0"
            )
        shapes.append(int(shape[axis]))
    return shapes[0], shapes[1]


def _size(flat: Mapping[str, Any], path: str, axis: int) -> int:
    """The size of an axis of a kernel; 0 where there is none."""
    shape = np.shape(flat[path]) if path in flat else ()
    return int(shape[axis]) if len(shape) >= 2 else 0


def _real(key: str, value: Any, dtype: Any) -> np.ndarray:
    """The tensor in the type of the model's variable.

    Raises:
      UserError: it is not of real numbers, or has finite ones that become infinite.
    """
    value = np.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(f"the weights do not fit the model: {key} has the type {value.dtype}, not of real numbers")
    if value.dtype == dtype:
        return value
    with np.errstate(over="ignore"):
        cast = value.astype(dtype)
    if np.any(np.isinf(cast) & np.isfinite(value)):
        raise UserError(f"the weights do not fit the model: {key} has numbers that {np.dtype(dtype)} cannot hold")
    return cast


def _twice(renamed: Mapping[str, str]) -> str:
    """The keys whose new name is another's too."""
    new = collections.Counter(renamed.values())
    return listed([key for key, name in renamed.items() if new[name] > 1])


def _require_all(
    wanted: Mapping[str, Any],
    keys: Mapping[str, tuple[str, Rule] | None],
    key_map: KeyMap,
    state: Mapping[str, np.ndarray],
    *,
    found: set[str],
    differing: Sequence[str],
) -> None:
    """Checks that every tensor is used once and every variable filled once."""
    places = collections.Counter(entry[0] for entry in keys.values() if entry is not None)
    twice = sorted(key for key, count in places.items() if count > 1)
    assert not twice, f"two variables have the keys {twice}"
    missing = sorted(set(wanted) - found)
    unused = sorted(key for key in state if key not in places and not key_map.ignores(key))
    problems = [f"the model's {', '.join(missing)} have no key"] if missing else []
    problems += [f"the keys {listed(unused)} have no place in the model"] if unused else []
    problems += [f"shapes differ, in our layout: {', '.join(differing)}"] if differing else []
    if problems:
        raise UserError(f"the weights do not fit the model: {'; '.join(problems)}")
