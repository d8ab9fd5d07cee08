"""`model.dtype = "bfloat16"`: products in bfloat16; parameters, gradients, statistics, sums and loss in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_builds import slow_but

from cnn_jax import models
from cnn_jax.losses import softmax_cross_entropy
from cnn_jax.nn.conv import Conv
from cnn_jax.nn.dense import Dense
from cnn_jax.tasks import Classification
from cnn_jax.train.run import build
from cnn_jax.train.state import create_state
from cnn_jax.train.step import train_step

CONVOLUTIONS = (
    "channels_last_convolution",
    "channels_last_input_gradient",
    "channels_last_kernel_gradient",
    "conv_general_dilated",
)
# What adds up many terms, and what statistics and loss are made of: in float32 everywhere.
FLOAT32 = ("reduce_sum", "reduce_window_sum", "cumsum", "rsqrt", "log")
FAST = ("airbench94", "classic_stack", "lenet5", "lenet5_1998", "mlp", "resnet_cifar", "resnet18")
WITH_MORE = {"classic_stack": {"norm": "batch", "norm_position": "after", "activation": "prelu", "dense": (8,)}}
"""Other arguments than those of the small build."""
CONVOLUTION_HEADS = ("all_cnn_c", "nin", "squeezenet1_1")
"""Their last layer, in float32, is a convolution, whose gradients have no name by which to tell them."""
LEFT_OUT = ("fcn_resnet", "deeplabv3_resnet", "capsule_network")
"""Not for this task, and one that routes in float32, whole."""


def equations(jaxpr):
    """Every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from equations(getattr(inner, "jaxpr", inner))


def traced_step(name, arguments, image):
    """(jaxpr, shapes of (state, metrics)) of a training step in bfloat16, and the types that the optimizer got."""
    model = models.create(name, num_classes=5, in_channels=image[-1], dtype="bfloat16", **arguments)
    task = Classification(model=model, loss_function=softmax_cross_entropy, num_classes=5, divide_by_weights=False)
    given = []

    def record(updates, params):
        given.extend(leaf.dtype for leaf in jax.tree.leaves((updates, params)))
        return updates

    optimizer = optax.chain(optax.stateless(record), optax.sgd(0.1, momentum=0.9))
    create = functools.partial(create_state, task=task, optimizer=optimizer, ema=True)
    state = jax.eval_shape(create, jax.random.key(0), {"image": jnp.zeros((1, *image))})
    batch = {
        "image": jax.ShapeDtypeStruct((4, *image), jnp.float32),
        "label": jax.ShapeDtypeStruct((4,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((4,), jnp.float32),
    }
    step = functools.partial(
        train_step,
        key=jax.random.key(1),
        task=task,
        optimizer=optimizer,
        learning_rate=optax.constant_schedule(0.1),
        batch_transform=lambda _, batch: batch,
        ema_decay=0.9,
    )
    jaxpr, result = jax.make_jaxpr(step, return_shape=True)(state, batch)
    return jaxpr.jaxpr, result, given


def floats(shapes):
    return {leaf.dtype for leaf in jax.tree.leaves(shapes) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.parametrize(
    ("name", "arguments", "image"), [row for row in slow_but(FAST) if row.values[0] not in LEFT_OUT]
)
def test_every_product_is_in_bfloat16_and_every_sum_in_float32(name, arguments, image):
    jaxpr, (state, metrics), given = traced_step(name, WITH_MORE.get(name, arguments), image)
    assert set(given) == {jnp.dtype("float32")}, "gradients and parameters that the optimizer sees"
    assert floats((state, metrics)) == {jnp.dtype("float32")}, "parameters, statistics, averages, momentum, loss"
    products = 0
    for equation in equations(jaxpr):
        kind, where = equation.primitive.name, str(equation.source_info.name_stack)
        types = {v.aval.dtype for v in equation.invars if hasattr(v.aval, "dtype")}
        if kind in (*CONVOLUTIONS, "dot_general"):
            products += 1
            expected = {jnp.dtype("float32" if "head/output" in where else "bfloat16")}
            if name in CONVOLUTION_HEADS and where in ("", "transpose()"):
                expected = types & {jnp.dtype("float32"), jnp.dtype("bfloat16")}
            assert types == expected, f"{kind} of {types} in {where}"
        if kind in FLOAT32:
            assert jnp.dtype("bfloat16") not in types, f"{kind} of bfloat16 in {where}"
    assert products > 2


@pytest.mark.parametrize("layer", [Conv(2, 1, dtype="bfloat16"), Dense(2, dtype="bfloat16")])
def test_the_gradient_of_a_bias_is_the_whole_sum(layer):
    # In bfloat16, 256 + 1 is 256: a sum of ones would stop there.
    count = 3000
    x = jnp.ones((1, count, 1)) if isinstance(layer, Conv) else jnp.ones((count, 1))
    params = layer.init(jax.random.key(0), x)["params"]
    gradients = jax.grad(lambda params: layer.apply({"params": params}, x).astype(jnp.float32).sum())(params)
    np.testing.assert_array_equal(gradients["bias"], [count, count])


def losses(config, dtype, steps):
    config["model"]["dtype"] = dtype
    experiment = build(config)
    step, state = experiment.compiled_step(), experiment.initial_state()
    found = []
    for index in range(steps):
        state, metrics = step(state, experiment.empty_metrics(), experiment.batch(index))
        found.append(float(metrics.bad_loss))
    return np.array(found)


@pytest.mark.slow
def test_training_in_bfloat16_follows_the_curve_of_float32(tiny_config):
    # The same start, examples and dropout masks: what differs is rounding, of relative size 2⁻⁸.
    tiny_config["model"] = {
        **{"name": "classic_stack", "in_channels": 1, "channels": (8,), "norm": "batch", "padding": "same"},
        **{"dense": (16,), "dropout_rate": 0.1},
    }
    tiny_config["data"] |= {"splits": {"train": "train[:512]"}, "batch_size": 64, "augment": ()}
    tiny_config["optimizer"] = {"name": "adam", "learning_rate": 2e-2}
    tiny_config["schedule"] = {"name": "constant"}
    full, low = (losses(tiny_config, dtype, 30) for dtype in ("float32", "bfloat16"))
    assert full[-5:].mean() < 0.75 * full[:5].mean()
    assert 0 < np.abs(full - low).max() < 0.05  # of losses about 2
