"""torchvision's ResNet parameters for our ResNets, without torch: NumPy arrays in torch's layout."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_jax.weights.torchvision import convert

MODULES = (
    (r"conv1", "backbone/stem/conv"),
    (r"bn1", "backbone/stem/norm"),
    (r"layer(\d+)\.(\d+)\.conv(\d)", "backbone/stage{0}/block{1}/conv{2}"),
    (r"layer(\d+)\.(\d+)\.bn(\d)", "backbone/stage{0}/block{1}/norm{2}"),
    (r"layer(\d+)\.(\d+)\.downsample\.0", "backbone/stage{0}/block{1}/shortcut/conv"),
    (r"layer(\d+)\.(\d+)\.downsample\.1", "backbone/stage{0}/block{1}/shortcut/norm"),
    (r"fc", "head/output"),
)
"""torchvision's module names and ours; torch counts the blocks of a stage from 0, we from 1."""


def convert_resnet(state: Mapping[str, np.ndarray], variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a ResNet-18, 34, 50, 101 or 152 with every value taken from a torchvision state dict.

    Args:
      state: torch's keys and arrays, in torch's layout.
      variables: of our model, or their shapes; see `torchvision.convert`.

    Raises:
      UserError: keys, leaves or shapes that do not fit, all of them in one message.
    """
    return convert(state, variables, our_module=_our_module)


def _our_module(module: str) -> str | None:
    for pattern, ours in MODULES:
        match = re.fullmatch(pattern, module)
        if match:
            # stage, block (from 0 to from 1), and the number of the convolution or norm
            return ours.format(*(int(number) + (place == 1) for place, number in enumerate(match.groups())))
    return None
