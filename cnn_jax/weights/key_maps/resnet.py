"""torchvision's names of the residual networks: blocks of a stage are counted from 0, ours from 1; timm's are equal."""

from cnn_jax.weights.layout import KeyMap, Rule

RESNET = KeyMap(
    (
        Rule(r"backbone/stem/conv", "conv1"),
        Rule(r"backbone/stem/norm", "bn1"),
        Rule(r"backbone/stage(\d+)/block(\d+)/conv(\d)", "layer{0}.{1:-1}.conv{2}"),
        Rule(r"backbone/stage(\d+)/block(\d+)/norm(\d)", "layer{0}.{1:-1}.bn{2}"),
        Rule(r"backbone/stage(\d+)/block(\d+)/shortcut/conv", "layer{0}.{1:-1}.downsample.0"),
        Rule(r"backbone/stage(\d+)/block(\d+)/shortcut/norm", "layer{0}.{1:-1}.downsample.1"),
        # timm's SE-ResNets: torchvision has none.
        Rule(r"backbone/stage(\d+)/block(\d+)/squeeze_excite/reduce", "layer{0}.{1:-1}.se.fc1"),
        Rule(r"backbone/stage(\d+)/block(\d+)/squeeze_excite/expand", "layer{0}.{1:-1}.se.fc2"),
        Rule(r"head/output", "fc"),
    )
)
