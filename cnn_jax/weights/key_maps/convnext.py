"""torchvision's and timm's names of ConvNeXt."""

from cnn_jax.weights.layout import KeyMap, Rule

STAGES = range(1, 5)
"""torchvision counts what comes before a stage as a stage of its own: ours 1, 2, 3, 4 are 1, 3, 5, 7."""

CONVNEXT = KeyMap(
    (
        Rule("backbone/stem/conv", "features.0.0"),
        Rule("backbone/stem/norm", "features.0.1"),
        *(Rule(f"backbone/stage{i}/norm", f"features.{2 * i - 2}.0") for i in STAGES),
        *(Rule(f"backbone/stage{i}/downsample", f"features.{2 * i - 2}.1") for i in STAGES),
        *(
            Rule(rf"backbone/stage{i}/block(\d+){ours}", f"features.{2 * i - 1}.{{0:-1}}.{theirs}", trailing=trailing)
            for i in STAGES
            for ours, theirs, trailing in (
                ("", "layer_scale", 2),
                ("/depthwise", "block.0", 0),
                ("/norm", "block.2", 0),
                ("/expand", "block.3", 0),
                ("/project", "block.5", 0),
            )
        ),
        Rule("head/norm", "classifier.0"),
        Rule("head/output", "classifier.2"),
    )
)
"""torchvision's names."""


def _timm(*, trailing: int) -> KeyMap:
    """Names of timm's; `trailing` is 2 where its dense layers are 1×1 convolutions."""
    ours, theirs = r"backbone/stage(\d+)/block(\d+)", "stages.{0:-1}.blocks.{1:-1}"
    return KeyMap(
        (
            Rule("backbone/stem/conv", "stem.0"),
            Rule("backbone/stem/norm", "stem.1"),
            Rule(r"backbone/stage(\d+)/norm", "stages.{0:-1}.downsample.0"),
            Rule(r"backbone/stage(\d+)/downsample", "stages.{0:-1}.downsample.1"),
            Rule(ours, f"{theirs}.gamma"),
            Rule(f"{ours}/depthwise", f"{theirs}.conv_dw"),
            Rule(f"{ours}/norm", f"{theirs}.norm"),
            Rule(f"{ours}/expand", f"{theirs}.mlp.fc1", trailing=trailing),
            Rule(f"{ours}/response_norm", f"{theirs}.mlp.grn"),
            Rule(f"{ours}/project", f"{theirs}.mlp.fc2", trailing=trailing),
            Rule("head/norm", "head.norm"),
            Rule("head/output", "head.fc"),
        )
    )


CONVNEXT_TIMM = _timm(trailing=2)
"""timm's names of its sizes below tiny."""

CONVNEXT_TIMM_DENSE = _timm(trailing=0)
"""timm's names of the others."""
