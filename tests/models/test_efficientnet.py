"""EfficientNet: strides at every rank, norms and rates of the references, stochastic depth, smallest image."""

import ast
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.models.efficientnet import FusedMBConv
from cnn_jax.models.efficientnet_presets import efficientnet, efficientnet_lite, efficientnet_v2
from cnn_jax.nn.stochastic_depth import linear_rates

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

NARROW = {"width_multiplier": 0.1, "depth_multiplier": 0.1}
STAGES = (2, 4, 8, 16, 16, 32, 32)
NAMES = [name for name in models.MODELS if name.startswith("efficientnet")]


@pytest.mark.parametrize(
    ("name", "stages", "space"),
    [
        *(("efficientnet_b0", 7, space) for space in ((49,), (64, 49), (49, 33, 64))),
        ("efficientnet_lite0", 7, (49, 64)),
        ("efficientnet_v2_s", 6, (49, 64)),
        ("efficientnet_v2_m", 7, (64, 49)),
    ],
)
def test_documented_strides_at_every_rank(name, stages, space):
    model = models.create(name, num_classes=5, in_channels=2, **NARROW)
    x = jax.ShapeDtypeStruct((1, *space, 2), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    strides = {"stem": 2, **{f"stage{i}": STAGES[i - 1] for i in range(1, stages + 1)}, "final": 32}
    assert {key: leaf.shape[1:-1] for key, leaf in maps.items()} == {
        key: tuple(-(-size // stride) for size in space) for key, stride in strides.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_norms_and_rates_are_the_references(name, repository):
    zoo = json.loads((repository / "tests" / "reference" / "zoo.json").read_text(encoding="utf-8"))["models"]
    lite = "lite" in name
    semantics = zoo[f"timm/{name}" if lite else name]["semantics"]
    model = models.create(name, num_classes=5)
    [(_, epsilon, momentum)] = map(ast.literal_eval, semantics["batchnorm(eps,momentum,act?)"])
    assert (model.backbone.epsilon, model.backbone.momentum) == (epsilon, 1 - momentum)
    if lite:  # timm leaves its rates to the recipe.
        return
    assert {str(model.head.dropout_rate): 1} == semantics["dropout(p)"]
    rates = linear_rates(model.backbone.stochastic_depth_rate, sum(stage.blocks for stage in model.backbone.stages))
    assert {str(round(rate, 6)): 1 for rate in rates} == semantics["stochastic_depth(p)"]


def test_blocks_get_the_linear_rates():
    model = models.create("efficientnet_v2_s", num_classes=5, stochastic_depth_rate=0.7, **NARROW)
    rates = []

    def note(call, arguments, keywords, context):
        if context.method_name == "__call__" and hasattr(context.module, "stochastic_depth_rate"):
            rates.append((context.module.name, context.module.stochastic_depth_rate))
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    blocks = [(name, rate) for name, rate in rates if "block" in name]
    names = [f"stage{i}_block1" for i in range(1, 7)] + ["stage6_block2"]
    assert blocks == [(name, pytest.approx(i * 0.1)) for i, name in enumerate(names)]


def fused(features, *, expanded, stride=1, rate=0.0):
    return FusedMBConv(
        features,
        expanded=expanded,
        kernel_size=3,
        stride=stride,
        activation="silu",
        stochastic_depth_rate=rate,
        norm="none",
        epsilon=1e-3,
        momentum=0.9,
        dtype="float32",
    )


@pytest.mark.parametrize(
    ("features", "expanded", "stride", "added"),
    [(4, 16, 1, True), (4, 4, 1, True), (5, 16, 1, False), (5, 4, 1, False), (4, 16, 2, False)],
)
def test_the_input_is_added_where_the_shape_stays(features, expanded, stride, added):
    block = fused(features, expanded=expanded, stride=stride)
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
    variables = jax.eval_shape(functools.partial(block.init, train=False), jax.random.key(1), x)
    assert set(variables["params"]) == ({"fused", "project"} if expanded > 4 else {"fused"})
    nothing = jax.tree.map(lambda like: jnp.zeros(like.shape), variables)
    y = block.apply(nothing, x, train=False)
    np.testing.assert_array_equal(y, x if added else np.zeros(y.shape))


def test_training_leaves_out_the_branches_of_whole_examples(random_variables):
    block = fused(4, expanded=16, rate=0.5)
    x = jax.random.normal(jax.random.key(0), (32, 6, 6, 4))
    variables = random_variables(block, x)
    branch = block.apply(variables, x, train=False) - x
    trained = block.apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)}) - x
    kept = np.abs(trained).max(axis=(1, 2, 3)) > 0
    assert 4 < kept.sum() < 28
    np.testing.assert_allclose(trained, 2 * branch * kept[:, None, None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_v2_s"])
def test_the_smallest_image_has_one_pixel(name, random_variables):
    model = models.create(name, num_classes=5, **NARROW)
    x = jnp.ones((1, 1, 1, 3))
    assert np.isfinite(jax.jit(functools.partial(model.apply, train=False))(random_variables(model, x), x)).all()
    with pytest.raises(ImageTooSmallError, match="'backbone/stem/conv' gets an image of 0×8 pixels"):
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), jnp.ones((1, 0, 8, 3)))


@pytest.mark.parametrize(
    ("preset", "arguments", "message"),
    [
        (efficientnet, {"scale": 8}, "scale is 8; it must be one of 0, 1, 2, 3, 4, 5, 6, 7"),
        (efficientnet_lite, {"scale": 5}, "scale is 5; it must be one of 0, 1, 2, 3, 4"),
        (efficientnet_v2, {"size": "xl"}, "unknown size 'xl'.* Known: l, m, s"),
    ],
)
def test_unknown_scales_and_sizes(preset, arguments, message):
    with pytest.raises(UserError, match=message):
        preset(num_classes=5, **arguments)
