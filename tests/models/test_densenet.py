"""Densely connected networks: documented strides, what a layer appends, where dropout lies."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.models.densenet import DenseLayer
from cnn_jax.nn.conv import he_fan_in

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

SMALL = {"depth": 10, "growth_rate": 3, "bottleneck": True, "compression": 0.5}


def maps_of(model, space):
    x = jax.ShapeDtypeStruct((1, *space, model.in_channels), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    return jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)


def shallow_imagenet(**arguments):
    """An ImageNet network with one layer in each of its dense blocks: everything that has a stride."""
    model = models.create("densenet121", num_classes=5, **arguments)
    return model.clone(backbone=model.backbone.clone(stage_sizes=(1, 1, 1, 1)))


@pytest.mark.parametrize("size", [64, 49])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_strides_of_the_small_image_networks_at_every_rank(rank, size):
    model = models.create("densenet_cifar", num_classes=5, in_channels=2, **SMALL)
    maps = {name: leaf.shape for name, leaf in maps_of(model, (size,) * rank).items()}
    # 2k, then k more; half of them, then k more; 6 of them from 7, then k more.
    expected = {"stem": (1, 6), "stage1": (1, 9), "stage2": (2, 7), "stage3": (4, 6), "final": (4, 6)}
    assert maps == {name: (1, *(size // stride,) * rank, c) for name, (stride, c) in expected.items()}


@pytest.mark.parametrize(("stem", "strides"), [("imagenet", (2, 4, 8, 16, 32, 32)), ("cifar", (1, 1, 2, 4, 8, 8))])
@pytest.mark.parametrize("size", [128, 99])
def test_strides_of_the_imagenet_networks(stem, strides, size):
    model = shallow_imagenet(growth_rate=2, stem=stem)
    maps = {name: leaf.shape for name, leaf in maps_of(model, (size, size)).items()}
    sizes = [math.ceil(size / stride) for stride in strides[:2]]
    for stride, before in zip(strides[2:], strides[1:-1], strict=True):
        sizes.append(sizes[-1] // (stride // before))
    names = ("stem", "stage1", "stage2", "stage3", "stage4", "final")
    # 2k, then k more; half of them, rounded down, and k more; ...
    channels = (4, 6, 5, 4, 4, 4)
    assert maps == {name: (1, n, n, c) for name, n, c in zip(names, sizes, channels, strict=True)}


@pytest.mark.parametrize(
    ("model", "smallest"),
    [(models.create("densenet_cifar", num_classes=5, **SMALL), 4), (shallow_imagenet(), 29)],
    ids=["cifar", "imagenet"],
)
def test_the_smallest_image(model, smallest):
    assert maps_of(model, (smallest, smallest))["final"].shape[1:-1] == (1, 1)
    with pytest.raises(ImageTooSmallError, match=r"layer 'backbone/stage\d/transition/pool' gets an image of 1×"):
        maps_of(model, (smallest - 1, smallest))


@pytest.mark.parametrize("bottleneck", [True, False])
def test_a_layer_appends_to_its_input(bottleneck):
    layer = DenseLayer(
        3,
        bottleneck=bottleneck,
        activation="relu",
        norm="none",
        dropout_rate=0.0,
        kernel_init=he_fan_in,
        dtype="float32",
    )
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6))
    variables = layer.init(jax.random.key(1), x, train=False)
    y = layer.apply(variables, x, train=False)
    assert y.shape == (2, 5, 4, 9)
    np.testing.assert_array_equal(y[..., :6], x)
    shapes = {name: leaf["kernel"].shape for name, leaf in variables["params"].items()}
    assert shapes == ({"conv1": (1, 1, 6, 12), "conv2": (3, 3, 12, 3)} if bottleneck else {"conv1": (3, 3, 6, 3)})


def test_dropout_follows_every_convolution_but_the_first_and_only_in_training():
    model = models.create("densenet_cifar", num_classes=5, dropout_rate=0.25, **SMALL)
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    for train in (True, False):
        calls = []

        def record(function, arguments, keywords, context, calls=calls):
            output = function(*arguments, **keywords)
            if type(context.module).__name__ in ("Conv", "Dropout"):
                calls.append((context.module.name, arguments[0], output))
            return output

        def run(variables, x, train=train, record=record):
            with nn.intercept_methods(record):
                return model.apply(
                    variables, x, train=train, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"]
                )[0]

        jax.eval_shape(run, variables, x)
        # Three stages of one layer of two convolutions, two transitions; the head's own dropout is the last.
        names = ["stem", *["conv1", "dropout1", "conv2", "dropout2"]]
        names += ["conv", "dropout", *["conv1", "dropout1", "conv2", "dropout2"]] * 2
        assert [name for name, *_ in calls] == [*names, "dropout"]
        for (_, _, made), (name, taken, left) in itertools.pairwise(calls[:-1]):
            if name.startswith("dropout"):
                assert made is taken
                assert (left is not taken) == train
        assert calls[-1][1] is calls[-1][2]
