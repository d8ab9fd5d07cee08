"""SqueezeNet: documented sizes at every rank, the smallest image, and what the two versions differ in."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.models.squeezenet import Fire

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

STEMS = {"1_0": 7, "1_1": 3}


def shapes(version, space):
    model = models.create(f"squeezenet{version}", num_classes=5, in_channels=2, width_multiplier=0.1)
    x = jax.ShapeDtypeStruct((1, *space, 2), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    return jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)


@pytest.mark.parametrize("size", [64, 49])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("version", STEMS)
def test_documented_sizes_at_every_rank(version, rank, size):
    n = (size - STEMS[version]) // 2 + 1
    expected = {"stem": (n,) * rank}
    for i in range(1, 4):
        n = math.ceil((n - 3) / 2) + 1
        expected[f"stage{i}"] = (n,) * rank
    assert {name: leaf.shape[1:-1] for name, leaf in shapes(version, (size,) * rank).items()} == expected


@pytest.mark.parametrize(("version", "smallest"), [("1_0", 21), ("1_1", 17)])
def test_smallest_images_are_torchvisions(version, smallest):
    assert shapes(version, (smallest, smallest))["stage3"].shape[1:-1] == (1, 1)
    with pytest.raises(ImageTooSmallError):
        shapes(version, (smallest - 1, smallest))


def test_a_fire_module_is_three_convolutions_two_of_them_side_by_side(random_variables):
    fire = Fire(2, 3, activation="relu", norm="none", dtype="float32")
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 4, 6), dtype=np.float32))
    variables = random_variables(fire, x)
    layers = {name: {k: np.asarray(v) for k, v in part["conv"].items()} for name, part in variables["params"].items()}
    image = np.asarray(x)
    squeezed = np.maximum(image @ layers["squeeze"]["kernel"][0, 0] + layers["squeeze"]["bias"], 0)
    one = squeezed @ layers["expand1x1"]["kernel"][0, 0] + layers["expand1x1"]["bias"]
    padded = np.pad(squeezed, ((0, 0), (1, 1), (1, 1), (0, 0)))
    three = layers["expand3x3"]["bias"] + sum(
        padded[:, i : i + 5, j : j + 4] @ layers["expand3x3"]["kernel"][i, j] for i in range(3) for j in range(3)
    )
    expected = np.maximum(np.concatenate([one, three], axis=-1), 0)
    np.testing.assert_allclose(fire.apply(variables, x, train=False), expected, rtol=1e-4, atol=1e-5)
