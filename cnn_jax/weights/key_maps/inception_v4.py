"""timm's names of Inception-v4: blocks are counted through all stages, and layers, with pools, within a branch."""

from cnn_jax.weights.layout import KeyMap, Rule


def _chain(ours: int, theirs: int, length: int) -> dict[str, str]:
    """Names of the convolutions of a branch that are in a row."""
    return {f"branch{ours}_conv{i}": f"branch{theirs}.{i - 1}" for i in range(1, length + 1)}


def _pooled(ours: int, theirs: int) -> dict[str, str]:
    """The convolution behind a pool, which has number 0."""
    return {f"branch{ours}_conv1": f"branch{theirs}.1"}


FORK1 = {"branch2_conv1": "conv"}
FORK2 = {**_chain(1, 0, 2), **_chain(2, 1, 4)}
FORK3 = {"branch1_conv1": "conv"}
SINGLE = {"branch1_conv1": "branch0"}
BLOCK_A = {**SINGLE, **_chain(2, 1, 2), **_chain(3, 2, 3), **_pooled(4, 3)}
REDUCTION_A = {**SINGLE, **_chain(2, 1, 3)}
BLOCK_B = {**SINGLE, **_chain(2, 1, 3), **_chain(3, 2, 5), **_pooled(4, 3)}
REDUCTION_B = {**_chain(1, 0, 2), **_chain(2, 1, 4)}
BLOCK_C = {
    **SINGLE,
    **{f"branch2_conv{ours}": f"branch1_{theirs}" for ours, theirs in (("1", "0"), ("2a", "1a"), ("2b", "1b"))},
    **{
        f"branch3_conv{ours}": f"branch2_{theirs}"
        for ours, theirs in (("1", "0"), ("2", "1"), ("3", "2"), ("4a", "3a"), ("4b", "3b"))
    },
    **_pooled(4, 3),
}
"""Our and timm's convolutions of each kind of block."""

BLOCKS = (
    *(("stage1_block1", FORK1), ("stage1_block2", FORK2), ("stage2_block1", FORK3)),
    *((f"stage2_block{i}", BLOCK_A) for i in range(2, 6)),
    ("stage3_block1", REDUCTION_A),
    *((f"stage3_block{i}", BLOCK_B) for i in range(2, 9)),
    ("stage4_block1", REDUCTION_B),
    *((f"stage4_block{i}", BLOCK_C) for i in range(2, 5)),
)
"""Our blocks in the order in which timm counts them, behind the three convolutions of the stem."""

CONVOLUTIONS = {
    **{f"stem_conv{i}": f"features.{i - 1}" for i in (1, 2, 3)},
    **{
        f"{block}/{ours}": f"features.{index}.{theirs}"
        for index, (block, convolutions) in enumerate(BLOCKS, start=3)
        for ours, theirs in convolutions.items()
    },
}
"""Our and timm's convolutions with their norms."""

INCEPTION_V4 = KeyMap(
    (
        *(Rule(f"backbone/{ours}/conv", f"{theirs}.conv") for ours, theirs in CONVOLUTIONS.items()),
        *(Rule(f"backbone/{ours}/norm", f"{theirs}.bn") for ours, theirs in CONVOLUTIONS.items()),
        Rule("head/output", "last_linear"),
    ),
    stem="backbone/stem_conv1/conv",
    image=(299, 299),
)
