"""What the tests of benchmarks share."""

import os

import pytest

from cnn_jax.benchmark.peer import find_torch


@pytest.fixture(scope="session")
def torch_python():
    """A Python with torch: the one that CNN_JAX_TORCH names."""
    python = os.environ.get("CNN_JAX_TORCH")
    if not python:
        pytest.skip("needs PyTorch in its own environment: set CNN_JAX_TORCH to that environment's python")
    found, why = find_torch(python)
    assert found, why
    return found
