"""timm's names of MobileNetV1: stages and blocks are counted from 0, ours from 1."""

from cnn_jax.weights.layout import KeyMap, Rule

MOBILENET_V1 = KeyMap(
    (
        Rule(r"backbone/stem/conv", "conv_stem"),
        Rule(r"backbone/stem/norm", "bn1"),
        Rule(r"backbone/stage(\d+)_block(\d+)/depthwise/conv", "blocks.{0:-1}.{1:-1}.conv_dw"),
        Rule(r"backbone/stage(\d+)_block(\d+)/depthwise/norm", "blocks.{0:-1}.{1:-1}.bn1"),
        Rule(r"backbone/stage(\d+)_block(\d+)/pointwise/conv", "blocks.{0:-1}.{1:-1}.conv_pw"),
        Rule(r"backbone/stage(\d+)_block(\d+)/pointwise/norm", "blocks.{0:-1}.{1:-1}.bn2"),
        Rule(r"head/output", "classifier"),
    )
)
