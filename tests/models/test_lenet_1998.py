"""LeNet-5 of 1998, part by part against the paper."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.models.lenet_1998 import LeNet1998, PartialConv, RBFHead, Subsampling, lenet5_1998, output_codes

# LeCun et al. 1998, Table I: row i has an X in column j where map j of C3 sees map i of S2.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


@pytest.fixture(scope="module")
def built():
    model = lenet5_1998(num_classes=10)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 1))
    return model, jax.jit(functools.partial(model.init, train=False))(jax.random.key(1), x), x


def test_parameters_per_layer(built):
    _, variables, _ = built
    assert set(variables) == {"params"}
    params = variables["params"]
    layers = {**params["backbone"], **params["head"]}
    counts = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(layer)) for name, layer in layers.items()}
    # LeCun et al. 1998, Section II-B
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164}
    assert sum(counts.values()) == 60_000


def test_shapes(built):
    model, variables, x = built
    maps = model.apply(variables, x, train=False, method="features")
    assert {name: leaf.shape[1:] for name, leaf in maps.items()} == {
        "c1": (28, 28, 6),
        "s2": (14, 14, 6),
        "c3": (10, 10, 16),
        "s4": (5, 5, 16),
        "c5": (1, 1, 120),
    }


def test_c3_sees_what_table_i_says():
    table = np.array([list(row) for row in TABLE_I.split()]) == "X"
    assert table.shape == (6, 16)
    assert table.sum() == 60
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 6))
    layer = PartialConv()
    variables = layer.init(jax.random.key(1), x)
    jacobian = np.asarray(jax.jacobian(lambda x: layer.apply(variables, x)[0, 0, 0])(x))  # [16, 1, 5, 5, 6]
    seen = np.abs(jacobian).max(axis=(1, 2, 3)) > 0  # [16, 6]
    np.testing.assert_array_equal(seen.T, table)
    # Every connected kernel has its own 25 weights: 60 × 25 distinct derivatives.
    assert np.unique(jacobian[jacobian != 0]).size == 60 * 25


def test_subsampling_is_a_coefficient_times_a_sum_plus_a_bias_squashed():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    coefficient, bias = np.float32([0.5, -0.2, 1.0]), np.float32([0.1, 0.0, -0.3])
    y = Subsampling().apply({"params": {"coefficient": coefficient, "bias": bias}}, x)
    values = np.asarray(x)
    sums = values[:, ::2, ::2] + values[:, 1::2, ::2] + values[:, ::2, 1::2] + values[:, 1::2, 1::2]
    np.testing.assert_allclose(y, 1.7159 * np.tanh(2 / 3 * (sums * coefficient + bias)), atol=1e-5)


def test_the_output_is_minus_the_squared_distance_to_the_codes():
    codes = output_codes(10)
    digit = 7
    # A bias that makes F6 exactly the code of this digit: 1.7159 tanh(2a/3) = ±1.
    bias = 1.5 * np.arctanh(codes[digit] / 1.7159)
    params = {"f6": {"kernel": jnp.zeros((120, 84)), "bias": jnp.asarray(bias)}}
    logits = np.asarray(RBFHead(10).apply({"params": params}, jnp.ones((1, 1, 1, 120)), train=False))[0]
    differing = (codes != codes[digit]).sum(axis=1)  # each differing pixel is 2 apart
    np.testing.assert_allclose(logits, -4.0 * differing, atol=1e-3)
    assert logits.argmax() == digit


def test_codes():
    codes = output_codes(10)
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    for first, second in itertools.combinations(codes, 2):
        assert (first != second).sum() >= 8
    np.testing.assert_array_equal(output_codes(3), codes[:3])
    many = output_codes(26)
    assert many.shape == (26, 84)
    assert set(np.unique(many)) == {-1.0, 1.0}
    np.testing.assert_allclose(many.mean(), 0, atol=0.1)
    np.testing.assert_array_equal(many, output_codes(26))
    # 0 is symmetric and hollow, 1 is a stroke in the middle: rows are rows of the drawing.
    zero, one = codes[0].reshape(12, 7), codes[1].reshape(12, 7)
    np.testing.assert_array_equal(zero, zero[:, ::-1])
    assert (zero[2:10, 3] == -1).all()
    assert (one[:, 3] == 1).all()


def test_small_images_are_padded_with_their_background(built):
    model, variables, _ = built
    image = jax.random.normal(jax.random.key(3), (1, 28, 28, 1))
    image = image.at[:, [0, -1]].set(-0.4).at[:, :, [0, -1]].set(-0.4)
    padded = jnp.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=-0.4)
    np.testing.assert_allclose(
        model.apply(variables, image, train=False), model.apply(variables, padded, train=False), rtol=1e-5
    )


def test_initial_weights_are_uniform_in_two_point_four_over_fan_in(built):
    _, variables, _ = built
    params = variables["params"]
    fans = [("c1", "kernel", 25), ("c5", "kernel", 400), ("s2", "coefficient", 4)]
    for layer, leaf, fan_in in fans:
        values = np.abs(params["backbone"][layer][leaf])
        assert 0.5 * 2.4 / fan_in < values.max() <= 2.4 / fan_in
    kernel = np.abs(params["backbone"]["c3"]["kernel"])  # [5, 5, 60]: 6 × 3, 9 × 4 and 1 × 6 connections
    for where, inputs in ((slice(0, 18), 3), (slice(18, 54), 4), (slice(54, 60), 6)):
        assert 0.9 * 2.4 / (25 * inputs) < kernel[..., where].max() <= 2.4 / (25 * inputs)


def test_other_sizes_are_refused():
    init = functools.partial(LeNet1998().init, train=False)
    for space in ((30, 30), (64, 64), (28, 32), (32,)):
        with pytest.raises(UserError, match="lenet5_1998 takes images of 28×28 or 32×32 pixels, not"):
            jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, *space, 1), jnp.float32))
