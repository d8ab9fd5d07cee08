"""What a training step would take on more devices than are at hand: a model of computing and communicating.

Weak scaling: every device keeps its batch, so that the global batch grows with the devices. A collective costs what the
usual algorithms cost (Thakur et al. 2005, "Optimization of collective communication operations in MPICH", Section 4).
"""

import dataclasses
import math

ASSUMPTIONS = (
    "Weak scaling: each device has the batch that was measured; the efficiency is measured compute / predicted step.",
    "All links are alike and all are busy at once; no stragglers, no congestion, and input that is never waited for.",
    "An all-reduce takes the faster of a ring, 2 (n - 1) latency + 2 (n - 1) / n bytes / bandwidth, and a tree,"
    " 2 log2(n) latency + 2 bytes / bandwidth; gathers and reduce-scatters double their pieces in log2(n) steps and"
    " move (n - 1) / n of the bytes.",
    "BatchNorm over the global batch adds three all-reduces per layer: the mean, then the variance, one number per"
    " channel each, and backward one of two numbers per channel; the layers wait for them, so they never overlap.",
    "With overlap the gradients' all-reduce hides behind the backward pass, two thirds of the compute; without, all of"
    " it is waited for.",
    "FSDP gathers each parameter array before the forward and again before the backward pass and reduce-scatters its"
    " gradient; with overlap all of that hides behind the compute.",
)
"""What the prediction takes for granted."""

BACKWARD_SHARE = 2 / 3
"""Of a step's compute: two of the three products of every layer belong to the backward pass."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interconnect:
    """What joins the devices.

    Attributes:
      bandwidth: bytes per second that a device sends, and receives at the same time.
      latency: seconds that one step of a collective takes at least.
      source: where the numbers are from.
    """

    bandwidth: float
    latency: float
    source: str


NCCL_LATENCY = "latency: NCCL, src/graph/tuning.cc, hwLat of Ring/Simple"
INTERCONNECTS = {
    "nvlink4": Interconnect(
        bandwidth=450e9, latency=3.4e-6, source=f"NVIDIA H100 data sheet, 900 GB/s both ways; {NCCL_LATENCY}"
    ),
    "pcie5": Interconnect(
        bandwidth=64e9, latency=5.7e-6, source=f"PCI Express 5.0, 16 lanes of 32 GT/s; {NCCL_LATENCY}"
    ),
    "infiniband_ndr": Interconnect(
        bandwidth=50e9, latency=14e-6, source=f"NVIDIA ConnectX-7 data sheet, 400 Gb/s a device; {NCCL_LATENCY}"
    ),
    "ethernet_100g": Interconnect(
        bandwidth=12.5e9, latency=14e-6, source=f"IEEE 802.3, 100 Gb/s a device; {NCCL_LATENCY}"
    ),
}
"""Interconnects by name; each device has the whole bandwidth to itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What one device computes in a step, and what it must agree on with the others.

    Attributes:
      compute_seconds: of a step on one device, with its own batch.
      parameter_bytes: per parameter array, so of its gradient too.
      norm_bytes: per BatchNorm layer, of mean and variance together: 8 bytes per channel.
    """

    compute_seconds: float
    parameter_bytes: tuple[int, ...]
    norm_bytes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Seconds of a step on `devices` devices, without and with communication behind the compute."""

    devices: int
    data_parallel: float
    data_parallel_overlapped: float
    fsdp: float
    fsdp_overlapped: float


def all_reduce_seconds(size: int, devices: int, interconnect: Interconnect) -> float:
    """The time to sum `size` bytes over devices so that all have the sum: the faster of a ring and a tree.

    Example:
      >>> link = Interconnect(bandwidth=1e9, latency=1e-3, source="example")
      >>> all_reduce_seconds(4_000_000_000, 4, link)  # 6 steps of 1 ms, and 2 × 3/4 × 4 s
      6.006
    """
    if devices == 1:
        return 0.0
    seconds = size / interconnect.bandwidth
    ring = 2 * (devices - 1) * interconnect.latency + 2 * (devices - 1) / devices * seconds
    tree = 2 * math.ceil(math.log2(devices)) * interconnect.latency + 2 * seconds
    return min(ring, tree)


def gather_seconds(size: int, devices: int, interconnect: Interconnect) -> float:
    """The time to bring `size` bytes, of which each device has its part, to all; a reduce-scatter takes the same.

    Recursive doubling moves as many bytes as a ring in log2(n) steps.
    """
    if devices == 1:
        return 0.0
    moved = (devices - 1) / devices * size / interconnect.bandwidth
    return math.ceil(math.log2(devices)) * interconnect.latency + moved


def predict(workload: Workload, devices: int, *, interconnect: Interconnect) -> Prediction:
    """The step time on so many devices, for replicated and for fully sharded parameters.

    Args:
      workload: of one device.
      devices: 1 or more.
      interconnect: what joins them.
    """
    compute = workload.compute_seconds
    norms = sum(
        2 * all_reduce_seconds(size // 2, devices, interconnect) + all_reduce_seconds(size, devices, interconnect)
        for size in workload.norm_bytes
    )
    # XLA fuses the gradients into one all-reduce.
    gradients = all_reduce_seconds(sum(workload.parameter_bytes), devices, interconnect)
    sharded = sum(3 * gather_seconds(size, devices, interconnect) for size in workload.parameter_bytes)
    return Prediction(
        devices=devices,
        data_parallel=compute + norms + gradients,
        data_parallel_overlapped=compute + norms + max(0.0, gradients - BACKWARD_SHARE * compute),
        fsdp=compute + norms + sharded,
        fsdp_overlapped=compute + norms + max(0.0, sharded - compute),
    )
