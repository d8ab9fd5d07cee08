"""What all models have in common: the table, its errors, and the contract of a classifier."""

import functools
import inspect
import math
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_builds import COMPILED_FAST, SMALL, slow_but

from cnn_jax import models
from cnn_jax.errors import UserError

PARAMETRIZE = pytest.mark.parametrize(("name", "arguments", "image"), SMALL, ids=[row[0] for row in SMALL])


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize(("name", "arguments", "image"), slow_but(COMPILED_FAST))
def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(name, arguments, image):
    model = models.create(name, num_classes=5, in_channels=image[-1], dtype="bfloat16", **arguments)
    x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    trained, updated = jax.eval_shape(functools.partial(model.apply, train=True, mutable=["batch_stats"]), variables, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((trained, updated))} == {jnp.dtype("float32")}
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    assert {leaf.dtype for leaf in maps.values()} == {jnp.dtype("float32" if name == "mlp" else "bfloat16")}


@pytest.mark.parametrize(("name", "arguments", "image"), slow_but(COMPILED_FAST))
def test_bfloat16_gives_the_logits_of_float32_nearly(name, arguments, image, random_variables):
    low, full = (
        models.create(name, num_classes=5, in_channels=image[-1], dtype=dtype, **arguments)
        for dtype in ("bfloat16", "float32")
    )
    x = normal((2, *image))
    variables = random_variables(low, x)
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
    ("resnet_cifar", {"depth": 14, "block": "bottleneck"}, r"depth is 14; it must be 9n \+ 2"),
    ("resnet_cifar", {"block": "botleneck"}, "unknown block 'botleneck'; did you mean 'bottleneck'"),
    ("wide_resnet", {"depth": 26}, r"depth is 26; it must be 6n \+ 4"),
    ("wide_resnet", {"widening": 0}, "widening is 0"),
    ("preact_resnet_cifar", {"depth": 20, "width": 0}, "width is 0"),
    ("preact_resnet_cifar", {"depth": 21}, r"depth is 21; it must be 9n \+ 2"),
    ("preact_resnet_cifar", {"depth": 2}, "depth is 2"),
    ("preact_resnet164", {"remat": ("stem",)}, "stage to rematerialise 'stem'.* Known: stage1, stage2, stage3$"),
    ("resnetv2", {"depth": 20}, "depth is 20; it must be one of 14, 18, 26, 34, 50, 101, 152"),
    ("resnetv2_50", {"stem": "mnist"}, "unknown stem 'mnist'.* Known: cifar, imagenet"),
    ("resnetv2_50", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("video_resnet", {"depth": 50}, "depth is 50; it must be one of 18, 34"),
    ("video_resnet", {"convolutions": ("3d",) * 4}, "convolutions has 4 entries; it must have 5"),
    ("video_resnet", {"convolutions": ("3d",) * 4 + ("1d",)}, "unknown convolution '1d'.* Known: 2d, 2plus1d, 3d"),
    ("r3d_18", {"width": 0}, "width is 0"),
    ("r3d_18", {"convolutions": ("2d",) * 5}, "unknown argument of model 'r3d_18': 'convolutions'"),
    ("resnet_cifar", {"shortcut": "C"}, "unknown shortcut 'C'.* Known: A, B, none"),
    ("resnet_cifar", {"width": 0}, "width is 0"),
    ("resnet_cifar", {"norm": "bacth"}, "unknown norm 'bacth'; did you mean 'batch'"),
    ("resnet_cifar", {"activation": "rleu"}, "unknown activation 'rleu'"),
    ("resnet_cifar", {"zero_init_residual": True, "norm": "none"}, "zero_init_residual=True needs a norm"),
    ("resnet_cifar", {"zero_init_residual": True, "shortcut": "none"}, "zero_init_residual=True needs .* shortcut"),
    ("resnet_imagenet", {"depth": 20}, "depth is 20; it must be one of 14, 18, 26, 34, 50, 101, 152"),
    ("resnet18", {"stem": "mnist"}, "unknown stem 'mnist'.* Known: cifar, imagenet"),
    ("resnet18", {"groups": 2}, "groups=2 needs bottlenecks; depth 18 has basic blocks, use one of 14, 26, 50"),
    ("resnet18", {"width_per_group": 4}, "width_per_group=4 needs bottlenecks"),
    ("resnet18", {"output_stride": 8}, "output_stride=8 needs bottlenecks"),
    ("resnet50", {"groups": 0}, "groups is 0"),
    ("resnet50", {"width_per_group": 0}, "width_per_group is 0"),
    ("resnet50", {"squeeze_reduction": 0}, "squeeze_reduction is 0"),
    ("resnet50", {"output_stride": 12}, "output_stride is 12; with stem 'imagenet' it must be one of 4, 8, 16, 32"),
    ("resnext50_32x4d", {"groups": 4}, "unknown argument of model 'resnext50_32x4d': 'groups'"),
    ("fcn_resnet", {"depth": 34}, "output_stride=8 needs bottlenecks; depth 34 has basic blocks"),
    ("fcn_resnet50", {"auxiliary_dropout_rate": 1.0}, r"auxiliary_dropout_rate is 1\.0; it must be at least 0"),
    ("fcn_resnet50", {"dropout_rate": 1.0}, r"dropout_rate is 1\.0"),
    ("fcn_resnet50", {"stem": "cifar", "output_stride": 16}, "output_stride is 16; with stem 'cifar' .* 1, 2, 4, 8"),
    ("deeplabv3_resnet50", {"rates": ()}, r"rates is empty; give at least one dilation"),
    ("deeplabv3_resnet50", {"rates": (6, 0)}, "rates is 0"),
    ("deeplabv3_resnet50", {"head_width": 0}, "head_width is 0"),
    ("googlenet", {"large_kernel_size": 4}, "large_kernel_size is 4; it must be odd"),
    ("googlenet", {"auxiliary_dropout_rate": 1.0}, r"auxiliary_dropout_rate is 1\.0; it must be at least 0"),
    ("googlenet", {"width_multiplier": 0.0}, r"width_multiplier is 0\.0; it must be above 0"),
    ("inception_v3", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("inception_v4", {"stage_sizes": (4, 7)}, r"stage_sizes is \(4, 7\); it must be three numbers"),
    ("inception_v4", {"stage_sizes": (4, 7, -1)}, r"stage_sizes is \(4, 7, -1\); it must be three numbers"),
    ("xception", {"middle_blocks": 0}, "middle_blocks is 0"),
    ("mobilenet_v2", {"width_multiplier": 0.0}, r"width_multiplier is 0\.0; it must be above 0"),
    ("mobilenet_v2", {"stem": "mnist"}, "unknown stem 'mnist'.* Known: cifar, imagenet"),
    ("mobilenet_v1", {"width_multiplier": -1.0}, r"width_multiplier is -1\.0; it must be above 0"),
    ("mobilenet_v1", {"activation": "rleu"}, "unknown activation 'rleu'"),
    ("mobilenet_v1", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("mobilenet_v3_large", {"size": "small"}, "unknown argument of model 'mobilenet_v3_large': 'size'"),
    ("mobilenet_v3_large", {"width_multiplier": 0.0}, r"width_multiplier is 0\.0"),
    ("mobilenet_v3_small", {"activation": "hard_swihs"}, "unknown activation 'hard_swihs'; did you mean 'hard_swish'"),
    ("mobilenet_v3_small", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("mnasnet1_0", {"width_multiplier": 0.5}, "unknown argument of model 'mnasnet1_0': 'width_multiplier'"),
    ("mnasnet", {"width_multiplier": 0.0}, r"width_multiplier is 0\.0"),
    ("mnasnet", {"activation": "rleu"}, "unknown activation 'rleu'"),
    ("mnasnet", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("shufflenet_v2", {"blocks": (4, 0, 4)}, "blocks is 0; it must be 1 or more"),
    ("shufflenet_v2", {"channels": (8, 0, 8, 8)}, "channels is 0"),
    ("shufflenet_v2", {"blocks": (1, 1)}, r"channels is \(116, 232, 464, 1024\) and blocks \(1, 1\); there must be"),
    ("shufflenet_v2", {"blocks": (), "channels": (8,)}, r"channels is \(8,\) and blocks \(\); there must be"),
    ("shufflenet_v2", {"channels": (8, 11, 8, 8)}, r"channels is \(8, 11, 8, 8\); those of the stages must be even"),
    ("shufflenet_v2_x1_0", {"activation": "rleu"}, "unknown activation 'rleu'"),
    ("shufflenet_v2_x1_0", {"norm": "bacth"}, "unknown norm 'bacth'"),
    (
        "resnet18",
        {"remat": ("stage5",)},
        "stage to rematerialise 'stage5'.* Known: stage1, stage2, stage3, stage4, stem",
    ),
    ("classic_stack", {"remat": ("stage3",)}, "stage to rematerialise 'stage3'.* Known: stage1, stage2$"),
    ("convnext", {"size": "tinny"}, "unknown size 'tinny'; did you mean 'tiny'"),
    ("convnext", {"layer_scale": -1.0}, r"layer_scale is -1\.0; it must be 0 or more"),
    ("convnext_tiny", {"blocks": ()}, "blocks is empty"),
    ("convnext_tiny", {"blocks": (3, 0)}, "blocks is 0"),
    ("convnext_tiny", {"width": 0}, "width is 0"),
    ("convnext_tiny", {"stochastic_depth_rate": 1.0}, r"stochastic_depth_rate is 1\.0; it must be at least 0"),
    ("convnext_tiny", {"remat": ("stem",)}, "stage to rematerialise 'stem'.* Known: stage1, stage2, stage3, stage4$"),
    ("convnextv2", {"size": "large"}, "unknown size 'large'.* Known: atto, tiny"),
    ("convnextv2_atto", {"layer_scale": 1.0}, "unknown argument of model 'convnextv2_atto': 'layer_scale'"),
    ("densenet_cifar", {"depth": 41}, r"depth is 41; with bottleneck=False it must be 3n \+ 4: 7, 10, 13, 22, 52, 100"),
    ("densenet_cifar", {"depth": 4}, "depth is 4"),
    ("densenet_cifar", {"depth": 13, "bottleneck": True}, r"depth is 13; with bottleneck=True it must be 6n \+ 4"),
    ("densenet_cifar", {"growth_rate": 0}, "growth_rate is 0"),
    ("densenet_cifar", {"compression": 0.0}, r"compression is 0\.0; it must be above 0 and at most 1"),
    ("densenet_cifar", {"compression": 1.5}, r"compression is 1\.5"),
    ("densenet_cifar", {"remat": ("stage4",)}, "stage to rematerialise 'stage4'.* Known: stage1, stage2, stage3$"),
    ("densenet_imagenet", {"depth": 100}, "depth is 100; it must be one of 121, 161, 169, 201"),
    ("densenet121", {"stem": "mnist"}, "unknown stem 'mnist'.* Known: cifar, imagenet"),
    ("efficientnet_b0", {"scale": 1}, "unknown argument of model 'efficientnet_b0': 'scale'"),
    ("efficientnet_b0", {"width_multiplier": 0.0}, r"width_multiplier is 0\.0; it must be above 0"),
    ("efficientnet_lite0", {"depth_multiplier": -1.0}, r"depth_multiplier is -1\.0; it must be above 0"),
    ("efficientnet_v2_s", {"depth_multiplier": math.inf}, "depth_multiplier is inf; it must be above 0"),
    ("efficientnet_v2_s", {"dropout_rate": 1.0}, r"dropout_rate is 1\.0"),
    ("efficientnet_b0", {"stochastic_depth_rate": 1.0}, r"stochastic_depth_rate is 1\.0; it must be at least 0"),
    ("efficientnet_b0", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("efficientnet_b0", {"activation": "sliu"}, "unknown activation 'sliu'; did you mean 'silu'"),
    ("regnet", {"depth": 0}, "depth is 0"),
    ("regnet", {"initial_width": 12}, "initial_width is 12; it must be a multiple of 8"),
    ("regnet", {"slope": -1.0}, r"slope is -1\.0; it must be 0 or more"),
    ("regnet", {"step": 1.0}, r"step is 1\.0; it must be above 1"),
    ("regnet", {"group_width": 0}, "group_width is 0"),
    ("regnet", {"squeeze_ratio": 1.5}, r"squeeze_ratio is 1\.5; it must be between 0 \(none\) and 1"),
    ("regnet_y_400mf", {"depth": 3}, "unknown argument of model 'regnet_y_400mf': 'depth'"),
    ("alexnet", {"dense": (16, 0)}, "dense is 0"),
    ("alexnet", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("alexnet_2012", {"width_multiplier": 0.0}, r"width_multiplier is 0\.0; it must be above 0"),
    ("alexnet_2012", {"activation": "rleu"}, "unknown activation 'rleu'"),
    ("all_cnn_c", {"subsampling": "pool"}, "unknown argument of model 'all_cnn_c': 'subsampling'"),
    ("all_cnn_c", {"input_dropout_rate": 1.0}, r"input_dropout_rate is 1\.0; it must be at least 0"),
    ("capsule_network", {"routing_iterations": 0}, "routing_iterations is 0"),
    ("capsule_network", {"capsule_size": 0}, "capsule_size is 0"),
    ("capsule_network", {"primary_size": 0}, "primary_size is 0"),
    ("model_c", {"norm": "bacth"}, "unknown norm 'bacth'"),
    ("nin", {"width_multiplier": -1.0}, r"width_multiplier is -1\.0; it must be above 0"),
    ("squeezenet1_0", {"version": "1_1"}, "unknown argument of model 'squeezenet1_0': 'version'"),
    ("squeezenet1_1", {"dropout_rate": 1.0}, r"dropout_rate is 1\.0; it must be at least 0"),
    ("vgg16", {"depth": 11}, "unknown argument of model 'vgg16': 'depth'"),
    ("vgg16", {"dense": (0,)}, "dense is 0"),
    ("vgg16_bn", {"norm": "none"}, "unknown argument of model 'vgg16_bn': 'norm'"),
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
    ("classic_stack", {"pool": "mean"}, "unknown pool 'mean'.* Known: average, l2, max, none"),
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
    *("airbench94", "lenet5_1998", "capsule_network"),
    *("all_cnn_c", "conv_pool_cnn_c", "model_c", "nin", "strided_cnn_c"),  # behind their pools: test_plain_stacks.py
    *(name for name in models.MODELS if name.startswith("densenet")),  # in all layers: test_densenet.py
    # Within its blocks: test_wide_resnet.py. Those for ImageNet, by ResNet's preset, have it in the head.
    *(name for name in models.MODELS if constructor(name) is models.MODELS["wide_resnet"]),
}


@pytest.mark.parametrize("name", sorted(set(models.MODELS) - WITHOUT_DROPOUT_IN_THE_HEAD))
def test_dropout_reaches_the_head(name):
    assert models.create(name, num_classes=5, dropout_rate=0.25).head.dropout_rate == 0.25
