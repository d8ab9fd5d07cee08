"""ConvNeXt: documented strides, the response normalisation's formula, stochastic depth, where the head's norm lies."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.methods.summarize import summarize
from cnn_jax.models.convnext import ConvNeXtBlock, ConvNeXtHead, GlobalResponseNorm

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

STRIDES = {"stem": 4, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
SHALLOW = {"blocks": (1, 1, 2, 1), "width": 4}


def maps_of(model, space):
    x = jax.ShapeDtypeStruct((1, *space, model.in_channels), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    return jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)


@pytest.mark.parametrize("size", [64, 49])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["convnext", "convnextv2"])
def test_documented_strides_at_every_rank(name, rank, size):
    model = models.create(name, num_classes=5, in_channels=2, **SHALLOW)
    maps = {name: leaf.shape for name, leaf in maps_of(model, (size,) * rank).items()}
    widths = dict(zip(STRIDES, (4, 4, 8, 16, 32), strict=True))
    assert maps == {name: (1, *(size // stride,) * rank, widths[name]) for name, stride in STRIDES.items()}


def test_the_smallest_image():
    model = models.create("convnext_tiny", num_classes=5)
    assert maps_of(model, (32, 32))["stage4"].shape == (1, 1, 1, 768)
    with pytest.raises(ImageTooSmallError, match="layer 'backbone/stage4/downsample' gets an image of 1×2 pixels"):
        maps_of(model, (31, 32))
    with pytest.raises(ImageTooSmallError, match="layer 'backbone/stem/conv' gets an image of 3×32 pixels"):
        maps_of(model, (3, 32))


def test_the_summary_follows_the_image_through_dense_layers():
    rows = {row.path: row for row in summarize(models.create("convnext", num_classes=5, **SHALLOW), (64, 64, 3)).rows}
    project = rows["backbone/stage4/block1/project"]
    # 4 + (7-1)·4 + (2-1)·4 + (7-1)·8 + 8 + 2·(7-1)·16 + 16 + (7-1)·32 pixels
    assert (project.receptive_field, project.stride) == ((488, 488), (32, 32))


def test_response_normalisation_is_the_papers_formula():
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 6))
    scale, bias = np.linspace(-1, 1, 6), np.linspace(0, 2, 6)
    # Woo et al. 2023, Algorithm 1, and the residual of Section 3.
    gx = np.sqrt((x**2).sum((1, 2), keepdims=True))
    expected = scale * (x * gx / (gx.mean(-1, keepdims=True) + 1e-6)) + bias + x
    layer, variables = GlobalResponseNorm(), {"params": {"scale": jnp.float32(scale), "bias": jnp.float32(bias)}}
    np.testing.assert_allclose(layer.apply(variables, jnp.float32(x)), expected, rtol=1e-5, atol=1e-5)
    fresh = layer.init(jax.random.key(0), jnp.float32(x))
    np.testing.assert_array_equal(layer.apply(fresh, jnp.float32(x)), np.float32(x))


def test_a_channel_without_a_response_has_a_finite_gradient():
    layer, x = GlobalResponseNorm(), jnp.ones((1, 3, 2)).at[..., 0].set(0.0)
    variables = {"params": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
    gradients = jax.grad(lambda variables, x: jnp.sum(layer.apply(variables, x) ** 2), argnums=(0, 1))(variables, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    black = jax.grad(lambda x: jnp.sum(layer.apply(variables, x)))(jnp.zeros_like(x))
    np.testing.assert_array_equal(black, np.ones_like(x))


@pytest.mark.parametrize(("layer_scale", "response_norm"), [(1e-6, False), (None, True)])
def test_parameters_of_a_block_and_what_they_start_as(layer_scale, response_norm):
    block = ConvNeXtBlock(
        activation="gelu",
        norm="layer",
        layer_scale=layer_scale,
        response_norm=response_norm,
        stochastic_depth_rate=0.0,
        dtype="float32",
    )
    params = block.init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)), train=False)["params"]
    version = {"response_norm"} if response_norm else {"layer_scale"}
    assert set(params) == {"depthwise", "norm", "expand", "project"} | version
    for layer in ("depthwise", "expand", "project"):
        assert 0.018 < params[layer]["kernel"].std() < 0.022
        assert not params[layer]["bias"].any()
    if response_norm:
        assert not params["response_norm"]["scale"].any()
    else:
        np.testing.assert_array_equal(params["layer_scale"], np.full(32, 1e-6, np.float32))


def calls_of(model, *, train):
    """(kind, module, whether its output is its input) of every call that drops something, in order."""
    found = []

    def record(function, arguments, keywords, context):
        output = function(*arguments, **keywords)
        kind = type(context.module).__name__
        if kind in ("StochasticDepth", "Dropout") and context.module.name != "Dropout_0":
            found.append((kind, context.module.rate, output is arguments[0]))
        return output

    def run(x):
        with nn.intercept_methods(record):
            return model.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x, train=train)

    jax.eval_shape(run, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    return found


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        # torchvision: 0.1 · i / 17, the eighteenth block has 0.1 itself.
        ("convnext_tiny", {}, [0.1 * i / 17 for i in range(18)]),
        ("convnextv2_atto", {}, [0.1 * i / 11 for i in range(12)]),
        ("convnext_atto", {}, [0.0] * 12),
        ("convnext", {**SHALLOW, "stochastic_depth_rate": 0.4}, [0.0, 0.1, 0.2, 0.3, 0.4]),
        ("convnext", {"blocks": (1,), "width": 4, "stochastic_depth_rate": 0.4}, [0.0]),
    ],
)
def test_stochastic_depth_rises_to_its_rate_and_only_in_training(name, arguments, expected):
    model = models.create(name, num_classes=5, dropout_rate=0.2, **arguments)
    training, evaluation = (calls_of(model, train=train) for train in (True, False))
    assert [kind for kind, *_ in training] == ["StochasticDepth"] * len(expected) + ["Dropout"]
    np.testing.assert_allclose([rate for _, rate, _ in training], [*expected, 0.2], atol=1e-12)
    assert [same for *_, same in training] == [rate == 0 for _, rate, _ in training]
    assert all(same for *_, same in evaluation)


def test_the_heads_norm_lies_behind_the_pooling():
    head = ConvNeXtHead(num_classes=3, norm="layer", dropout_rate=0.0)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    variables = head.init(jax.random.key(1), x, train=False)
    kernel = variables["params"]["output"]["kernel"]
    mean = np.asarray(x).mean((1, 2))
    centred = mean - mean.mean(-1, keepdims=True)
    expected = centred / np.sqrt(mean.var(-1, keepdims=True) + 1e-6) @ np.asarray(kernel)
    np.testing.assert_allclose(head.apply(variables, x, train=False), expected, rtol=1e-4, atol=1e-5)
