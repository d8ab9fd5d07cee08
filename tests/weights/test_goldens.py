"""Converted weights give the logits and feature maps that torchvision and timm give: every reference in golden/."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, weights


@dataclasses.dataclass(frozen=True)
class Golden:
    """One file in golden/ and how to compute it.

    Attributes:
      model: a key of MODELS.
      taps: our feature maps and what the reference calls them, in the order of the network.
      arguments: of the model, besides classes and channels.
      slow: not the one member of its family that the fast suite proves.
    """

    model: str
    taps: Mapping[str, str]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    slow: bool = True


LAYERS = {"stem": "relu", **{f"stage{i}": f"layer{i}" for i in range(1, 5)}}
MOBILENET_V2 = {
    "stem": "features.0",
    **{f"stage{i}": f"features.{last}" for i, last in enumerate((1, 3, 6, 10, 13, 16, 17), start=1)},
    "final": "features.18",
}

GOLDENS = {
    "mobilenet_v2": Golden("mobilenet_v2", MOBILENET_V2, slow=False),
    "resnet18": Golden("resnet18", LAYERS, slow=False),
    "resnet50": Golden("resnet50", LAYERS),
}
"""By the name of the file."""


def test_every_reference_is_computed(golden):
    assert set(GOLDENS) == set(golden.names())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if row.slow else []) for name, row in GOLDENS.items()]
)
def test_logits_equal_the_reference(name, golden):
    row = GOLDENS[name]
    state, x, meta = golden.load(name)
    variables = weights.convert(row.model, state, **row.arguments)
    classes = meta["outputs"]["logits"]["shape"][-1]
    model = models.create(row.model, num_classes=classes, **row.arguments)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "1"})
    def run(variables, x):
        return model.apply(variables, x, train=False), model.apply(variables, x, train=False, method="features")

    logits, maps = run(variables, jnp.asarray(x))
    # Or 100 times the reference's own error in float32, where that is more: deep networks.
    bound = max(1e-4, 100 * meta["float32_vs_float64"]["logits"])
    # In the order of the network: the first that differs is where the fault is.
    for ours, theirs in row.taps.items():
        assert golden.compare(maps[ours], meta["taps"][theirs]) <= bound, ours
    assert golden.compare(logits, meta["outputs"]["logits"]) <= bound
    assert set(row.taps) <= set(maps)


@pytest.mark.parametrize("name", GOLDENS)
def test_the_way_back_is_exact(name, golden):
    row = GOLDENS[name]
    _, _, meta = golden.load(name)
    # Every number is another one, so that no two can be exchanged unseen.
    sizes = {key: int(np.prod(shape)) for key, (shape, *_) in meta["tensors"].items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()])[:-1] % 2**24, strict=True))
    state = {
        key: (np.arange(sizes[key], dtype=np.float32) + np.float32(starts[key])).reshape(shape)
        for key, (shape, *_) in meta["tensors"].items()
        if not key.endswith("num_batches_tracked")
    }
    back = weights.to_torch(row.model, weights.convert(row.model, state, **row.arguments))
    assert set(back) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)
