"""What is timed: networks, image sizes and batch sizes, as plain data that both sides read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.errors import UserError, unknown_name

MODES = ("train", "forward")
"""A whole training step (forward, loss, backward, update), or logits in evaluation mode."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One network on images of one size; it crosses the pipe to a worker as JSON.

    Attributes:
      model: a key of `MODELS`, and of NETWORKS in `experiments/benchmarks/torch_networks.py`.
      image: `[*space, C]`, uint8; both sides normalise it within the timed step.
      batch_size: examples per step.
      num_classes: K.
      arguments: of our model, besides classes and channels.
      peer_arguments: of the peer's, besides classes and channels.
      mean: per channel, in units of [0, 1].
      std: per channel, in units of [0, 1].
      learning_rate: of SGD; small, because the same batch comes again and again.
      momentum: of SGD.
    """

    model: str
    image: tuple[int, ...]
    batch_size: int
    num_classes: int = 10
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    peer_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    learning_rate: float = 1e-3
    momentum: float = 0.9

    def config(self) -> dict[str, Any]:
        """A training config of this case; its data are given beside it."""
        channels = self.image[-1]
        return {
            "task": {"name": "classification"},
            "model": {"name": self.model, "in_channels": channels, **self.arguments},
            "data": {
                "source": "memory",
                "name": "random pixels",
                "batch_size": self.batch_size,
                "mean": self.mean * channels,
                "std": self.std * channels,
            },
            "optimizer": {"name": "sgd", "learning_rate": self.learning_rate, "momentum": self.momentum},
            "train": {"duration": {"steps": 1}},
            "parallel": {"devices": 1},
        }


CPU_CASES = (
    Case(model="lenet5", image=(28, 28, 1), batch_size=128),
    Case(model="classic_stack", image=(32, 32, 3), batch_size=128),
    Case(model="resnet20", image=(32, 32, 3), batch_size=128),
    Case(
        model="mobilenet_v2",
        image=(32, 32, 3),
        batch_size=128,
        arguments={"stem": "cifar"},
        peer_arguments={"stem": "cifar"},
    ),
    Case(model="resnet50", image=(224, 224, 3), batch_size=8, num_classes=1000),
)
"""The rows of the CPU table."""


def select(rows: str, cases: Sequence[Case], *, modes: Sequence[str] = MODES) -> list[tuple[Case, tuple[str, ...]]]:
    """The cases and modes of a list such as `lenet5:train,resnet20`; an empty text is all.

    Raises:
      UserError: an unknown model, a mode that is not one of `modes`, or nothing.

    Example:
      >>> [(case.model, modes) for case, modes in select("lenet5:forward,resnet20", CPU_CASES)]
      [('lenet5', ('forward',)), ('resnet20', ('train', 'forward'))]
    """
    known = {case.model: case for case in cases}
    chosen: dict[str, list[str]] = {}
    for row in filter(None, rows.split(",")) if rows else known:
        model, _, mode = row.partition(":")
        if model not in known:
            raise unknown_name("model of --rows", model, known)
        if mode and mode not in modes:
            raise UserError(f"--rows has mode {mode!r} in {row!r}; known: {', '.join(modes)}")
        chosen.setdefault(model, []).extend([mode] if mode else modes)
    if not chosen:
        raise UserError(f"--rows={rows} names no model; known: {', '.join(known)}")
    return [(known[model], tuple(mode for mode in modes if mode in wanted)) for model, wanted in chosen.items()]
