"""On what images and classes the published numbers of every network were counted, and which logits are proven."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Reference:
    """The images and classes of a network's published parameters and multiply-accumulates.

    Attributes:
      image: `[*space, C]`.
      num_classes: K.
    """

    image: tuple[int, ...]
    num_classes: int


IMAGENET = Reference((224, 224, 3), 1000)
CIFAR = Reference((32, 32, 3), 10)
MNIST = Reference((28, 28, 1), 10)
KINETICS = Reference((16, 112, 112, 3), 400)
PASCAL_VOC = Reference((520, 520, 3), 21)


def _imagenet(size: int) -> Reference:
    return dataclasses.replace(IMAGENET, image=(size, size, 3))


REFERENCES: dict[str, Reference] = {
    **dict.fromkeys(("lenet5", "mlp", "capsule_network"), MNIST),
    "lenet5_1998": Reference((32, 32, 1), 10),
    **dict.fromkeys(("airbench94", "classic_stack", "nin"), CIFAR),
    **dict.fromkeys(("all_cnn_c", "strided_cnn_c", "conv_pool_cnn_c", "model_c"), CIFAR),
    **dict.fromkeys(("resnet_cifar", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"), CIFAR),
    **dict.fromkeys(("plain20", "plain32", "plain44", "plain56", "plain110", "plain1202"), CIFAR),
    **dict.fromkeys(("preact_resnet_cifar", "preact_resnet164", "preact_resnet1001"), CIFAR),
    **dict.fromkeys(("wide_resnet", "wide_resnet16_4", "wide_resnet16_8", "wide_resnet28_10"), CIFAR),
    **dict.fromkeys(("wide_resnet40_2", "wide_resnet40_4"), CIFAR),
    **{f"densenet{name}": CIFAR for name in ("_cifar", "40_12", "100_12", "_bc100_12", "_bc250_24", "_bc190_40")},
    **{f"efficientnet_b{i}": _imagenet(size) for i, size in enumerate((224, 240, 288, 300, 380, 456, 528, 600))},
    **{f"efficientnet_v2_{size}": _imagenet(pixels) for size, pixels in (("s", 384), ("m", 480), ("l", 480))},
    "alexnet_2012": _imagenet(227),
    **dict.fromkeys(("inception_v3", "inception_v4", "xception"), _imagenet(299)),
    **{f"efficientnet_lite{i}": _imagenet(size) for i, size in enumerate((224, 240, 260, 300, 380))},
    **dict.fromkeys(("video_resnet", "r3d_18", "mc3_18", "r2plus1d_18"), KINETICS),
    **dict.fromkeys(("fcn_resnet", "fcn_resnet50", "fcn_resnet101"), PASCAL_VOC),
    **dict.fromkeys(("deeplabv3_resnet", "deeplabv3_resnet50", "deeplabv3_resnet101"), PASCAL_VOC),
}
"""Models whose reference is not `IMAGENET`."""


def reference_of(name: str) -> Reference:
    """The reference images and classes of the model of this name.

    Example:
      >>> reference_of("resnet50").image
      (224, 224, 3)
    """
    return REFERENCES.get(name, IMAGENET)


PROVEN = (
    *("alexnet", "convnext_tiny", "convnextv2_atto", "deeplabv3_resnet50", "densenet121", "efficientnet_b0"),
    *("efficientnet_lite0", "efficientnet_v2_s", "fcn_resnet50", "googlenet", "inception_v3", "inception_v4"),
    *("mc3_18", "mnasnet1_0", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *("r2plus1d_18", "r3d_18", "regnet_y_400mf", "resnet18", "resnet50", "resnetv2_50", "resnext50_32x4d"),
    *("seresnet50", "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1", "vgg11", "vgg16_bn", "wide_resnet50_2"),
)
"""Models whose logits, with converted weights, equal the reference implementation's: tests/weights/test_goldens.py."""
