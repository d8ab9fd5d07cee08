"""torchvision's names of Inception-v3: those of the authors' code. timm's are the same, without the auxiliary head.

torchvision's pretrained weights come with `transform_input=True`: its module turns images that are normalised with
ImageNet's mean and deviation into images normalised with mean 0.5 and deviation 0.5. That is preprocessing and no part
of this network, which takes the latter. Those weights have an auxiliary head too, which a model without it leaves out.
"""

from cnn_jax.weights.layout import KeyMap, Rule

POOLED = {"branch1_conv1": "branch1x1", "branch4_conv1": "branch_pool"}
SMALL = {
    **POOLED,
    **{f"branch2_conv{i}": f"branch5x5_{i}" for i in (1, 2)},
    **{f"branch3_conv{i}": f"branch3x3dbl_{i}" for i in (1, 2, 3)},
}
REDUCTION1 = {"branch1_conv1": "branch3x3", **{f"branch2_conv{i}": f"branch3x3dbl_{i}" for i in (1, 2, 3)}}
FACTORISED = {
    **POOLED,
    **{f"branch2_conv{i}": f"branch7x7_{i}" for i in (1, 2, 3)},
    **{f"branch3_conv{i}": f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)},
}
REDUCTION2 = {
    **{f"branch1_conv{i}": f"branch3x3_{i}" for i in (1, 2)},
    **{f"branch2_conv{i}": f"branch7x7x3_{i}" for i in (1, 2, 3, 4)},
}
WIDE = {
    **POOLED,
    **{f"branch2_conv{i}": f"branch3x3_{i}" for i in ("1", "2a", "2b")},
    **{f"branch3_conv{i}": f"branch3x3dbl_{i}" for i in ("1", "2", "3a", "3b")},
}
"""Our and torchvision's convolutions of each kind of block."""

STAGES = {
    ("stage2", 5): (SMALL,) * 3,
    ("stage3", 6): (REDUCTION1, *(FACTORISED,) * 4),
    ("stage4", 7): (REDUCTION2, WIDE, WIDE),
}
"""Our and torchvision's stages with their blocks; 5 begins with the letter b."""

CONVOLUTIONS = {
    **{f"stem_conv{i}": f"Conv2d_{theirs}_3x3" for i, theirs in enumerate(("1a", "2a", "2b"), start=1)},
    "stage1_conv1": "Conv2d_3b_1x1",
    "stage1_conv2": "Conv2d_4a_3x3",
    **{
        f"{stage}_block{i}/{ours}": f"Mixed_{number}{'abcdef'[i if number == 5 else i - 1]}.{theirs}"
        for (stage, number), blocks in STAGES.items()
        for i, block in enumerate(blocks, start=1)
        for ours, theirs in block.items()
    },
}
"""Our and torchvision's convolutions with their norms."""

INCEPTION_V3 = KeyMap(
    (
        *(Rule(f"backbone/{ours}/conv", f"{theirs}.conv") for ours, theirs in CONVOLUTIONS.items()),
        *(Rule(f"backbone/{ours}/norm", f"{theirs}.bn") for ours, theirs in CONVOLUTIONS.items()),
        Rule("head/output", "fc"),
        *(
            Rule(f"auxiliary1/{ours}/{layer}", f"AuxLogits.{theirs}.{name}")
            for ours, theirs in (("reduce", "conv0"), ("conv", "conv1"))
            for layer, name in (("conv", "conv"), ("norm", "bn"))
        ),
        Rule("auxiliary1/output", "AuxLogits.fc"),
    ),
    heads=("head/output", "auxiliary1/output"),
    stem="backbone/stem_conv1/conv",
    image=(299, 299),
    auxiliary=r"AuxLogits\.(conv[01]\.(conv|bn)|fc)\.\w+",
)
