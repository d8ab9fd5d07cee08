"""How torchvision and timm name the parameters of our models: one family a file, and the literal table of them."""

from cnn_jax.weights.key_maps.alexnet import ALEXNET
from cnn_jax.weights.key_maps.convnext import CONVNEXT, CONVNEXT_TIMM, CONVNEXT_TIMM_DENSE
from cnn_jax.weights.key_maps.densenet import DENSENET
from cnn_jax.weights.key_maps.efficientnet import EFFICIENTNET, EFFICIENTNET_LITE, EFFICIENTNET_V2
from cnn_jax.weights.key_maps.googlenet import GOOGLENET
from cnn_jax.weights.key_maps.inception_v3 import INCEPTION_V3
from cnn_jax.weights.key_maps.inception_v4 import INCEPTION_V4
from cnn_jax.weights.key_maps.mnasnet import MNASNET
from cnn_jax.weights.key_maps.mobilenet_v1 import MOBILENET_V1
from cnn_jax.weights.key_maps.mobilenet_v2 import MOBILENET_V2
from cnn_jax.weights.key_maps.mobilenet_v3 import MOBILENET_V3
from cnn_jax.weights.key_maps.preact_resnet import RESNETV2
from cnn_jax.weights.key_maps.regnet import REGNET
from cnn_jax.weights.key_maps.resnet import RESNET
from cnn_jax.weights.key_maps.segmentation import DEEPLABV3, FCN
from cnn_jax.weights.key_maps.shufflenet_v2 import SHUFFLENET_V2
from cnn_jax.weights.key_maps.squeezenet import squeezenet_map
from cnn_jax.weights.key_maps.vgg import vgg_map
from cnn_jax.weights.key_maps.video_resnet import FACTORISED_VIDEO_RESNET, VIDEO_RESNET
from cnn_jax.weights.key_maps.xception import XCEPTION
from cnn_jax.weights.layout import KeyMap

KEY_MAPS: dict[str, KeyMap] = {
    "alexnet": ALEXNET,
    "convnext_atto": CONVNEXT_TIMM,
    "convnext_femto": CONVNEXT_TIMM,
    "convnext_pico": CONVNEXT_TIMM,
    "convnext_nano": CONVNEXT_TIMM,
    "convnext_tiny": CONVNEXT,
    "convnext_small": CONVNEXT,
    "convnext_base": CONVNEXT,
    "convnext_large": CONVNEXT,
    "convnextv2_atto": CONVNEXT_TIMM,
    "convnextv2_tiny": CONVNEXT_TIMM_DENSE,
    "deeplabv3_resnet50": DEEPLABV3,
    "deeplabv3_resnet101": DEEPLABV3,
    "densenet121": DENSENET,
    "densenet161": DENSENET,
    "densenet169": DENSENET,
    "densenet201": DENSENET,
    "efficientnet_b0": EFFICIENTNET,
    "efficientnet_b1": EFFICIENTNET,
    "efficientnet_b2": EFFICIENTNET,
    "efficientnet_b3": EFFICIENTNET,
    "efficientnet_b4": EFFICIENTNET,
    "efficientnet_b5": EFFICIENTNET,
    "efficientnet_b6": EFFICIENTNET,
    "efficientnet_b7": EFFICIENTNET,
    "efficientnet_lite0": EFFICIENTNET_LITE,
    "efficientnet_lite1": EFFICIENTNET_LITE,
    "efficientnet_lite2": EFFICIENTNET_LITE,
    "efficientnet_lite3": EFFICIENTNET_LITE,
    "efficientnet_lite4": EFFICIENTNET_LITE,
    "efficientnet_v2_s": EFFICIENTNET_V2["s"],
    "efficientnet_v2_m": EFFICIENTNET_V2["m"],
    "efficientnet_v2_l": EFFICIENTNET_V2["l"],
    "fcn_resnet50": FCN,
    "fcn_resnet101": FCN,
    "googlenet": GOOGLENET,
    "inception_v3": INCEPTION_V3,
    "inception_v4": INCEPTION_V4,
    "mnasnet0_5": MNASNET,
    "mnasnet0_75": MNASNET,
    "mnasnet1_0": MNASNET,
    "mnasnet1_3": MNASNET,
    "mobilenet_v1": MOBILENET_V1,
    "mobilenet_v2": MOBILENET_V2,
    "mobilenet_v3_large": MOBILENET_V3["large"],
    "mobilenet_v3_small": MOBILENET_V3["small"],
    "regnet_x_400mf": REGNET,
    "regnet_x_800mf": REGNET,
    "regnet_x_1_6gf": REGNET,
    "regnet_x_3_2gf": REGNET,
    "regnet_x_8gf": REGNET,
    "regnet_x_16gf": REGNET,
    "regnet_x_32gf": REGNET,
    "regnet_y_400mf": REGNET,
    "regnet_y_800mf": REGNET,
    "regnet_y_1_6gf": REGNET,
    "regnet_y_3_2gf": REGNET,
    "regnet_y_8gf": REGNET,
    "regnet_y_16gf": REGNET,
    "regnet_y_32gf": REGNET,
    "regnet_y_128gf": REGNET,
    "r3d_18": VIDEO_RESNET,
    "mc3_18": VIDEO_RESNET,
    "r2plus1d_18": FACTORISED_VIDEO_RESNET,
    "resnetv2_18": RESNETV2,
    "resnetv2_34": RESNETV2,
    "resnetv2_50": RESNETV2,
    "resnetv2_101": RESNETV2,
    "resnetv2_152": RESNETV2,
    "resnet18": RESNET,
    "resnet34": RESNET,
    "resnet50": RESNET,
    "resnet101": RESNET,
    "resnet152": RESNET,
    "resnext50_32x4d": RESNET,
    "resnext101_32x8d": RESNET,
    "resnext101_64x4d": RESNET,
    "seresnet18": RESNET,
    "seresnet34": RESNET,
    "seresnet50": RESNET,
    "seresnet101": RESNET,
    "seresnet152": RESNET,
    "seresnext50_32x4d": RESNET,
    "wide_resnet50_2": RESNET,
    "wide_resnet101_2": RESNET,
    "shufflenet_v2_x0_5": SHUFFLENET_V2,
    "shufflenet_v2_x1_0": SHUFFLENET_V2,
    "shufflenet_v2_x1_5": SHUFFLENET_V2,
    "shufflenet_v2_x2_0": SHUFFLENET_V2,
    "squeezenet1_0": squeezenet_map("1_0"),
    "squeezenet1_1": squeezenet_map("1_1"),
    "vgg11": vgg_map(11, norm=False),
    "vgg11_bn": vgg_map(11, norm=True),
    "vgg13": vgg_map(13, norm=False),
    "vgg13_bn": vgg_map(13, norm=True),
    "vgg16": vgg_map(16, norm=False),
    "vgg16_bn": vgg_map(16, norm=True),
    "vgg19": vgg_map(19, norm=False),
    "vgg19_bn": vgg_map(19, norm=True),
    "xception": XCEPTION,
}
"""Models by their name in `MODELS`."""
