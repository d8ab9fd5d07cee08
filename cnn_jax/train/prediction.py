"""What a trained network says of every example of a split."""

from collections.abc import Callable

import jax
import numpy as np

from cnn_jax.data.transform import evaluation_transform
from cnn_jax.train.evaluate import nan_where_masked
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.sharding import divided, gather, replicated
from cnn_jax.train.state import TrainState, evaluation_variables
from cnn_jax.types import Batch, PyTree


def compiled_prediction(experiment: Experiment) -> Callable[[PyTree, PyTree, Batch], dict[str, jax.Array]]:
    """`task.predict` of (params, model_state, batch) under jit over the mesh; NaN for masked examples."""
    mesh, mean, std = experiment.mesh, experiment.mean, experiment.std

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, jax.Array]:
        images = evaluation_transform(batch, mean=mean, std=std)
        predicted = experiment.task.predict(gather(params, mesh), model_state, images)
        return {name: nan_where_masked(values, batch["mask"]) for name, values in predicted.items()}

    where = (*evaluation_variables(experiment.state_sharding), divided(mesh))
    whole = replicated(mesh)  # so that every process can read it
    return jax.jit(predict, in_shardings=where, out_shardings=whole, compiler_options=experiment.evaluation_options)


def predict(experiment: Experiment, state: TrainState, split: str) -> dict[str, np.ndarray]:
    """The task's predictions for every example of a split, in order, on the host; NaN where it was skipped."""
    compiled = compiled_prediction(experiment)
    variables = evaluation_variables(state)
    outputs = jax.device_get([compiled(*variables, batch) for batch in experiment.evaluation_batches(split)])
    count = len(experiment.splits[split])
    return {name: np.concatenate([output[name] for output in outputs])[:count] for name in outputs[0]}
