"""The scaling model against values computed by hand, and against its limits."""

import pytest

from cnn_jax.benchmark.scaling import (
    INTERCONNECTS,
    Interconnect,
    Workload,
    all_reduce_seconds,
    gather_seconds,
    predict,
)

LINK = Interconnect(bandwidth=1e9, latency=1e-3, source="example")


@pytest.mark.parametrize(
    ("size", "devices", "expected"),
    [
        (1_000_000_000, 1, 0.0),
        (1_000_000_000, 2, 2 * 0.001 + 1.0),  # a ring of two: 2 steps, 2 × 1/2 × 1 s
        (1_000_000_000, 8, 14 * 0.001 + 1.75),
        (1_000_000_000, 5, 8 * 0.001 + 1.6),
        (1_000, 1024, 20 * 0.001 + 2e-6),  # small: the tree's 10 steps each way beat the ring's 2,046
    ],
)
def test_all_reduce(size, devices, expected):
    assert all_reduce_seconds(size, devices, LINK) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size", "devices", "expected"),
    [(1_000_000_000, 1, 0.0), (1_000_000_000, 4, 2 * 0.001 + 0.75), (1_000_000_000, 5, 3 * 0.001 + 0.8)],
)
def test_gather(size, devices, expected):
    assert gather_seconds(size, devices, LINK) == pytest.approx(expected)


def test_a_step_on_four_devices_by_hand():
    workload = Workload(compute_seconds=0.3, parameter_bytes=(100_000_000, 300_000_000), norm_bytes=(1_000,))
    prediction = predict(workload, 4, interconnect=LINK)
    gradients = 6 * 0.001 + 1.5 * 0.4  # one all-reduce of 0.4 s of bytes
    norm = 2 * (4 * 0.001 + 1e-6) + 4 * 0.001 + 2e-6  # three trees, two of them with half of the bytes
    sharded = 3 * (2 * 2 * 0.001 + 0.75 * 0.4)  # two arrays, three times
    assert prediction.data_parallel == pytest.approx(0.3 + norm + gradients)
    assert prediction.data_parallel_overlapped == pytest.approx(0.3 + norm + gradients - 0.2)
    assert prediction.fsdp == pytest.approx(0.3 + norm + sharded)
    assert prediction.fsdp_overlapped == pytest.approx(norm + sharded)


@pytest.mark.parametrize("link", INTERCONNECTS.values(), ids=INTERCONNECTS)
def test_limits(link):
    workload = Workload(compute_seconds=0.1, parameter_bytes=(4_000_000,) * 25, norm_bytes=(512,) * 50)
    predictions = [predict(workload, 2**power, interconnect=link) for power in range(11)]
    for name in ("data_parallel", "data_parallel_overlapped", "fsdp", "fsdp_overlapped"):
        times = [getattr(prediction, name) for prediction in predictions]
        assert times[0] == 0.1
        assert times == sorted(times)
    for prediction in predictions[1:]:
        assert 0.1 < prediction.data_parallel_overlapped <= prediction.data_parallel
        assert 0.1 < prediction.fsdp_overlapped <= prediction.fsdp
