"""Heads and the classifier."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.models.mlp import Pixels
from cnn_jax.nn.heads import Classifier, ConvHead, DenseHead, PooledHead


def test_pooled_head_is_a_mean_and_a_matrix():
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 5))
    logits, variables = PooledHead(7).init_with_output(jax.random.key(1), x, train=False)
    output = variables["params"]["output"]
    assert output["bias"].shape == (7,)  # starts at 0
    np.testing.assert_allclose(logits, np.asarray(x).mean(axis=(1, 2)) @ output["kernel"], atol=1e-5)


def test_dense_head_flattens_with_channels_fastest():
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 5))
    head = DenseHead(sizes=(6,), num_classes=7)
    logits, variables = head.init_with_output(jax.random.key(1), x, train=False)
    params = variables["params"]
    flat = np.stack([np.concatenate([example[i, j] for i in range(4) for j in range(3)]) for example in np.asarray(x)])
    hidden = np.maximum(flat @ params["dense1"]["kernel"], 0)
    np.testing.assert_allclose(logits, hidden @ params["output"]["kernel"], atol=1e-5)


def test_dense_head_average_takes_any_image_size():
    head = DenseHead(sizes=(6,), num_classes=7, final_pool="average")
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 5))
    logits, variables = head.init_with_output(jax.random.key(1), x, train=False)
    twice = jnp.concatenate([x, x], axis=1)
    np.testing.assert_allclose(head.apply(variables, twice, train=False), logits, atol=1e-5)


def test_dense_head_with_bins_takes_any_image_size():
    head = DenseHead(sizes=(6,), num_classes=7, bins=2)
    x = jax.random.normal(jax.random.key(0), (2, 4, 2, 5))
    logits, variables = head.init_with_output(jax.random.key(1), x, train=False)
    assert variables["params"]["dense1"]["kernel"].shape == (2 * 2 * 5, 6)
    pooled = np.asarray(x).reshape(2, 2, 2, 2, 1, 5).mean(axis=(2, 4))  # [B, 2, 2, 2, 1, C] -> [B, 2, 2, C]
    np.testing.assert_allclose(head.apply(variables, jnp.asarray(pooled), train=False), logits, atol=1e-5)


def test_dropout_first_drops_inputs_and_no_unit_before_the_last_layer():
    ones = {"dense1": {"kernel": jnp.ones((64, 8)), "bias": jnp.zeros(8)}}
    ones["output"] = {"kernel": jnp.eye(8), "bias": jnp.zeros(8)}
    x = jnp.ones((1, 8, 8, 1))
    for first in (True, False):
        head = DenseHead((8,), 8, dropout_rate=0.5, dropout_first=first)
        units = head.apply({"params": ones}, x, train=True, rngs={"dropout": jax.random.key(0)})[0]
        # Either a unit sums the inputs that are left, twice as large, or it is left out or twice as large itself.
        assert len(set(units.tolist())) == (1 if first else 2)
        assert set(units.tolist()) <= ({float(2 * k) for k in range(1, 64)} if first else {0.0, 128.0})


def test_initial_values_of_a_dense_head():
    head = DenseHead(
        (4,),
        3,
        kernel_init=jax.nn.initializers.constant(2.0),
        bias_init=jax.nn.initializers.constant(3.0),
        output_init=jax.nn.initializers.constant(4.0),
    )
    params = head.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)), train=False)["params"]
    values = {(layer, leaf): set(np.ravel(params[layer][leaf]).tolist()) for layer in params for leaf in params[layer]}
    assert values == {
        **{("dense1", "kernel"): {2.0}, ("dense1", "bias"): {3.0}},
        **{("output", "kernel"): {4.0}, ("output", "bias"): {0.0}},
    }


@pytest.mark.parametrize("space", [(5,), (4, 3), (2, 3, 2)])
def test_conv_head_is_a_matrix_at_every_position_rectified_then_averaged(space):
    x = jax.random.normal(jax.random.key(0), (2, *space, 5))
    logits, variables = ConvHead(7).init_with_output(jax.random.key(1), x, train=False)
    kernel = np.asarray(variables["params"]["output"]["kernel"], np.float64).reshape(5, 7)  # [1, ..., C, K] -> [C, K]
    pixels = np.asarray(x, np.float64).reshape(2, -1, 5)  # [B, *space, C] -> [B, space, C]
    np.testing.assert_allclose(logits, np.maximum(pixels @ kernel, 0).mean(axis=1), atol=1e-5)


HEADS = [PooledHead(3, dropout_rate=0.5), DenseHead((32,), 3, dropout_rate=0.5), ConvHead(3, dropout_rate=0.5)]


@pytest.mark.parametrize("head", HEADS, ids=["pooled", "dense", "conv"])
def test_dropout_is_on_in_training_only(head):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    variables = head.init(jax.random.key(1), x, train=False)

    def run(seed):
        return np.asarray(head.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}))

    still = np.asarray(head.apply(variables, x, train=False))
    assert np.abs(run(0) - run(1)).max() > 1e-3
    np.testing.assert_array_equal(run(0), run(0))
    if isinstance(head, PooledHead):
        # Linear behind its dropout, so the mean over masks is the output without one.
        draws = np.stack([run(seed) for seed in range(100)])
        assert (np.abs(draws.mean(axis=0) - still) < 5 * draws.std(axis=0) / np.sqrt(100)).all()


def test_wrong_channels_and_ranks():
    model = Classifier(backbone=Pixels(), head=DenseHead((), 3), in_channels=3)
    init = functools.partial(model.init, train=False)
    with pytest.raises(UserError) as caught:
        jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))
    assert str(caught.value) == ("images have 1 channels, but the model was built for 3; set model.in_channels=1")
    with pytest.raises(UserError, match=r"images have the shape \(8, 3\)"):
        jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((8, 3), jnp.float32))


def test_train_has_no_default():
    model = Classifier(backbone=Pixels(), head=DenseHead((), 3), in_channels=3)
    with pytest.raises(TypeError, match="train"):
        model.init(jax.random.key(0), jnp.ones((1, 2, 2, 3)))


def test_unknown_final_pool():
    with pytest.raises(UserError, match="unknown final_pool 'max'"):
        DenseHead((), 3, final_pool="max").init(jax.random.key(0), jnp.ones((1, 2, 2, 3)), train=False)
