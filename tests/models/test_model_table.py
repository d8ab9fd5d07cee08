"""What all models have in common: the table, its errors, and the contract of a classifier."""

import functools
import inspect
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import UserError

# Small builds of every family: name, arguments, image.
SMALL = [
    ("airbench94", {"widths": (8, 12)}, (16, 16, 3)),
    ("classic_stack", {"channels": (4, 6), "dense": (8,), "norm": "batch"}, (12, 12, 3)),
    ("lenet5", {}, (28, 28, 1)),
    ("lenet5_1998", {}, (28, 28, 1)),
    ("mlp", {"hidden": (8,)}, (6, 6, 3)),
    ("mobilenet_v2", {"width_multiplier": 0.1, "dropout_rate": 0.0}, (40, 40, 3)),
    ("resnet_cifar", {"depth": 8, "width": 4}, (16, 16, 3)),
    ("resnet18", {"width": 4}, (40, 40, 3)),
    ("wide_resnet", {"depth": 10, "widening": 1}, (16, 16, 3)),
]
PARAMETRIZE = pytest.mark.parametrize(("name", "arguments", "image"), SMALL, ids=[row[0] for row in SMALL])


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


@PARAMETRIZE
def test_every_channel_that_the_head_receives_changes_the_logits(name, arguments, image, random_variables):
    model = models.create(name, num_classes=5, in_channels=image[-1], **arguments)
    x = normal((2, *image))
    variables = random_variables(model, x)
    weights = normal((2, 5), seed=1)

    @jax.jit
    def run(x):
        maps = model.apply(variables, x, train=False, method="features")
        last = tuple(maps.values())[-1]

        def loss(last):
            logits = model.apply(variables, last, method=lambda module, last: module.head(last, train=False))
            return jnp.sum(logits * weights), logits

        return *jax.grad(loss, has_aux=True)(last), model.apply(variables, x, train=False)

    gradient, logits, whole = run(x)
    np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-5)
    assert (np.abs(gradient).max(axis=tuple(range(gradient.ndim - 1))) > 0).all()
    assert np.abs(run(x + 0.5)[1] - logits).max() > 1e-3


@PARAMETRIZE
def test_bfloat16_computes_low_and_keeps_statistics_and_logits_in_float32(name, arguments, image, random_variables):
    low, full = (
        models.create(name, num_classes=5, in_channels=image[-1], dtype=dtype, **arguments)
        for dtype in ("bfloat16", "float32")
    )
    x = normal((2, *image))
    variables = random_variables(low, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    trained, updated = jax.eval_shape(functools.partial(low.apply, train=True, mutable=["batch_stats"]), variables, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((trained, updated))} == {jnp.dtype("float32")}
    maps = jax.eval_shape(functools.partial(low.apply, train=False, method="features"), variables, x)
    assert {leaf.dtype for leaf in maps.values()} == {jnp.dtype("float32" if name == "mlp" else "bfloat16")}
    logits, expected = (jax.jit(functools.partial(model.apply, train=False))(variables, x) for model in (low, full))
    assert 0 < float(jnp.abs(logits - expected).max()) < 0.1 * float(jnp.abs(expected).max())


@PARAMETRIZE
def test_wrong_channels(name, arguments, image):
    model = models.create(name, num_classes=5, in_channels=image[-1], **arguments)
    x = jax.ShapeDtypeStruct((1, *image[:-1], 4), jnp.float32)
    with pytest.raises(UserError, match=rf"4 channels, but .* built for {image[-1]}; set model\.in_channels=4"):
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)


def constructor(name):
    """The function behind a name."""
    preset = models.MODELS[name]
    return preset.func if isinstance(preset, functools.partial) else preset


def test_the_small_builds_cover_every_family():
    assert {constructor(row[0]).__module__ for row in SMALL} >= {constructor(name).__module__ for name in models.MODELS}


@pytest.mark.parametrize("name", models.MODELS)
def test_signatures_are_what_the_config_layer_reads(name):
    parameters, hints = models.arguments(name), typing.get_type_hints(constructor(name))
    assert {"num_classes", "in_channels", "dtype"} <= set(parameters)
    assert hints["num_classes"] is int
    assert parameters["dtype"].default == "float32"
    for key, parameter in parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, key
        members = typing.get_args(hints[key]) if isinstance(hints[key], types.UnionType) else (hints[key],)
        plain = (int, float, str, bool, tuple[int, ...], tuple[str, ...], type(None))
        assert all(member in plain for member in members), key
    assert constructor(name).__doc__


