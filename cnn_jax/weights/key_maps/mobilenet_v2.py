"""torchvision's names of MobileNetV2: blocks are counted through all stages, and layers within a block."""

from cnn_jax.models.mobilenet_v2 import STAGES
from cnn_jax.weights.layout import KeyMap, Rule

EXPANDED = {
    "expand/conv": "0.0",
    "expand/norm": "0.1",
    "depthwise/conv": "1.0",
    "depthwise/norm": "1.1",
    "project/conv": "2",
    "project/norm": "3",
}
"""Our and torchvision's modules of a block."""

UNEXPANDED = {"depthwise/conv": "0.0", "depthwise/norm": "0.1", "project/conv": "1", "project/norm": "2"}
"""The same for a block with expansion 1."""

BLOCKS = tuple(
    (f"stage{i}_block{j}", UNEXPANDED if expansion == 1 else EXPANDED)
    for i, (expansion, _, blocks, _) in enumerate(STAGES, start=1)
    for j in range(1, blocks + 1)
)
"""Our blocks in the order in which torchvision counts them, from 1, and their modules."""

MOBILENET_V2 = KeyMap(
    (
        Rule("backbone/stem/conv", "features.0.0"),
        Rule("backbone/stem/norm", "features.0.1"),
        *(
            Rule(f"backbone/{block}/{ours}", f"features.{index}.conv.{theirs}")
            for index, (block, modules) in enumerate(BLOCKS, start=1)
            for ours, theirs in modules.items()
        ),
        Rule("backbone/final/conv", f"features.{len(BLOCKS) + 1}.0"),
        Rule("backbone/final/norm", f"features.{len(BLOCKS) + 1}.1"),
        Rule("head/output", "classifier.1"),
    )
)
