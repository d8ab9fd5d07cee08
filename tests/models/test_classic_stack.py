"""The textbook network: worked examples, and every choice trains."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.models.classic_stack import NORM_POSITIONS, POOLS, classic_stack
from cnn_jax.nn.activation import ACTIVATIONS
from cnn_jax.nn.heads import FINAL_POOLS
from cnn_jax.nn.norm import NORMS
from cnn_jax.nn.window import PADDINGS


def normal(shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


NARROW = {"num_classes": 3, "in_channels": 2, "channels": (4, 4), "dense": (6,), "padding": "same"}


def feature_shapes(model, image):
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    return {name: leaf.shape[1:] for name, leaf in maps.items()}, variables["params"]


def test_worked_example_of_shapes():
    # numbers.md: 32×32×3 → conv 16 → pool → 16×16×16 → conv 32 → pool → 8×8×32 → flatten 2,048 → dense 128 → classes
    model = classic_stack(num_classes=10, channels=(16, 32), padding="same", dense=(128,))
    maps, params = feature_shapes(model, (32, 32, 3))
    assert maps == {"stage1": (16, 16, 16), "stage2": (8, 8, 32)}
    assert params["head"]["dense1"]["kernel"].shape == (2048, 128)
    assert params["head"]["output"]["kernel"].shape == (128, 10)


STRIDES = [
    ({}, (2, 4)),  # the stage's pools
    ({"stride": 2}, (4, 16)),
    ({"pool": "none", "stride": 2}, (2, 4)),
    ({"pool": "average", "pool_size": 3}, (3, 9)),
    ({"stride": (1, 3)}, (2, 12)),
    ({"stride": 2, "convolutions": (2, 3)}, (4, 16)),  # only the first of a stage has the stride
]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("arguments", "strides"), STRIDES)
def test_documented_strides_at_every_rank(arguments, strides, rank):
    maps, _ = feature_shapes(classic_stack(**NARROW, **arguments), (144,) * rank + (2,))
    expected = {f"stage{i}": (144 // stride,) * rank + (4,) for i, stride in enumerate(strides, start=1)}
    assert maps == expected


def check_trains(random_variables, **arguments):
    model = classic_stack(**{**NARROW, **arguments})
    x = normal((6, 12, 12, 2))
    variables = random_variables(model, x)
    labels = np.arange(6) % 3

    @jax.jit
    def run(params):
        def loss(params):
            logits, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            # [B, K] -> [B]
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
            return -picked.mean(), logits

        return jax.grad(loss, has_aux=True)(params)

    gradients, logits = run(variables["params"])
    assert logits.shape == (6, 3)
    assert np.isfinite(logits).all()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        # Well above what rounding leaves of a gradient that cancels.
        assert np.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)


ONE_AT_A_TIME = [
    *({"activation": kind} for kind in ACTIVATIONS),
    {"activation": "leaky_relu", "negative_slope": 0.2},
    *({"norm": norm, "norm_position": position} for norm in NORMS for position in NORM_POSITIONS),
    *({"pool": pool, "final_pool": final} for pool in (*POOLS, "none") for final in FINAL_POOLS),
    *({"padding": padding} for padding in PADDINGS if padding != "same"),
    {"kernel_size": (5, 2), "stride": 2, "pool": "none"},
    {"convolutions": (1, 2)},
    {"separable": True},
    {"separable": True, "convolutions": 2, "norm": "batch", "norm_position": "after"},
    {"init_scale": 0.5},
    {"dense": ()},
]


@pytest.mark.parametrize("arguments", ONE_AT_A_TIME, ids=lambda arguments: "-".join(map(str, arguments.values())))
def test_every_choice_gives_every_parameter_a_gradient(arguments, random_variables):
    check_trains(random_variables, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "norm"), [*itertools.product(ACTIVATIONS, NORMS)])
def test_activations_with_norms_and_the_other_choices_in_turn(activation, norm, random_variables):
    turn = list(ACTIVATIONS).index(activation) + list(NORMS).index(norm)
    # A linear unit before BatchNorm has a bias that it cancels, whichever side the norm is said to stand on; only the
    # zeros around an image keep the bias of the stage before from being cancelled too.
    linear = activation == "identity"
    position = "before" if linear else list(NORM_POSITIONS)[turn % 2]
    check_trains(
        random_variables,
        activation=activation,
        norm=norm,
        norm_position=position,
        pool=(*POOLS, "none")[turn % 3],
        padding="same" if linear else PADDINGS[turn % 4],
        final_pool=FINAL_POOLS[turn // 2 % 2],
    )


@pytest.mark.slow
def test_every_combination_builds():
    choices = itertools.product(ACTIVATIONS, NORMS, NORM_POSITIONS, (*POOLS, "none"), PADDINGS, FINAL_POOLS)
    # Every 29th of the 1920, a step with which every pair of choices occurs.
    for activation, norm, position, pool, padding, final_pool in itertools.islice(choices, 0, None, 29):
        model = classic_stack(
            **{**NARROW, "padding": padding},
            activation=activation,
            norm=norm,
            norm_position=position,
            pool=pool,
            final_pool=final_pool,
        )
        x = jax.ShapeDtypeStruct((1, 12, 12, 2), jnp.float32)
        logits, _ = jax.eval_shape(functools.partial(model.init_with_output, train=False), jax.random.key(0), x)
        assert logits.shape == (1, 3)


def test_norm_position_changes_the_function(random_variables):
    x = normal((2, 12, 12, 2))
    maps = {}
    for position in NORM_POSITIONS:
        model = classic_stack(**{**NARROW, "channels": (4,)}, norm="layer", norm_position=position, pool="none")
        variables = random_variables(model, x)
        maps[position] = model.apply(variables, x, train=False, method="features")["stage1"]
    assert float(maps["before"].min()) == 0.0
    assert float(maps["after"].min()) < 0.0


def test_the_bias_that_batch_norm_would_cancel_is_left_out():
    for norm, position, has_bias in [("batch", "before", False), ("batch", "after", True), ("layer", "before", True)]:
        _, params = feature_shapes(classic_stack(**NARROW, norm=norm, norm_position=position), (12, 12, 2))
        assert ("bias" in params["backbone"]["stage1"]["conv"]) == has_bias


def test_too_small_image_names_the_layer():
    with pytest.raises(ImageTooSmallError, match="layer 'backbone/stage2/conv' gets an image of 1×1 pixels"):
        feature_shapes(classic_stack(num_classes=10), (4, 4, 3))
    with pytest.raises(ImageTooSmallError, match="layer 'backbone/pool2' gets an image of 1×1 pixels"):
        feature_shapes(classic_stack(num_classes=10, padding="same"), (3, 3, 3))


def test_convolutions_in_a_row():
    # (9 * 2 + 1) * 4, then (9 * 4 + 1) * 4 three times: two in the first stage, two in the second
    _, params = feature_shapes(classic_stack(**NARROW, convolutions=2), (12, 12, 2))
    backbone = params["backbone"]
    assert set(backbone["stage1"]) == {"conv1", "conv2"}
    assert sum(leaf.size for leaf in jax.tree.leaves(backbone)) == 19 * 4 + 3 * 37 * 4


def test_separable_convolutions_keep_the_first_one_whole():
    model = classic_stack(**{**NARROW, "channels": (4, 6)}, separable=True)
    _, params = feature_shapes(model, (12, 12, 2))
    assert params["backbone"]["stage1"]["conv"]["kernel"].shape == (3, 3, 2, 4)
    assert params["backbone"]["stage2"]["depthwise"]["conv"]["kernel"].shape == (3, 3, 1, 4)
    assert params["backbone"]["stage2"]["pointwise"]["conv"]["kernel"].shape == (1, 1, 4, 6)


def test_a_separable_convolution_is_a_product_of_kernels(random_variables):
    # Without an activation in between, a filter D and a mixing P are the one kernel K[i, j, c, f] = D[i, j, c] P[c, f].
    options = {**NARROW, "pool": "none", "activation": "identity"}
    x = normal((2, 9, 8, 2))
    model = classic_stack(**options, separable=True)
    variables = random_variables(model, x)
    stage = variables["params"]["backbone"]["stage2"]
    depthwise, pointwise = stage["depthwise"]["conv"], stage["pointwise"]["conv"]
    whole = {
        "kernel": jnp.einsum("ijc,cf->ijcf", depthwise["kernel"][:, :, 0], pointwise["kernel"][0, 0]),
        "bias": depthwise["bias"] @ pointwise["kernel"][0, 0] + pointwise["bias"],
    }
    backbone = {**variables["params"]["backbone"], "stage2": {"conv": whole}}
    full = {"params": {**variables["params"], "backbone": backbone}}
    expected = classic_stack(**options).apply(full, x, train=False)
    np.testing.assert_allclose(model.apply(variables, x, train=False), expected, rtol=1e-4, atol=1e-5)


def test_spatial_dropout_takes_whole_maps():
    options = {**NARROW, "channels": (64,), "pool": "none", "dense": (), "final_pool": "average"}
    model = classic_stack(**options, spatial_dropout_rate=0.25)
    x = normal((8, 6, 6, 2))
    variables = model.init(jax.random.key(0), x, train=False)

    def around_the_dropout(train):
        kept = []

        def note(function, arguments, keywords, context):
            output = function(*arguments, **keywords)
            if context.module.name == "dropout1":
                kept.append((np.asarray(arguments[0]), np.asarray(output)))
            return output

        with nn.intercept_methods(note):
            model.apply(variables, x, train=train, rngs={"dropout": jax.random.key(1)})
        return kept[0]

    before, after = around_the_dropout(train=False)
    np.testing.assert_array_equal(before, after)
    before, after = around_the_dropout(train=True)
    alive = before.max(axis=(1, 2)) > 0
    zero = (after == 0).all(axis=(1, 2))
    # A map is dropped whole, or kept whole and divided by the share of those that are kept.
    np.testing.assert_allclose(after, np.where(zero[:, None, None], 0, before / 0.75), rtol=1e-5)
    assert 0.15 < zero[alive].mean() < 0.35  # 512 maps


def test_init_scale_multiplies_all_kernels():
    x = normal((1, 12, 12, 2))
    plain, scaled = (
        classic_stack(**NARROW, init_scale=scale).init(jax.random.key(0), x, train=False)["params"]
        for scale in (1.0, 3.0)
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(plain):
        own = functools.reduce(lambda tree, key: tree[key.key], path, scaled)
        np.testing.assert_allclose(own, leaf * (3 if path[-1].key == "kernel" else 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": (1, 2, 1)}, r"stride \(1, 2, 1\) has 3 entries, but channels \(4, 4\) has 2 stages"),
        ({"convolutions": 0}, "convolutions is 0; it must be 1 or more"),
        ({"init_scale": 0.0}, "init_scale is 0.0; it must be above 0"),
        ({"spatial_dropout_rate": 1.0}, "spatial_dropout_rate is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_wrong_choices(arguments, message):
    with pytest.raises(UserError, match=message):
        classic_stack(**NARROW, **arguments)
