"""torchvision's names of the EfficientNets, which count the layers of a block, and timm's of the Lite ones."""

from cnn_jax.models.efficientnet_stages import V1_STAGES, V2_STAGES, StageSpec
from cnn_jax.weights.layout import KeyMap, Rule

NORMALISED = ("conv", "norm")
"""Our layers in the order in which torchvision counts them."""


def _torchvision(stages: tuple[StageSpec, ...]) -> KeyMap:
    """The map of a network with these stages, whatever the number of their blocks."""
    rules = []
    for i, stage in enumerate(stages, start=1):
        block, torch_block = rf"backbone/stage({i})_block(\d+)", "features.{0}.{1:-1}.block"
        # An expansion of 1 has no layer.
        if stage.fused:
            modules = ("fused", "project") if stage.expansion > 1 else ("fused",)
        else:
            modules = ("expand", "depthwise", "squeeze_excite", "project")[stage.expansion == 1 :]
        for index, module in enumerate(modules):
            layers = {"reduce": "fc1", "expand": "fc2"} if module == "squeeze_excite" else {"conv": "0", "norm": "1"}
            rules += [Rule(f"{block}/{module}/{a}", f"{torch_block}.{index}.{b}") for a, b in layers.items()]
    return KeyMap(
        (
            *(Rule(f"backbone/stem/{layer}", f"features.0.{index}") for index, layer in enumerate(NORMALISED)),
            *rules,
            *(
                Rule(f"backbone/final/{layer}", f"features.{len(stages) + 1}.{index}")
                for index, layer in enumerate(NORMALISED)
            ),
            Rule("head/output", "classifier.1"),
        )
    )


EFFICIENTNET = _torchvision(V1_STAGES)
EFFICIENTNET_V2 = {size: _torchvision(stages) for size, stages in V2_STAGES.items()}
"""By the size: S has one stage less."""

SEPARABLE = {"depthwise/conv": "conv_dw", "depthwise/norm": "bn1", "project/conv": "conv_pw", "project/norm": "bn2"}
"""Our and timm's modules of a block with expansion 1."""

INVERTED = {
    "expand/conv": "conv_pw",
    "expand/norm": "bn1",
    "depthwise/conv": "conv_dw",
    "depthwise/norm": "bn2",
    "project/conv": "conv_pwl",
    "project/norm": "bn3",
}
"""The same of the other blocks."""

EFFICIENTNET_LITE = KeyMap(
    (
        Rule("backbone/stem/conv", "conv_stem"),
        Rule("backbone/stem/norm", "bn1"),
        *(
            Rule(rf"backbone/stage({stages})_block(\d+)/{ours}", f"blocks.{{0:-1}}.{{1:-1}}.{theirs}")
            for stages, modules in (("1", SEPARABLE), (r"\d+", INVERTED))
            for ours, theirs in modules.items()
        ),
        Rule("backbone/final/conv", "conv_head"),
        Rule("backbone/final/norm", "bn2"),
        Rule("head/output", "classifier"),
    )
)
