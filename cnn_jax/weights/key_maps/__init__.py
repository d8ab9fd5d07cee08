"""How torchvision and timm name the parameters of our models: one family a file, and the literal table of them."""

from cnn_jax.weights.key_maps.mobilenet_v2 import MOBILENET_V2
from cnn_jax.weights.key_maps.resnet import RESNET
from cnn_jax.weights.layout import KeyMap

KEY_MAPS: dict[str, KeyMap] = {
    "mobilenet_v2": MOBILENET_V2,
    "resnet18": RESNET,
    "resnet34": RESNET,
    "resnet50": RESNET,
    "resnet101": RESNET,
    "resnet152": RESNET,
}
"""Models by their name in `MODELS`."""
