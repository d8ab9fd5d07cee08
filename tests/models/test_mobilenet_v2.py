"""MobileNetV2: documented strides at every rank, and the published multiply-accumulates."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from cnn_jax import models
from cnn_jax.methods.summarize import summarize

STRIDES = {
    "imagenet": (2, 2, 4, 8, 16, 16, 32, 32, 32),
    "cifar": (1, 1, 1, 2, 4, 4, 8, 8, 8),
}
NAMES = ("stem", *(f"stage{i}" for i in range(1, 8)), "final")


@pytest.mark.parametrize("size", [64, 49])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stem", STRIDES)
def test_documented_strides_at_every_rank(stem, rank, size):
    model = models.create("mobilenet_v2", num_classes=5, in_channels=2, width_multiplier=0.25, stem=stem)
    x = jax.ShapeDtypeStruct((1, *(size,) * rank, 2), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    expected = {name: (1, *(-(-size // stride),) * rank) for name, stride in zip(NAMES, STRIDES[stem])}
    assert {name: leaf.shape[:-1] for name, leaf in maps.items()} == expected
    assert maps["final"].shape[-1] == 1280


def test_macs_equal_the_zoo(repository):
    zoo = json.loads((repository / "tests" / "reference" / "zoo.json").read_text())["models"]
    summary = summarize(models.create("mobilenet_v2", num_classes=1000), (224, 224, 3))
    assert summary.totals.macs == round(zoo["mobilenet_v2"]["gmacs"] * 1e9)
