"""The rows for a GPU: bfloat16 against torch on the same card, with achieved rate and share of the card's own."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

from cnn_jax.benchmark.cases import Case
from cnn_jax.benchmark.peer import find_torch
from cnn_jax.benchmark.table import Protocol, Side, measure, our_side, torch_side
from cnn_jax.errors import UserError

GPU_CASES = (
    Case(model="resnet50", image=(224, 224, 3), batch_size=256, num_classes=1000),
    Case(model="mobilenet_v2", image=(224, 224, 3), batch_size=256, num_classes=1000),
    Case(model="resnet20", image=(32, 32, 3), batch_size=1024),
)
"""What is timed; WRN-28-10 joins when MODELS has it."""

MATMUL_SIZE, SMOKE_MATMUL_SIZE = 8192, 256
# Two processes share the card: JAX would reserve most of its memory.
SHARED_CARD = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def smoke(case: Case) -> Case:
    """The case at a size that any machine does in seconds."""
    return dataclasses.replace(case, image=(32, 32, 3), batch_size=2)


def bfloat16_side() -> Side:
    """Our worker, computing in bfloat16."""
    return our_side(overrides=("--config.model.dtype=bfloat16",), environment=SHARED_CARD)


def measure_gpu(
    selection: list[tuple[Case, tuple[str, ...]]],
    *,
    python: str | None,
    tiny: bool,
    protocol: Protocol,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """One row for each case and mode, as `table.measure`, with `matmul_share` and `device`.

    Args:
      selection: cases and their modes.
      python: one with torch for this card; default is this Python, if it has torch.
      tiny: sizes for a test of the machinery, on any device.
      protocol: how long and how often.
      say: is told what goes on, one line at a time.

    Raises:
      UserError: there is no GPU and the sizes are not tiny.
    """
    ours = bfloat16_side()
    with ours.start() as worker:
        about = worker.ask("describe", case=dataclasses.asdict(smoke(selection[0][0])))
        if about["platform"] != "gpu" and not tiny:
            raise UserError(f"JAX finds no GPU here, only {about['device']!r}; --smoke tries the machinery without one")
        peak = worker.ask("matmul", size=SMOKE_MATMUL_SIZE if tiny else MATMUL_SIZE)["flops_per_second"]
    say(f"{about['device']}: bfloat16 matrix products at {peak / 1e12:,.2f} TFLOP/s")
    found, why = find_torch(python or sys.executable)
    if found is None:
        say(f"no peer: {why}")
    device = "cuda" if about["platform"] == "gpu" else "cpu"
    peer = torch_side(found, device=device, autocast=True) if found else None
    chosen = [(smoke(case) if tiny else case, modes) for case, modes in selection]
    for row in measure(chosen, ours=ours, peer=peer, protocol=protocol, say=say):
        share = row["flops_per_second"] / peak
        say(f"  {row['flops_per_second'] / 1e12:,.2f} TFLOP/s, {share:.1%} of the matrix products' rate")
        yield {**row, "matmul_share": share, "device": about["device"]}