ERRORS = [
    ("resent18", {}, "unknown model 'resent18'; did you mean 'resnet18'"),
    ("resnet18", {"widht": 3}, "unknown argument of model 'resnet18': 'widht'; did you mean 'width'"),
    ("resnet18", {"depth": 34}, "unknown argument of model 'resnet18': 'depth'"),
    ("plain20", {"shortcut": "A"}, "unknown argument of model 'plain20': 'shortcut'"),
    ("mlp", {"num_classes": 0}, "num_classes is 0; it must be 1 or more"),
    ("mlp", {"in_channels": 0}, "in_channels is 0"),
    ("mlp", {"dtype": "float16"}, "unknown dtype 'float16'.* Known: bfloat16, float32"),
    ("mlp", {"dropout_rate": 1.0}, r"dropout_rate is 1\.0; it must be at least 0 and below 1"),
    ("mlp", {"hidden": (8, 0)}, "hidden is 0"),
    ("mlp", {"activation": "rleu"}, "unknown activation 'rleu'"),
    ("resnet_cifar", {"depth": 21}, r"depth is 21; it must be 6n \+ 2"),
    ("resnet_cifar", {"depth": 2}, "depth is 2"),
    ("wide_resnet", {"depth": 26}, r"depth is 26; it must be 6n \+ 4"),
    ("wide_resnet", {"widening": 0}, "widening is 0"),
    ("resnet_cifar", {"shortcut": "C"}, "unknown shortcut 'C'.* Known: A, B, none"),
    ("resnet_cifar", {"width": 0}, "width is 0"),
    ("resnet_cifar", {"norm": "bacth"}, "unknown norm 'bacth'; did you mean 'batch'"),
    ("resnet_cifar", {"activation": "rleu"}, "unknown activation 'rleu'"),
    ("resnet_cifar", {"zero_init_residual": True, "norm": "none"}, "zero_init_residual=True needs a norm"),
    ("resnet_cifar", {"zero_init_residual": True, "shortcut": "none"}, "zero_init_residual=True needs .* shortcut"),
    ("resnet_imagenet", {"depth": 20}, "depth is 20; it must be one of 18, 34, 50, 101, 152"),
    ("resnet18", {"stem": "mnist"}, "unknown stem 'mnist'.* Known: cifar, imagenet"),
    ("mobilenet_v2", {"width_multiplier": 0.0}, r"width_multiplier is 0\.0; it must be above 0"),
    ("mobilenet_v2", {"stem": "mnist"}, "unknown stem 'mnist'.* Known: cifar, imagenet"),
    (
        "resnet18",
        {"remat": ("stage5",)},
        "stage to rematerialise 'stage5'.* Known: stage1, stage2, stage3, stage4, stem",
    ),
    ("classic_stack", {"remat": ("stage3",)}, "stage to rematerialise 'stage3'.* Known: stage1, stage2$"),
    ("lenet5", {"padding": -1}, "padding is -1"),
    ("lenet5", {"pool": "none"}, "unknown pool 'none'"),
    ("lenet5", {"activation": "tahn"}, "unknown activation 'tahn'; did you mean 'tanh'"),
    ("airbench94", {"widths": ()}, "widths is empty"),
    ("airbench94", {"widths": (8, 0)}, "widths is 0"),
    ("classic_stack", {"channels": ()}, "channels is empty"),
    ("classic_stack", {"channels": (4, 0)}, "channels is 0"),
    (
        "classic_stack",
        {"kernel_size": (3, 3, 3)},
        r"kernel_size \(3, 3, 3\) has 3 entries, but channels .* has 2 stages",
    ),
    ("classic_stack", {"kernel_size": 0}, "kernel_size is 0"),
    ("classic_stack", {"stride": 0}, "stride is 0"),
    ("classic_stack", {"padding": "smae"}, "unknown padding 'smae'; did you mean 'same'"),
    ("classic_stack", {"pool": "mean"}, "unknown pool 'mean'.* Known: average, max, none"),
    ("classic_stack", {"pool_size": 0}, "pool_size is 0"),
    ("classic_stack", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("classic_stack", {"norm_position": "behind"}, "unknown norm_position 'behind'.* Known: after, before"),
    ("classic_stack", {"dense": (0,)}, "dense is 0"),
    ("classic_stack", {"final_pool": "max"}, "unknown final_pool 'max'"),
    ("classic_stack", {"activation": "tanh", "negative_slope": 0.1}, r"negative_slope=0\.1 has no effect"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), ERRORS)
def test_bad_names_and_values(name, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        models.create(name, **{"num_classes": 10, **arguments})
    assert "\n" not in str(caught.value)


def test_a_missing_argument():
    with pytest.raises(UserError, match="model 'resnet20' needs the argument num_classes"):
        models.create("resnet20")


WITHOUT_DROPOUT_IN_THE_HEAD = {
    *("airbench94", "lenet5_1998"),
    *(name for name in models.MODELS if name.startswith("wide_resnet")),  # within its blocks: test_wide_resnet.py
}


@pytest.mark.parametrize("name", sorted(set(models.MODELS) - WITHOUT_DROPOUT_IN_THE_HEAD))
def test_dropout_reaches_the_head(name):
    assert models.create(name, num_classes=5, dropout_rate=0.25).head.dropout_rate == 0.25
