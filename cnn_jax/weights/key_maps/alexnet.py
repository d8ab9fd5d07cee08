"""torchvision's names of AlexNet: layers are counted, those without parameters too."""

from cnn_jax.models.alexnet import BINS
from cnn_jax.weights.layout import KeyMap, Rule

ALEXNET = KeyMap(
    (
        Rule("backbone/stage1_conv1/conv", "features.0"),
        Rule("backbone/stage2_conv1/conv", "features.3"),
        Rule("backbone/stage3_conv1/conv", "features.6"),
        Rule("backbone/stage3_conv2/conv", "features.8"),
        Rule("backbone/stage3_conv3/conv", "features.10"),
        Rule("head/dense1", "classifier.1", flattened=(BINS, BINS)),
        Rule("head/dense2", "classifier.4"),
        Rule("head/output", "classifier.6"),
    ),
    stem="backbone/stage1_conv1/conv",
)
