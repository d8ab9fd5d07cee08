"""VGG, AlexNet, NIN and All-CNN: documented sizes at every rank, and where norms, dropout and initial values stand."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.nn.local_response_norm import LocalResponseNorm
from cnn_jax.nn.pool import MaxPool

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

NARROW = {"width_multiplier": 0.1}
DENSE = {**NARROW, "dense": (12, 10)}


def chain(*steps):
    """Sizes behind every step, from the image's size."""

    def sizes(n):
        found = []
        for step in steps:
            n = step(n)
            found.append(n)
        return found

    return sizes


def same(n):
    return n


def pool(n):
    return math.floor((n - 3) / 2) + 1


def pool_up(n):
    return math.ceil((n - 3) / 2) + 1


def half(n):
    return n // 2


def half_up(n):
    return math.ceil(n / 2)


def less_two(n):
    return n - 2


ALEXNET = (pool, same, pool, same, same, same, pool)
ALEXNET_MAPS = (
    *("stage1_conv1", "stage1", "stage2_conv1", "stage2"),
    *("stage3_conv1", "stage3_conv2", "stage3_conv3", "stage3"),
)
TWO, THREE = ("stage{}_conv1", "stage{}_conv2"), ("stage{}_conv1", "stage{}_conv2", "stage{}_conv3")


def maps(*stages):
    """Names of maps: the layers of each stage and its end."""
    return tuple(name.format(i) for i, layers in enumerate(stages, start=1) for name in (*layers, "stage{}"))


# name, arguments, feature maps, their sizes, the smallest image
FAMILIES = [
    ("alexnet", DENSE, ALEXNET_MAPS, chain(lambda n: (n - 7) // 4 + 1, *ALEXNET), 63),
    ("alexnet_2012", DENSE, ALEXNET_MAPS, chain(lambda n: (n - 11) // 4 + 1, *ALEXNET), 67),
    ("vgg11", DENSE, maps(*[TWO[:1]] * 2, *[TWO] * 3), chain(*[same, half] * 2, *[same, same, half] * 3), 32),
    ("vgg19_bn", DENSE, None, None, 32),
    ("nin", NARROW, maps(THREE, THREE, TWO[:1]), chain(*[same, same, same, pool_up] * 2, same, same), 4),
    ("all_cnn_c", NARROW, maps(TWO, TWO, TWO[:1]), chain(*[same, same, half_up] * 2, less_two, same), 9),
    ("strided_cnn_c", NARROW, maps(*[TWO[:1]] * 3), chain(*[same, half_up] * 2, less_two, same), 9),
    ("model_c", NARROW, maps(TWO, TWO, TWO[:1]), chain(*[same, same, pool_up] * 2, less_two, same), 12),
    (
        "conv_pool_cnn_c",
        NARROW,
        maps(THREE, THREE, TWO[:1]),
        chain(*[same] * 3, pool_up, *[same] * 3, pool_up, less_two, same),
        12,
    ),
]
IDS = [row[0] for row in FAMILIES]


def shapes(model, space):
    x = jax.ShapeDtypeStruct((1, *space, model.in_channels), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    return jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)


@pytest.mark.parametrize("size", [71, 96])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("name", "arguments", "names", "sizes", "smallest"), FAMILIES, ids=IDS)
def test_documented_sizes_at_every_rank(name, arguments, names, sizes, smallest, rank, size):
    found = shapes(models.create(name, num_classes=5, in_channels=2, **arguments), (size,) * rank)
    if names is not None:
        assert {key: leaf.shape[1:-1] for key, leaf in found.items()} == {
            key: (n,) * rank for key, n in zip(names, sizes(size), strict=True)
        }


@pytest.mark.parametrize(("name", "arguments", "names", "sizes", "smallest"), FAMILIES, ids=IDS)
def test_smallest_images(name, arguments, names, sizes, smallest):
    model = models.create(name, num_classes=5, **arguments)
    found = shapes(model, (smallest, smallest))
    last = max(key for key in found if "_" not in key)
    assert found[last].shape[1:-1] == (1, 1)
    with pytest.raises(ImageTooSmallError):
        shapes(model, (smallest - 1, smallest))


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_has_the_layers_of_its_name(depth):
    model = models.create(f"vgg{depth}_bn", num_classes=5, **DENSE)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)["params"]
    assert len(params["backbone"]) + len(params["head"]) == depth
    # torchvision's convolutions have biases in front of a batch norm too.
    assert all(set(layer["conv"]) == {"kernel", "bias"} for layer in params["backbone"].values())


def test_batch_norm_takes_the_place_of_biases_elsewhere():
    for name, arguments in (("alexnet", DENSE), ("alexnet_2012", DENSE), ("nin", NARROW), ("all_cnn_c", NARROW)):
        model = models.create(name, num_classes=5, norm="batch", **arguments)
        x = jax.ShapeDtypeStruct((1, 67, 67, 3), jnp.float32)
        params = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)["params"]
        assert all(set(layer["conv"]) == {"kernel"} for layer in params["backbone"].values()), name


@pytest.fixture(scope="module")
def alexnet_2012(random_variables):
    model = models.create("alexnet_2012", num_classes=5, **DENSE)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 67, 67, 3), dtype=np.float32))
    return model, random_variables(model, x), x


