"""torchvision's MobileNetV2 parameters for ours, without torch: NumPy arrays in torch's layout."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_jax.models.mobilenet_v2 import STAGES
from cnn_jax.weights.torchvision import convert

EXPANDED = {
    "0.0": "expand/conv",
    "0.1": "expand/norm",
    "1.0": "depthwise/conv",
    "1.1": "depthwise/norm",
    "2": "project/conv",
    "3": "project/norm",
}
"""torchvision's and our modules of a block."""

UNEXPANDED = {"0.0": "depthwise/conv", "0.1": "depthwise/norm", "1": "project/conv", "2": "project/norm"}
"""The same for a block with expansion 1."""

BLOCKS = tuple(
    (f"stage{i}_block{j}", UNEXPANDED if expansion == 1 else EXPANDED)
    for i, (expansion, _, blocks, _) in enumerate(STAGES, start=1)
    for j in range(1, blocks + 1)
)
"""Our blocks in the order in which torchvision counts them, from 1, and their modules."""


def convert_mobilenet_v2(state: Mapping[str, np.ndarray], variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a MobileNetV2 with every value taken from a torchvision state dict.

    Args:
      state: torch's keys and arrays, in torch's layout.
      variables: of our model, or their shapes; see `torchvision.convert`.

    Raises:
      UserError: keys, leaves or shapes that do not fit, all of them in one message.
    """
    return convert(state, variables, our_module=_our_module)


def _our_module(module: str) -> str | None:
    if module == "classifier.1":
        return "head/output"
    match = re.fullmatch(r"features\.(\d+)\.(conv\.)?([\d.]+)", module)
    if match is None:
        return None
    index, inside, layer = int(match[1]), match[2], match[3]
    if inside:
        name, modules = BLOCKS[index - 1] if 1 <= index <= len(BLOCKS) else ("", {})
        return f"backbone/{name}/{modules[layer]}" if layer in modules else None
    name = {0: "stem", len(BLOCKS) + 1: "final"}.get(index)
    kind = {"0": "conv", "1": "norm"}.get(layer)
    return f"backbone/{name}/{kind}" if name and kind else None
