"""Xception: documented sizes at every rank, the smallest image, and where activations and shortcuts lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.models.xception import XceptionBlock

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

NARROW = {"num_classes": 5, "in_channels": 2, "width_multiplier": 0.05, "middle_blocks": 1}


@pytest.mark.parametrize(("rank", "size"), [(1, 64), (2, 7), (2, 64), (2, 49), (3, 49)])
def test_documented_sizes_at_every_rank(rank, size):
    model = models.create("xception", **NARROW)
    x = jax.ShapeDtypeStruct((1, *(size,) * rank, 2), jnp.float32)
    init = functools.partial(model.init_with_output, train=False, method="features")
    maps, _ = jax.eval_shape(init, jax.random.key(0), x)
    stem = (size - 1) // 2 - 2
    expected = {"stem": stem, **{f"stage{i}": -(-stem // 2**i) for i in range(1, 5)}, "final": -(-stem // 16)}
    assert {key: leaf.shape[1:-1] for key, leaf in maps.items()} == {key: (n,) * rank for key, n in expected.items()}


def test_an_image_that_is_too_small():
    model = models.create("xception", **NARROW)
    x = jax.ShapeDtypeStruct((1, 6, 7, 2), jnp.float32)
    with pytest.raises(ImageTooSmallError, match="layer 'backbone/stem_conv2/conv' gets an image of 2×3 pixels"):
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)


def block(**arguments):
    shared = {"activation": "relu", "norm": "none", "kernel_init": jax.nn.initializers.constant(0.1)}
    return XceptionBlock(dtype="float32", **shared, **arguments)


def test_an_activation_goes_before_a_block_but_not_into_its_shortcut():
    x = -jnp.ones((1, 5, 5, 3))
    for starts_active in (True, False):
        y = block(features=(3, 3), stride=1, starts_active=starts_active).init_with_output(
            jax.random.key(0), x, train=False
        )[0]
        # Kernels are positive: what is negative before the block is 0 behind its first or second activation.
        np.testing.assert_array_equal(y, x)
    layers = block(features=(3,), stride=1, starts_active=False)
    assert np.all(layers.init_with_output(jax.random.key(0), x, train=False)[0] < x)


def test_a_stride_is_a_pool_and_a_projection():
    x = jnp.ones((1, 5, 4, 3))
    y, variables = block(features=(4, 6), stride=2, starts_active=True).init_with_output(
        jax.random.key(0), x, train=False
    )
    assert y.shape == (1, 3, 2, 6)
    params = variables["params"]
    assert params["shortcut"]["conv"]["kernel"].shape == (1, 1, 3, 6)
    assert params["conv1"]["depthwise"]["kernel"].shape == (3, 3, 1, 3)
    assert set(params["conv1"]["depthwise"]) == {"kernel"}
    assert set(params["conv1"]["pointwise"]) == {"kernel", "bias"}
