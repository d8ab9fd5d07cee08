"""What a batch means: the literal table of tasks."""

from cnn_jax.tasks.classification import Classification

TASKS = {"classification": Classification}
