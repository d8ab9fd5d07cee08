"""torchvision's names of MobileNetV3: blocks are counted through all stages, and modules within a block."""

from collections.abc import Iterator

from cnn_jax.models.mobilenet_v3 import STAGES, STEM_CHANNELS
from cnn_jax.weights.layout import KeyMap, Rule


def _block(prefix: str, *, expand: bool, squeeze_excite: bool) -> Iterator[tuple[str, str]]:
    """Our modules of a block and torchvision's; those that a block lacks are not counted."""
    modules = (("expand", expand), ("depthwise", True), ("squeeze_excite", squeeze_excite), ("project", True))
    for index, module in enumerate(module for module, present in modules if present):
        # fc1 and fc2 are 1×1 convolutions.
        parts = {"reduce": "fc1", "expand": "fc2"} if module == "squeeze_excite" else {"conv": "0", "norm": "1"}
        yield from ((f"{module}/{ours}", f"{prefix}.block.{index}.{theirs}") for ours, theirs in parts.items())


def _rules(size: str) -> Iterator[Rule]:
    """All rules of one network."""
    yield Rule("backbone/stem/conv", "features.0.0")
    yield Rule("backbone/stem/norm", "features.0.1")
    index, inputs = 0, STEM_CHANNELS
    for i, stage in enumerate(STAGES[size], start=1):
        for j, (_, expanded, features, squeeze_excite, _, _) in enumerate(stage, start=1):
            index += 1
            modules = _block(f"features.{index}", expand=expanded != inputs, squeeze_excite=squeeze_excite)
            yield from (Rule(f"backbone/stage{i}_block{j}/{ours}", theirs) for ours, theirs in modules)
            inputs = features
    yield Rule("backbone/final/conv", f"features.{index + 1}.0")
    yield Rule("backbone/final/norm", f"features.{index + 1}.1")
    yield Rule("head/dense1", "classifier.0")
    yield Rule("head/output", "classifier.3")


MOBILENET_V3 = {size: KeyMap(tuple(_rules(size))) for size in STAGES}
"""By the size of the network."""
