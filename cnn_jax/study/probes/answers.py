"""What a network answers when the images are changed: one compiled program for all settings of a change."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cnn_jax.data.transform import normalise, to_float
from cnn_jax.errors import UserError
from cnn_jax.ops.random import example_keys, named_key
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.sharding import divided, gather, replicated
from cnn_jax.train.state import TrainState, evaluation_variables
from cnn_jax.types import Batch, PyTree

Change: TypeAlias = Callable[[Array, Array, PyTree], Array]
"""(keys `[B]`, images `[B, *space, C]` in [0, 1], setting) to images of the same shape."""

NO_CLASS = -1
"""The answer to an image whose logits are not all numbers."""


def answers(
    experiment: Experiment, state: TrainState, change: Change, settings: Sequence[PyTree], *, purpose: str
) -> tuple[Int[np.ndarray, "S N"], Int[np.ndarray, "N"]]:
    """The class that the network gives to every example of the probed split, for every setting of a change.

    Args:
      experiment: what was trained.
      state: with the parameters.
      change: what is done to the images before they are normalised. Its keys are a function of the purpose and the
        example: not of the run's seed, the batch size or the setting.
      settings: host arrays, of the same shapes and types in every setting.
      purpose: what the keys are for.

    Returns:
      Classes, `NO_CLASS` for logits with a NaN, and labels.
    """

    def classes(params: PyTree, model_state: PyTree, batch: Batch, setting: PyTree) -> dict[str, Array]:
        example = setting["first"] + jnp.arange(len(batch["mask"]), dtype=jnp.int32)
        keys = example_keys(named_key(jax.random.key(0), purpose), jnp.zeros_like(example), example)
        images = change(keys, to_float(batch["image"]), setting["change"])
        images = normalise(images, mean=experiment.mean, std=experiment.std)
        logits = experiment.task.predict(params, model_state, {**batch, "image": images})["logits"]
        return {"class": predicted_classes(logits), "label": batch["label"], "mask": batch["mask"]}

    program, variables = compiled(experiment, classes), evaluation_variables(state)
    batches, first = [], 0
    for batch in experiment.evaluation_batches(probed_split(experiment)):
        batches.append(
            [program(*variables, batch, {"first": np.int32(first), "change": setting}) for setting in settings]
        )
        first += len(batch["mask"])
    # Fetched after the last batch is under way, so that the device never waits for the host.
    found = [{name: np.stack([one[name] for one in batch]) for name in batch[0]} for batch in jax.device_get(batches)]
    # [S, B] each -> [S, N]
    whole = {name: np.concatenate([batch[name] for batch in found], axis=1) for name in found[0]}
    keep = whole["mask"][0] > 0
    return whole["class"][:, keep], whole["label"][0, keep]


def predicted_classes(logits: Float[Array, "B K"]) -> Int[Array, "B"]:
    """The class of the largest logit, the first of equal ones; `NO_CLASS` where one is NaN, as accuracy has it."""
    broken = jnp.any(jnp.isnan(logits), axis=1)
    return jnp.where(broken, NO_CLASS, jnp.argmax(logits, axis=1)).astype(jnp.int32)


def correct(classes: Int[np.ndarray, "S N"], labels: Int[np.ndarray, "N"]) -> Float[np.ndarray, "S"]:
    """The share of right answers, for each setting."""
    return np.mean(classes == labels[None], axis=1)


def agreement(one: Int[np.ndarray, "*N"], other: Int[np.ndarray, "*N"]) -> Bool[np.ndarray, "*N"]:
    """Where two answers are the same class; two missing ones are not."""
    return (one == other) & (one != NO_CLASS)


def compiled(experiment: Experiment, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`function(params, model_state, batch, setting)` under jit over the mesh; what it returns is whole on each device.

    Args:
      experiment: gives the mesh and where parameters lie.
      function: of a batch of `evaluation_batches`, divided over the devices, and of arrays that are whole on each.
    """

    def run(params: PyTree, model_state: PyTree, batch: Batch, setting: PyTree) -> PyTree:
        return function(gather(params, experiment.mesh), model_state, batch, setting)

    whole = replicated(experiment.mesh)
    where = (*evaluation_variables(experiment.state_sharding), divided(experiment.mesh), whole)
    return jax.jit(run, in_shardings=where, out_shardings=whole, compiler_options=experiment.evaluation_options)


def probed_split(experiment: Experiment) -> str:
    """The last split that a finished run is evaluated on.

    Raises:
      UserError: there is none.
    """
    if not experiment.evaluation_splits:
        raise UserError("study.probes need a split to look at; set data.splits.test")
    return experiment.evaluation_splits[-1]


def image_shape(experiment: Experiment) -> tuple[int, ...]:
    """`[*space, C]` of the probed split's images.

    Raises:
      UserError: as `probed_split`.
    """
    return experiment.splits[probed_split(experiment)].image_shape
