"""Small builds of every family, for tests of what all networks have in common."""

import pytest

SMALL = [
    ("airbench94", {"widths": (8, 12)}, (16, 16, 3)),
    ("alexnet", {"width_multiplier": 0.1, "dense": (16, 12), "dropout_rate": 0.0}, (64, 64, 3)),
    ("alexnet_2012", {"width_multiplier": 0.1, "dense": (16, 12), "dropout_rate": 0.0}, (68, 68, 3)),
    ("all_cnn_c", {"width_multiplier": 0.1, "input_dropout_rate": 0.0, "dropout_rate": 0.0}, (16, 16, 3)),
    ("capsule_network", {"width_multiplier": 0.05, "capsule_size": 6}, (20, 20, 3)),
    ("classic_stack", {"channels": (4, 6), "dense": (8,), "norm": "batch"}, (12, 12, 3)),
    ("convnext", {"blocks": (1, 1), "width": 8, "stochastic_depth_rate": 0.0}, (16, 16, 3)),
    ("convnextv2", {"blocks": (1,), "width": 8, "stochastic_depth_rate": 0.0}, (16, 16, 3)),
    ("densenet_cifar", {"depth": 16, "growth_rate": 4, "bottleneck": True, "compression": 0.5}, (16, 16, 3)),
    ("googlenet", {"width_multiplier": 0.125, "dropout_rate": 0.0}, (40, 40, 3)),
    ("inception_v3", {"width_multiplier": 0.05, "dropout_rate": 0.0}, (76, 76, 3)),
    ("inception_v4", {"width_multiplier": 0.05, "stage_sizes": (1, 1, 1), "dropout_rate": 0.0}, (76, 76, 3)),
    (
        "efficientnet_b0",
        {"width_multiplier": 0.1, "depth_multiplier": 0.5, "dropout_rate": 0.0, "stochastic_depth_rate": 0.0},
        (40, 40, 3),
    ),
    (
        "efficientnet_v2_s",
        {"width_multiplier": 0.1, "depth_multiplier": 0.1, "dropout_rate": 0.0, "stochastic_depth_rate": 0.0},
        (40, 40, 3),
    ),
    ("lenet5", {}, (28, 28, 1)),
    ("lenet5_1998", {}, (28, 28, 1)),
    ("mlp", {"hidden": (8,)}, (6, 6, 3)),
    ("mnasnet", {"width_multiplier": 0.1, "dropout_rate": 0.0}, (40, 40, 3)),
    ("mobilenet_v1", {"width_multiplier": 0.1}, (40, 40, 3)),
    ("mobilenet_v2", {"width_multiplier": 0.1, "dropout_rate": 0.0}, (40, 40, 3)),
    ("mobilenet_v3_small", {"width_multiplier": 0.1, "dropout_rate": 0.0}, (40, 40, 3)),
    ("nin", {"width_multiplier": 0.1, "dropout_rate": 0.0}, (16, 16, 3)),
    ("regnet", {"depth": 4, "initial_width": 8, "slope": 8.0, "step": 2.0, "group_width": 4}, (40, 40, 3)),
    ("resnet_cifar", {"depth": 8, "width": 4}, (16, 16, 3)),
    ("preact_resnet_cifar", {"depth": 11, "width": 4}, (16, 16, 3)),
    ("resnet18", {"width": 4}, (40, 40, 3)),
    (
        "resnet_imagenet",
        {"depth": 14, "width": 4, "groups": 2, "width_per_group": 4, "squeeze_reduction": 4, "output_stride": 8},
        (24, 24, 3),
    ),
    # With maps as large as the image, the heads' logits are those of the pixels.
    ("fcn_resnet", {"depth": 14, "width": 4, "stem": "cifar", "output_stride": 1, "dropout_rate": 0.0}, (12, 12, 3)),
    (
        "deeplabv3_resnet",
        {
            **{"depth": 14, "width": 4, "stem": "cifar", "output_stride": 1, "dropout_rate": 0.0},
            **{"head_width": 8, "rates": (1, 2)},
        },
        (12, 12, 3),
    ),
    ("resnetv2_18", {"width": 4}, (40, 40, 3)),
    ("video_resnet", {"width": 4, "convolutions": ("2plus1d", "3d", "2d", "3d", "2plus1d")}, (4, 20, 20, 3)),
    ("squeezenet1_1", {"width_multiplier": 0.1, "dropout_rate": 0.0}, (32, 32, 3)),
    ("vgg11_bn", {"width_multiplier": 0.1, "dense": (16, 12), "dropout_rate": 0.0}, (32, 32, 3)),
    ("shufflenet_v2", {"blocks": (2, 1), "channels": (8, 12, 16)}, (40, 40, 3)),
    ("wide_resnet", {"depth": 10, "widening": 1}, (16, 16, 3)),
    ("xception", {"width_multiplier": 0.05, "middle_blocks": 1, "dropout_rate": 0.0}, (40, 40, 3)),
]
"""Name, arguments besides classes and channels, image; what is random in training is off where it would matter."""

COMPILED_FAST = ("classic_stack", "lenet5", "lenet5_1998", "mlp", "resnet18")
"""Builds that the fast suite compiles too."""


def slow_but(fast):
    """The rows as parameters of a test that is slow for all but these."""
    return [pytest.param(*row, id=row[0], marks=[] if row[0] in fast else [pytest.mark.slow]) for row in SMALL]