def test_response_norm_stands_between_activation_and_pool(alexnet_2012):
    model, variables, x = alexnet_2012
    without = models.create("alexnet_2012", num_classes=5, response_norm=False, **DENSE)
    for network, norm in ((model, LocalResponseNorm(5, 1e-4, 0.75, 2.0)), (without, None)):
        found = network.apply(variables, x, train=False, method="features")
        for stage in ("stage1", "stage2"):
            y = found[f"{stage}_conv1"]
            assert float(y.min()) == 0.0  # The activation is first.
            y = y if norm is None else norm.apply({}, y)
            np.testing.assert_allclose(found[stage], MaxPool(3, 2).apply({}, y), rtol=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [("stage1", "stage2_conv1", 2), ("stage2", "stage3_conv1", 1), ("stage3_conv1", "stage3_conv2", 2)],
)
def test_the_halves_of_2012_meet_in_the_third_convolution_only(alexnet_2012, before, after, groups):
    model, variables, x = alexnet_2012
    found = model.apply(variables, x, train=False, method="features")
    kernel = variables["params"]["backbone"][after if "_" in after else f"{after}_conv1"]["conv"]["kernel"]
    assert found[before].shape[-1] == groups * kernel.shape[-2]


def test_initial_values_of_2012():
    # Section 5: deviation 0.01; biases 1 in the second, fourth and fifth convolution and the hidden dense layers.
    model = models.create("alexnet_2012", num_classes=5, width_multiplier=0.2, dense=(32, 24))
    x = jnp.zeros((1, 67, 67, 3))
    params = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x)["params"]
    layers = {**{name: layer["conv"] for name, layer in params["backbone"].items()}, **params["head"]}
    ones = {name for name, layer in layers.items() if np.all(layer["bias"] == 1)}
    assert ones == {"stage2_conv1", "stage3_conv2", "stage3_conv3", "dense1", "dense2"}
    assert all(np.all(layer["bias"] == 0) for name, layer in layers.items() if name not in ones)
    for name, layer in layers.items():
        np.testing.assert_allclose(np.std(layer["kernel"]), 0.01, rtol=0.25, err_msg=name)


@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_initial_values_are_torchvisions(name):
    model = models.create(name, num_classes=16, width_multiplier=0.25, dense=(64, 64))
    x = jnp.zeros((1, 64, 64, 3))
    params = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x)["params"]
    for part, layers in params.items():
        for path, layer in layers.items():
            kernel = np.asarray(layer.get("conv", layer)["kernel"])
            fan_in, fan_out = kernel[..., 0].size, kernel[..., 0, :].size
            if name == "alexnet":
                # torch's default: uniform in ±1 / sqrt(fan-in)
                deviation = 1 / math.sqrt(3 * fan_in)
                assert np.abs(kernel).max() <= 1 / math.sqrt(fan_in)
            else:
                deviation = math.sqrt(2 / fan_out) if part == "backbone" else 0.01
            np.testing.assert_allclose(kernel.std(), deviation, rtol=0.15, err_msg=path)


def zero_shares(model, variables, x):
    """What share of its output every dropout of a training step has set to 0."""
    _, state = model.apply(
        variables,
        x,
        train=True,
        rngs={"dropout": jax.random.key(0)},
        mutable=["intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
    )
    shares = {}
    for part in state["intermediates"].values():
        for name, calls in part.items():
            shares[name] = float(np.mean(np.asarray(calls["__call__"][0]) == 0))
    return shares


# Nothing but dropout makes zeros here; a share is that of thousands of values.
@pytest.mark.parametrize(
    ("name", "arguments", "size", "expected"),
    [
        ("alexnet", {"dense": (2000, 1000)}, 63, {"dropout1": 0.5, "dropout2": 0.5}),
        ("vgg11", {"dense": (2000, 1000), "dropout_rate": 0.3}, 32, {"dropout1": 0.3, "dropout2": 0.3}),
        ("nin", {}, 32, {"stage1_dropout": 0.5, "stage2_dropout": 0.5}),
        ("all_cnn_c", {}, 32, {"input_dropout": 0.2, "stage1_dropout": 0.5, "stage2_dropout": 0.5}),
        ("model_c", {"dropout_rate": 0.4}, 32, {"input_dropout": 0.2, "stage1_dropout": 0.4, "stage2_dropout": 0.4}),
    ],
)
def test_dropout_stands_where_the_paper_has_it(name, arguments, size, expected, random_variables):
    model = models.create(name, num_classes=5, width_multiplier=0.1, activation="identity", **arguments)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, size, size, 3), dtype=np.float32))
    variables = random_variables(model, x)
    shares = zero_shares(model, variables, x)
    assert {key: share for key, share in shares.items() if share > 0.01} == pytest.approx(expected, abs=0.05)
    np.testing.assert_array_equal(
        model.apply(variables, x, train=False),
        model.apply(variables, x, train=False, rngs={"dropout": jax.random.key(1)}),
    )


@pytest.mark.parametrize("name", ["nin", "all_cnn_c"])
def test_logits_are_means_of_rectified_maps(name, random_variables):
    model = models.create(name, num_classes=5, **NARROW)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16, 16, 3), dtype=np.float32))
    variables = random_variables(model, x)
    last = np.asarray(model.apply(variables, x, train=False, method="features")["stage3"], np.float64)
    output = variables["params"]["head"]["output"]
    expected = np.maximum(last @ np.asarray(output["kernel"])[0, 0] + np.asarray(output["bias"]), 0).mean(axis=(1, 2))
    np.testing.assert_allclose(model.apply(variables, x, train=False), expected, rtol=1e-4, atol=1e-5)
