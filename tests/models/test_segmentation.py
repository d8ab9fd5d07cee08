"""FCN and DeepLabV3: logits for every pixel, auxiliary heads, dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.nn.segmentation_heads import DeepLabHead, FCNHead
from cnn_jax.ops.resample import resize_linear

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

NARROW = {
    "fcn_resnet": {"num_classes": 5, "depth": 14, "width": 4},
    "deeplabv3_resnet": {"num_classes": 5, "depth": 14, "width": 4, "head_width": 8, "rates": (1, 2)},
}


def normal(shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize("space", [(64, 56), (49, 33), (30,), (17, 9, 8), (1, 1)])
@pytest.mark.parametrize("name", NARROW)
def test_logits_have_the_size_of_the_image(name, space):
    model = models.create(name, auxiliary=True, in_channels=2, **NARROW[name])
    x = jax.ShapeDtypeStruct((2, *space, 2), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    for dtype in ("float32", "bfloat16"):
        model = models.create(name, auxiliary=True, in_channels=2, dtype=dtype, **NARROW[name])
        main, auxiliary = jax.eval_shape(
            functools.partial(model.apply, train=False, method="with_auxiliary"), variables, x
        )
        assert set(auxiliary) == {"stage3"}
        for found in (main, auxiliary["stage3"]):
            assert found.shape == (2, *space, 5)
            assert found.dtype == jnp.float32
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    for key, stride in {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 8, "stage4": 8}.items():
        assert maps[key].shape[1:-1] == tuple(-(-size // stride) for size in space), key


@pytest.mark.parametrize("name", NARROW)
def test_the_auxiliary_head_reads_stage3_and_changes_no_call(name, random_variables):
    model, plain = (models.create(name, auxiliary=auxiliary, **NARROW[name]) for auxiliary in (True, False))
    x = normal((2, 33, 40, 3))
    variables = random_variables(model, x)
    without = jax.tree.map(lambda leaf: leaf, variables)
    for collection in without.values():
        del collection["auxiliary1"]
    assert jax.tree.map(jnp.shape, without) == jax.tree.map(jnp.shape, random_variables(plain, x))

    @jax.jit
    def run(variables, without, x):
        both = model.apply(variables, x, train=False, method="with_auxiliary")
        call, alone = model.apply(variables, x, train=False), plain.apply(without, x, train=False)
        return both, call, alone, model.apply(variables, x, train=False, method="features")

    (main, auxiliary), call, alone, maps = run(variables, without, x)
    np.testing.assert_allclose(main, call, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alone, call, rtol=1e-5, atol=1e-5)
    for head, path, last, found in (
        (model.head, "head", maps["stage4"], call),
        (FCNHead(5), "auxiliary1", maps["stage3"], auxiliary["stage3"]),
    ):
        parts = {collection: tree[path] for collection, tree in variables.items()}
        expected = resize_linear(head.apply(parts, last, train=False), (33, 40))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", [FCNHead(3, 0.5), DeepLabHead(3, features=8, rates=(1, 2))])
def test_every_parameter_of_a_head_gets_a_gradient_and_dropout_is_for_training(head, random_variables):
    x = normal((2, 6, 7, 16))
    variables = random_variables(head, x)
    weights = normal((2, 6, 7, 3))

    @jax.jit
    def run(params, key):
        def loss(params):
            values = {**variables, "params": params}
            logits, _ = head.apply(values, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})
            return jnp.sum(weights * logits)

        return jax.value_and_grad(loss)(params)

    (first, gradient), (second, _) = (run(variables["params"], jax.random.key(seed)) for seed in (0, 1))
    assert first != second
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.abs(leaf).max() > 1e-5, jax.tree_util.keystr(path)
    np.testing.assert_array_equal(*(head.apply(variables, x, train=False) for _ in range(2)))


def test_the_pyramid_sees_the_whole_image(random_variables):
    head = DeepLabHead(3, features=8, rates=(1, 2))
    x = normal((1, 12, 12, 16))
    variables = random_variables(head, x)
    run = jax.jit(functools.partial(head.apply, variables, train=False))
    corner = run(x.at[:, -1, -1].add(3.0)) - run(x)
    # 3×3 with dilation 2, then 3×3: three pixels; what lies farther away is told by the mean over the image.
    far = np.abs(corner[:, :8, :8])
    assert far.max() > 1e-4
    variables["params"]["pyramid"]["pooled"]["conv"]["kernel"] *= 0
    run = jax.jit(functools.partial(head.apply, variables, train=False))
    np.testing.assert_allclose((run(x.at[:, -1, -1].add(3.0)) - run(x))[:, :8, :8], 0, atol=1e-6)


def test_dropout_rates_reach_their_heads():
    # torchvision: 0.1 in the FCN's heads, 0.5 behind the pyramid.
    for name, rate in (("fcn_resnet50", 0.1), ("deeplabv3_resnet50", 0.5)):
        model = models.create(name, num_classes=5, auxiliary=True)
        assert (model.head.dropout_rate, model.auxiliary["stage3"].dropout_rate) == (rate, 0.1)
        model = models.create(name, num_classes=5, auxiliary=True, auxiliary_dropout_rate=0.3)
        assert (model.head.dropout_rate, model.auxiliary["stage3"].dropout_rate) == (rate, 0.3)


def test_images_that_do_not_fit():
    model = models.create("fcn_resnet", **NARROW["fcn_resnet"])
    run = functools.partial(jax.eval_shape, functools.partial(model.init, train=False), jax.random.key(0))
    with pytest.raises(UserError, match=r"images have 4 channels, .* set model\.in_channels=4"):
        run(jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32))
    with pytest.raises(ImageTooSmallError, match="image of 0×8 pixels"):
        run(jax.ShapeDtypeStruct((1, 0, 8, 3), jnp.float32))
