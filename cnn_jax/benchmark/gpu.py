"""The rows for a GPU: bfloat16 against torch on the same card, with achieved rate and share of the card's own."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cnn_jax.benchmark.cases import Case
from cnn_jax.benchmark.race import Protocol, Side
from cnn_jax.benchmark.table import measure, our_side
from cnn_jax.errors import UserError

GPU_CASES = (
    Case(model="resnet50", image=(224, 224, 3), batch_size=256, num_classes=1000),
    Case(model="mobilenet_v2", image=(224, 224, 3), batch_size=256, num_classes=1000),
    Case(model="resnet20", image=(32, 32, 3), batch_size=1024),
    Case(model="wide_resnet28_10", image=(32, 32, 3), batch_size=512),
)
"""What is timed."""

MATMUL_SIZE, SMOKE_MATMUL_SIZE = 8192, 256


def smoke(case: Case) -> Case:
    """The case at a size that any machine does in seconds."""
    return dataclasses.replace(case, image=(32, 32, 3), batch_size=2)


def bfloat16_side(*, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Side:
    """Our worker, computing in bfloat16; arguments as `our_side`."""
    return our_side(overrides=("--config.model.dtype=bfloat16", *overrides), environment=environment)


def measure_gpu(
    selection: list[tuple[Case, tuple[str, ...]]],
    *,
    ours: Side,
    peer: Callable[[str], Side | None],
    tiny: bool,
    protocol: Protocol,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """One row for each case and mode, as `table.measure`, with `matmul_share`.

    Args:
      selection: cases and their modes.
      ours: from `bfloat16_side`.
      peer: gives the other side on "cuda" or "cpu"; None: the rows have our numbers alone.
      tiny: sizes for a test of the machinery, on any device.
      protocol: how long and how often.
      say: is told what goes on, one line at a time.

    Raises:
      UserError: there is no GPU and the sizes are not tiny.
    """
    with ours.start() as worker:
        about = worker.ask("describe", case=dataclasses.asdict(smoke(selection[0][0])))
        if about["platform"] != "gpu" and not tiny:
            raise UserError(f"JAX finds no GPU here, only {about['device']!r}; --smoke tries the machinery without one")
        peak = worker.ask("matmul", size=SMOKE_MATMUL_SIZE if tiny else MATMUL_SIZE)["flops_per_second"]
    say(f"{about['device']}: bfloat16 matrix products at {peak / 1e12:,.2f} TFLOP/s")
    other = peer("cuda" if about["platform"] == "gpu" else "cpu")
    chosen = [(smoke(case) if tiny else case, modes) for case, modes in selection]
    for row in measure(chosen, ours=ours, peer=other, protocol=protocol, say=say):
        share = row["flops_per_second"] / peak
        say(f"  {row['flops_per_second'] / 1e12:,.2f} TFLOP/s, {share:.1%} of the matrix products' rate")
        yield {**row, "matmul_share": share}
