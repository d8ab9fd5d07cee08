"""cnn_jax: convolutional networks in JAX, for research that others can reproduce.

Importing the package starts no device and reads no file. Import what you need from its folders, for example
`from cnn_jax import models` or `from cnn_jax.train.step import train_step`.
"""

__version__ = "0.1.0"
