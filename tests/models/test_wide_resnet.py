"""Wide residual networks against the authors' network written out, and where their dropout lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models

# 15 pixels do not divide by the stride.
IMAGE = (2, 15, 12, 3)


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def written_out(variables, x, *, blocks):
    """The functional network of github.com/szagoruyko/wide-residual-networks, resnet.py, in evaluation mode."""
    variables = jax.device_get(variables)  # NumPy's arithmetic
    params, statistics = variables["params"], variables["batch_stats"]["backbone"]

    def conv(kernel, x, stride=1):
        pad = [(kernel.shape[0] // 2,) * 2] * 2
        out = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
        )
        return np.asarray(out)

    def norm_relu(params, statistics, x):
        y = (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
        return np.maximum(y * params["scale"] + params["bias"], 0)

    backbone = params["backbone"]
    x = conv(backbone["stem"]["kernel"], x)
    for group in (1, 2, 3):
        for index in range(1, blocks + 1):
            p, s = (tree[f"stage{group}"][f"block{index}"] for tree in (backbone, statistics))
            stride = 2 if group > 1 and index == 1 else 1
            o1 = norm_relu(p["norm1"], s["norm1"], x)
            y = conv(p["conv1"]["kernel"], o1, stride)
            o2 = norm_relu(p["norm2"], s["norm2"], y)
            z = conv(p["conv2"]["kernel"], o2)
            x = z + (conv(p["shortcut"]["kernel"], o1, stride) if "shortcut" in p else x)
    o = norm_relu(backbone["norm"], statistics["norm"], x).mean((1, 2))
    return o @ params["head"]["output"]["kernel"] + params["head"]["output"]["bias"]


@pytest.mark.parametrize(("depth", "widening"), [(10, 2), (16, 1)])
def test_the_logits_are_those_of_the_authors_network(depth, widening, random_variables):
    model = models.create("wide_resnet", num_classes=5, depth=depth, widening=widening)
    x = normal(IMAGE)
    variables = random_variables(model, x)
    logits = jax.jit(lambda variables, x: model.apply(variables, x, train=False))(variables, x)
    expected = written_out(variables, x, blocks=(depth - 4) // 6)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    # One group has the stem's channels when k is 1: no projection there.
    assert ("shortcut" in variables["params"]["backbone"]["stage1"]["block1"]) == (widening > 1)


def test_feature_maps():
    model = models.create("wide_resnet", num_classes=5, depth=10, widening=2)
    x = jax.ShapeDtypeStruct(IMAGE, jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    found = []  # by name: jit sorts keys

    def run(variables, x):
        maps = model.apply(variables, x, train=False, method="features")
        found.extend((name, value.shape) for name, value in maps.items())
        return maps

    jax.eval_shape(run, variables, x)
    assert found == [
        ("stem", (2, 15, 12, 16)),
        ("stage1", (2, 15, 12, 32)),
        ("stage2", (2, 8, 6, 64)),
        ("stage3", (2, 4, 3, 128)),
        ("final", (2, 4, 3, 128)),
    ]


@pytest.mark.slow
def test_dropout_lies_between_the_convolutions_of_every_block_and_only_in_training(random_variables):
    model = models.create("wide_resnet", num_classes=5, depth=10, widening=1, dropout_rate=0.5)
    x = normal(IMAGE)
    variables = random_variables(model, x)

    def captured(train):
        _, state = model.apply(
            variables,
            x,
            train=train,
            mutable=["intermediates", "batch_stats"],
            rngs={"dropout": jax.random.key(0)},
            capture_intermediates=lambda module, _: module.name in ("norm2", "dropout", "conv2"),
        )
        kernels = variables["params"]["backbone"]
        return [
            (
                kernels[f"stage{i}"]["block1"]["conv2"]["kernel"],
                state["intermediates"]["backbone"][f"stage{i}"]["block1"],
            )
            for i in (1, 2, 3)
        ]

    for train in (True, False):
        for kernel, block in captured(train):
            (normalised,), (after,), (out,) = (block[name]["__call__"] for name in ("norm2", "dropout", "conv2"))
            expected = jax.lax.conv_general_dilated(
                after, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
            )
            np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
            before = np.maximum(normalised, 0)
            if not train:
                np.testing.assert_array_equal(after, before)
                continue
            kept = np.asarray(after != 0)
            np.testing.assert_allclose(after[kept], 2 * before[kept], rtol=1e-6)
            share = kept.sum() / np.asarray(before != 0).sum()
            assert 0.4 < share < 0.6
