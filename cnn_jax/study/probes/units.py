"""Dead units: those whose output is the same for every image."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from pydantic import Field

from cnn_jax.data.transform import evaluation_transform
from cnn_jax.errors import UserError
from cnn_jax.study.probes.answers import compiled, probed_split
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.state import TrainState, evaluation_variables
from cnn_jax.types import Batch, PyTree

READ = "read"
"""The collection in which layers note what they read."""


def dead_units(
    experiment: Experiment, state: TrainState, *, threshold: Annotated[float, Field(ge=0)] = 1e-6
) -> dict[str, float]:
    """The share of units whose output is, at every position, the same for all images.

    A ReLU that no image activates is 0 for all of them; a sigmoid, tanh, ELU or GELU that is saturated for all images
    gives one number up to rounding. Either tells nothing of the image, and its derivative is 0, so that its weights do
    not learn. Leaky units are dead only where their input does not vary either. The definition needs no derivative and
    no bound of its own for any activation.

    Units are the channels of what a layer with a kernel reads (behind activation, norm and pool) and of the last
    feature map. The image is none of them, and the head's first layer reads that map.

    Args:
      experiment: what was trained.
      state: with the parameters.
      threshold: the largest spread over images of an output that counts as one number, in units of the larger of 1 and
        its absolute value; rounding is below 1e-6 in float32.

    Returns:
      The share of all units under "", and of those that each layer reads under its path; "head" is for the last map.

    Raises:
      UserError: a network without hidden units.
    """

    def extremes(params: PyTree, model_state: PyTree, batch: Batch, setting: PyTree) -> PyTree:
        del setting  # There is but one.
        images = evaluation_transform(batch, mean=experiment.mean, std=experiment.std)["image"]
        outputs = unit_outputs(experiment.model, {"params": params, **model_state}, images)
        return {name: spread_over_examples(values, batch["mask"]) for name, values in outputs.items()}

    program, variables = compiled(experiment, extremes), evaluation_variables(state)
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    for batch in experiment.evaluation_batches(probed_split(experiment)):
        for name, (low, high) in jax.device_get(program(*variables, batch, ())).items():
            lows[name] = np.minimum(lows.get(name, low), low)
            highs[name] = np.maximum(highs.get(name, high), high)
    if not lows:
        raise UserError("study.probes: dead_units: this network has no hidden units; drop the probe")
    dead = {name: constant_units(lows[name], highs[name], threshold=threshold) for name in lows}
    shares = {name: float(np.mean(values)) for name, values in dead.items()}
    return {"": float(np.mean(np.concatenate(list(dead.values())))), **shares}


def unit_outputs(
    model: nn.Module, variables: Mapping[str, Any], images: Float[Array, "B *space C"]
) -> dict[str, Float[Array, "B ..."]]:
    """What the units of a network give: path of the layer that reads it to `[B, ..., C]`; see `dead_units`.

    An array that several layers read is that of the first.

    Args:
      model: a `Classifier`, with a backbone and a head.
      variables: its collections.
      images: normalised.
    """
    order: list[str] = []
    maps: list[Array] = []
    with nn.intercept_methods(_recorder(order, maps)):
        _, updated = model.apply(variables, images, train=False, mutable=[READ])
    leaves = jax.tree_util.tree_flatten_with_path(updated.get(READ, {}))[0]
    by_path: dict[str, Array] = {}
    for path, values in leaves:
        # The path ends with the name and, as a layer may be called again, with the number of the call.
        layer, call = "/".join(str(part.key) for part in path[:-2]), path[-1].idx
        by_path[layer if call == 0 else f"{layer} ({call + 1})"] = values
    in_head = [name for name in order if name.startswith("head/")]
    # The first layer reads the image, as it is or flattened, and the first one of the head reads the last map.
    found = {name: by_path[name] for name in order if name not in (*order[:1], *in_head[:1])}
    if maps and maps[-1] is not images:
        found["head"] = maps[-1]
    return found


def _recorder(order: list[str], maps: list[Array]) -> Callable[..., Any]:
    """An interceptor by which each layer with a kernel notes what it reads, unless another one has noted it.

    Args:
      order: gets the names under which `unit_outputs` finds what was noted, in the order of reading.
      maps: gets the backbone's last feature map.
    """
    known: list[Array] = []

    def record(function: Callable, arguments: tuple, keywords: dict, context: Any) -> Any:
        module, path = context.module, "/".join(context.module.path)
        if context.method_name != "__call__":
            return function(*arguments, **keywords)
        if arguments and module.has_variable("params", "kernel") and not any(arguments[0] is x for x in known):
            known.append(arguments[0])
            calls = sum(name == path or name.startswith(f"{path} (") for name in order)
            order.append(path if calls == 0 else f"{path} ({calls + 1})")
            # Through a collection and not a list: what is traced within `nn.remat` is not valid outside of it.
            module.sow(READ, "input", arguments[0])
        output = function(*arguments, **keywords)
        if path == "backbone":
            maps.append(tuple(output.values())[-1])
        return output

    return record


def spread_over_examples(
    values: Float[Array, "B ..."], mask: Float[Array, "B"]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The smallest and the largest value over the examples whose mask is 1, in float32."""
    values = values.astype(jnp.float32)
    counts = jnp.expand_dims(mask > 0, range(1, values.ndim))
    return jnp.where(counts, values, jnp.inf).min(axis=0), jnp.where(counts, values, -jnp.inf).max(axis=0)


def constant_units(
    low: Float[np.ndarray, "*space C"], high: Float[np.ndarray, "*space C"], *, threshold: float
) -> Bool[np.ndarray, "C"]:
    """Which channels have, at every position, no larger spread than `threshold` times the larger of 1 and |value|."""
    size = np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
    constant = high - low <= threshold * size
    return np.all(constant.reshape(-1, constant.shape[-1]), axis=0)  # [*space, C] -> [positions, C]
