"""The textbook network: worked examples, and every choice trains."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import ImageTooSmallError
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
