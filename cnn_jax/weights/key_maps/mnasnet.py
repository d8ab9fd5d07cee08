"""torchvision's names of MNASNet: one list of layers, in which a stage of inverted residuals is one entry."""

from cnn_jax.weights.layout import KeyMap, Rule

MNASNET = KeyMap(
    (
        Rule(r"backbone/stem/conv", "layers.0"),
        Rule(r"backbone/stem/norm", "layers.1"),
        # The separable convolution is no block of theirs; behind it come stage 2 as layer 8, stage 3 as layer 9, ...
        Rule(r"backbone/stage1_block1/depthwise/conv", "layers.3"),
        Rule(r"backbone/stage1_block1/depthwise/norm", "layers.4"),
        Rule(r"backbone/stage1_block1/project/conv", "layers.6"),
        Rule(r"backbone/stage1_block1/project/norm", "layers.7"),
        Rule(r"backbone/stage(\d+)_block(\d+)/expand/conv", "layers.{0:+6}.{1:-1}.layers.0"),
        Rule(r"backbone/stage(\d+)_block(\d+)/expand/norm", "layers.{0:+6}.{1:-1}.layers.1"),
        Rule(r"backbone/stage(\d+)_block(\d+)/depthwise/conv", "layers.{0:+6}.{1:-1}.layers.3"),
        Rule(r"backbone/stage(\d+)_block(\d+)/depthwise/norm", "layers.{0:+6}.{1:-1}.layers.4"),
        Rule(r"backbone/stage(\d+)_block(\d+)/project/conv", "layers.{0:+6}.{1:-1}.layers.6"),
        Rule(r"backbone/stage(\d+)_block(\d+)/project/norm", "layers.{0:+6}.{1:-1}.layers.7"),
        Rule(r"backbone/final/conv", "layers.14"),
        Rule(r"backbone/final/norm", "layers.15"),
        Rule(r"head/output", "classifier.1"),
    )
)
