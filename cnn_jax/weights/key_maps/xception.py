"""timm's names of Xception (`legacy_xception`): layers of a block are counted from 0, with activations and norms."""

from cnn_jax.weights.layout import KeyMap, Rule

BLOCKS = (
    *(("stage1_block1", 2), ("stage2_block1", 2), ("stage3_block1", 2)),
    *((f"stage3_block{i}", 3) for i in range(2, 10)),
    ("stage4_block1", 2),
)
"""Our blocks in timm's order, and their separable convolutions."""

KERNELS = {"depthwise": "conv1", "pointwise": "pointwise"}
"""Our and timm's parts of a separable convolution."""


def _block(number: int, name: str, convolutions: int) -> list[Rule]:
    """The rules of a block."""
    ours, theirs = f"backbone/{name}", f"block{number}"
    rules = [Rule(f"{ours}/shortcut/conv", f"{theirs}.skip"), Rule(f"{ours}/shortcut/norm", f"{theirs}.skipbn")]
    for i in range(1, convolutions + 1):
        # Activation, convolution, norm; the first block begins without an activation.
        index = 3 * i - 2 - (number == 1)
        rules += [Rule(f"{ours}/conv{i}/{part}", f"{theirs}.rep.{index}.{its}") for part, its in KERNELS.items()]
        rules.append(Rule(f"{ours}/norm{i}", f"{theirs}.rep.{index + 1}"))
    return rules


XCEPTION = KeyMap(
    (
        Rule(r"backbone/stem_conv(\d)/conv", "conv{0}"),
        Rule(r"backbone/stem_conv(\d)/norm", "bn{0}"),
        *(rule for number, block in enumerate(BLOCKS, start=1) for rule in _block(number, *block)),
        *(Rule(rf"backbone/final_conv(\d)/{part}", f"conv{{0:+2}}.{its}") for part, its in KERNELS.items()),
        Rule(r"backbone/final_norm(\d)", "bn{0:+2}"),
        Rule("head/output", "fc"),
    ),
    stem="backbone/stem_conv1/conv",
    image=(299, 299),
)
