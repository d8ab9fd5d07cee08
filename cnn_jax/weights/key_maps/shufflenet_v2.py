"""torchvision's names of ShuffleNetV2: stages are counted from 2, ours from 1; blocks from 0, ours from 1."""

from cnn_jax.weights.layout import KeyMap, Rule

UNIT = {
    "shortcut_depthwise/conv": "branch1.0",
    "shortcut_depthwise/norm": "branch1.1",
    "shortcut_pointwise/conv": "branch1.2",
    "shortcut_pointwise/norm": "branch1.3",
    "pointwise1/conv": "branch2.0",
    "pointwise1/norm": "branch2.1",
    "depthwise/conv": "branch2.3",
    "depthwise/norm": "branch2.4",
    "pointwise2/conv": "branch2.5",
    "pointwise2/norm": "branch2.6",
}
"""Our and torchvision's modules of a unit."""

SHUFFLENET_V2 = KeyMap(
    (
        Rule(r"backbone/stem/conv", "conv1.0"),
        Rule(r"backbone/stem/norm", "conv1.1"),
        *(
            Rule(rf"backbone/stage(\d+)_block(\d+)/{ours}", f"stage{{0:+1}}.{{1:-1}}.{theirs}")
            for ours, theirs in UNIT.items()
        ),
        Rule(r"backbone/final/conv", "conv5.0"),
        Rule(r"backbone/final/norm", "conv5.1"),
        Rule(r"head/output", "fc"),
    )
)
