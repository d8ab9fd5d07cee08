"""Probes of kernels: how large their gradients are, and how many of their weights are small."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array
from pydantic import Field

from cnn_jax.data.transform import evaluation_transform
from cnn_jax.errors import UserError
from cnn_jax.methods.summarize import summarize
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.optim import parameter_path
from cnn_jax.train.sharding import fetch, gather, place_whole, replicated
from cnn_jax.train.state import TrainState, evaluation_variables
from cnn_jax.types import Batch, PyTree


def gradient_norms(
    experiment: Experiment, state: TrainState, *, examples: Annotated[int, Field(ge=1)] = 256
) -> dict[str, float]:
    """The norm of the training loss's gradient for each kernel over the kernel's own norm.

    Both are Frobenius norms. Their quotient is the relative change that a step of rate 1 makes, whatever the size of
    the layer (the inverse of LARS's trust ratio: You et al. 2017, Eq. 6). The loss is that of the first examples of the
    training split, not augmented, in one batch; normalisation takes the statistics of the batch as in training, and
    dropout and stochastic depth leave nothing out.

    Args:
      experiment: what was trained.
      state: with the parameters, of which those that evaluation takes are probed.
      examples: in the batch; all where the split has fewer.

    Returns:
      Of each kernel `layer/1`, `layer/2`, ... in the order in which they are computed, and before the first step
      `layer_at_start/1`, ...; `ratio`: the first's over the last's; `ratio_at_start`: the same before the first step.
      Numbers that would need a division by 0 are left out.

    Raises:
      UserError: a network without kernels.
    """
    paths = kernel_paths(experiment)
    batch = place_whole(_first_examples(experiment, examples), experiment.mesh)

    def gradients(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        def loss(params: PyTree) -> Array:
            changed = evaluation_transform(batch, mean=experiment.mean, std=experiment.std)
            with nn.intercept_methods(_without_dropout):
                # Dropout, which is off, alone would draw from the key.
                value, _ = experiment.task.loss(params, model_state, changed, jax.random.key(0), train=True)
            return value

        found = _by_path(jax.grad(loss)(gather(params, experiment.mesh)))
        return {path: found[path] for path in paths}

    whole = replicated(experiment.mesh)
    where = (*evaluation_variables(experiment.state_sharding), whole)
    program = jax.jit(gradients, in_shardings=where, out_shardings=whole, compiler_options=experiment.compiler_options)

    def relative(state: TrainState) -> list[float]:
        params, model_state = evaluation_variables(state)
        slopes, kernels = jax.device_get(program(params, model_state, batch)), _by_path(fetch(params, experiment.mesh))
        return [_relative_norm(slopes[path], kernels[path]) for path in paths]

    numbers = {}
    for when, own in (("", state), ("_at_start", experiment.initial_state())):
        norms = relative(own)
        numbers[f"ratio{when}"] = _ratio(norms[0], norms[-1])
        numbers |= {f"layer{when}/{index}": norm for index, norm in enumerate(norms, start=1)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def sparsity(
    experiment: Experiment, state: TrainState, *, threshold: Annotated[float, Field(ge=0)] = 1e-3
) -> dict[str, float]:
    """The share of the kernels' weights whose magnitude is below a threshold.

    Args:
      experiment: what was trained.
      state: with the parameters.
      threshold: in the unit of the weights.

    Raises:
      UserError: a network without kernels.
    """
    params = _by_path(fetch(evaluation_variables(state)[0], experiment.mesh))
    kernels = [params[path] for path in kernel_paths(experiment)]
    small = sum(int(np.count_nonzero(np.abs(kernel) < threshold)) for kernel in kernels)
    return {"": small / sum(kernel.size for kernel in kernels)}


def kernel_paths(experiment: Experiment) -> list[str]:
    """The paths of all kernels, in the order in which their layers are computed.

    Raises:
      UserError: there are none.
    """
    known = _by_path(evaluation_variables(experiment.abstract_state())[0])
    rows = summarize(experiment.model, experiment.splits["train"].image_shape).rows
    paths = dict.fromkeys(f"{row.path}/kernel" for row in rows if f"{row.path}/kernel" in known)
    if not paths:
        raise UserError("study.probes: this network has no kernels; drop gradient_norms and sparsity")
    return list(paths)


def _first_examples(experiment: Experiment, examples: int) -> dict[str, np.ndarray]:
    train = experiment.splits["train"]
    count = min(examples, len(train))
    index = np.arange(count)
    return {
        "image": train.read(index),
        "label": np.asarray(train.labels[index], np.int32),
        "mask": np.ones(count, np.float32),
    }


def _without_dropout(function: Any, arguments: tuple, keywords: dict, context: Any) -> Any:
    """An interceptor by which `nn.Dropout` returns its input."""
    if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
        return arguments[0]
    return function(*arguments, **keywords)


def _by_path(params: PyTree) -> Mapping[str, Any]:
    return {parameter_path(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def _relative_norm(gradient: np.ndarray, kernel: np.ndarray) -> float:
    """|gradient| / |kernel|; in 64 bits, where the squares of vanishing gradients are not 0."""
    norms = [float(np.linalg.norm(np.asarray(x, np.float64))) for x in (gradient, kernel)]
    return _ratio(*norms)


def _ratio(one: float, other: float) -> float:
    return one / other if other else math.nan
