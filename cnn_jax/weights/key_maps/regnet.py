"""torchvision's names of the RegNets: a block's name repeats its stage's, and counts from 0."""

from cnn_jax.weights.layout import KeyMap, Rule

PARTS = {"reduce": "f.a", "grouped": "f.b", "project": "f.c", "shortcut": "proj"}
"""Our and torchvision's names of a block's convolutions with their norms."""

BLOCK = r"backbone/stage(\d+)/block(\d+)"
TORCH_BLOCK = "trunk_output.block{0}.block{0}-{1:-1}"

REGNET = KeyMap(
    (
        Rule("backbone/stem/conv", "stem.0"),
        Rule("backbone/stem/norm", "stem.1"),
        *(
            Rule(f"{BLOCK}/{ours}/{layer}", f"{TORCH_BLOCK}.{theirs}.{index}")
            for ours, theirs in PARTS.items()
            for index, layer in enumerate(("conv", "norm"))
        ),
        Rule(f"{BLOCK}/squeeze_excite/reduce", f"{TORCH_BLOCK}.f.se.fc1"),
        Rule(f"{BLOCK}/squeeze_excite/expand", f"{TORCH_BLOCK}.f.se.fc2"),
        Rule("head/output", "fc"),
    )
)
