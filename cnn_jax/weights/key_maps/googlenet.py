"""torchvision's names of GoogLeNet: blocks have the paper's numbers.

torchvision's pretrained weights come with `transform_input=True`: its module turns images that are normalised with
ImageNet's mean and deviation into images normalised with mean 0.5 and deviation 0.5. That is preprocessing and no part
of this network, which takes the latter. Those weights have auxiliary heads too, which a model without them leaves out.
"""

from cnn_jax.models.googlenet import BLOCKS
from cnn_jax.weights.layout import KeyMap, Rule

BRANCHES = {
    "branch1_conv1": "branch1",
    "branch2_conv1": "branch2.0",
    "branch2_conv2": "branch2.1",
    "branch3_conv1": "branch3.0",
    "branch3_conv2": "branch3.1",
    "branch4_conv1": "branch4.1",
}
"""Our and torchvision's convolutions of a block; the last one's pool has number 0."""

CONVOLUTIONS = {
    "stem_conv1": "conv1",
    "stage1_conv1": "conv2",
    "stage1_conv2": "conv3",
    **{
        f"{stage}_block{i}/{ours}": f"inception{number}{letter}.{theirs}"
        for number, (stage, blocks) in enumerate(BLOCKS.items(), start=3)
        for i, letter in enumerate("abcde"[: len(blocks)], start=1)
        for ours, theirs in BRANCHES.items()
    },
}
"""Our and torchvision's convolutions with their norms."""

GOOGLENET = KeyMap(
    (
        *(Rule(f"backbone/{ours}/conv", f"{theirs}.conv") for ours, theirs in CONVOLUTIONS.items()),
        *(Rule(f"backbone/{ours}/norm", f"{theirs}.bn") for ours, theirs in CONVOLUTIONS.items()),
        Rule("head/output", "fc"),
        Rule(r"auxiliary(\d)/reduce/conv", "aux{0}.conv.conv"),
        Rule(r"auxiliary(\d)/reduce/norm", "aux{0}.conv.bn"),
        Rule(r"auxiliary(\d)/dense", "aux{0}.fc1", flattened=(4, 4)),
        Rule(r"auxiliary(\d)/output", "aux{0}.fc2"),
    ),
    heads=("head/output", "auxiliary1/output", "auxiliary2/output"),
    stem="backbone/stem_conv1/conv",
    auxiliary=r"aux[12]\.(conv\.(conv|bn)|fc[12])\.\w+",
)
