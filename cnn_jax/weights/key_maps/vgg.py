"""torchvision's names of VGG: layers are counted, those without parameters too."""

from cnn_jax.models.vgg import BINS, DEPTHS
from cnn_jax.weights.layout import KeyMap, Rule


def vgg_map(depth: int, *, norm: bool) -> KeyMap:
    """The key map of VGG-depth, with or without a norm behind every convolution."""
    rules, index = [], 0
    for i, layers in enumerate(DEPTHS[depth], start=1):
        for j in range(1, layers + 1):
            rules.append(Rule(f"backbone/stage{i}_conv{j}/conv", f"features.{index}"))
            if norm:
                rules.append(Rule(f"backbone/stage{i}_conv{j}/norm", f"features.{index + 1}"))
            index += 2 + norm  # The activation is counted.
        index += 1  # The pool.
    return KeyMap(
        (
            *rules,
            Rule("head/dense1", "classifier.0", flattened=(BINS, BINS)),
            Rule("head/dense2", "classifier.3"),
            Rule("head/output", "classifier.6"),
        ),
        stem="backbone/stage1_conv1/conv",
    )
