"""timm's names of the pre-activation residual networks: stages and blocks are counted from 0, ours from 1."""

from cnn_jax.weights.layout import KeyMap, Rule

RESNETV2 = KeyMap(
    (
        Rule(r"backbone/stem", "stem.conv"),
        Rule(r"backbone/stage(\d+)/block(\d+)/((?:norm|conv)\d)", "stages.{0:-1}.blocks.{1:-1}.{2}"),
        Rule(r"backbone/stage(\d+)/block(\d+)/shortcut", "stages.{0:-1}.blocks.{1:-1}.downsample.conv"),
        Rule(r"backbone/norm", "norm"),
        # A 1×1 convolution of the pooled features.
        Rule(r"head/output", "head.fc", trailing=2),
    ),
    stem="backbone/stem",
)
