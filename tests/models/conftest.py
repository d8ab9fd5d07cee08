"""Variables drawn with NumPy: compiling every initializer would take most of the tests' time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def random_variables():
    """`(model, images) -> variables`: kernels of He scale, scales and variances around 1, the rest around 0."""

    def draw(model, images):
        shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
        generator = np.random.default_rng(0)

        def leaf(path, like):
            values = generator.standard_normal(like.shape)
            name = path[-1].key
            if name == "kernel":
                values *= np.sqrt(2 / np.prod(like.shape[:-1]))
            elif name in ("scale", "var"):
                values = 1 + 0.3 * np.tanh(values)
            else:
                values *= 0.1
            return jnp.asarray(values, like.dtype)

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return draw
