"""Parameters and multiply-accumulates of every network that zoo.json counts, as its reference builds it."""

import json

import pytest

from cnn_jax import models
from cnn_jax.methods.summarize import summarize

TORCHVISION = {
    "mobilenet_v2": {},
    **{f"resnet{depth}": {} for depth in (18, 34, 50, 101, 152)},
}
"""Models that have torchvision's name, and the arguments with which they are torchvision's."""

OTHERS = {
    "classic/lenet5_modern": ("lenet5", {"padding": 0}),
    "classic/cifar_resnet20_B": ("resnet_cifar", {"depth": 20, "shortcut": "B"}),
    **{f"classic/cifar_resnet{depth}_A": (f"resnet{depth}", {}) for depth in (20, 32, 44, 56, 110, 1202)},
    "classic/resnet18_cifar_kuangliu": ("resnet18", {"stem": "cifar"}),
    "classic/wrn_22_8": ("wide_resnet", {"depth": 22, "widening": 8}),
    **{f"classic/wrn_{depth}_{k}": (f"wide_resnet{depth}_{k}", {}) for depth, k in ((28, 10), (16, 8), (40, 4))},
    **{f"classic/wrn_{depth}_{k}": (f"wide_resnet{depth}_{k}", {}) for depth, k in ((16, 4), (40, 2))},
}
"""Names of zoo.json, our models and their arguments, where they differ."""

ROWS = {**{name: (name, arguments) for name, arguments in TORCHVISION.items()}, **OTHERS}
COUNTED_ELSEWHERE = {
    *("airbench94", "classic_stack", "lenet5_1998", "mlp"),
    *("plain20", "plain32", "plain44", "plain56", "plain110", "resnet_imagenet"),
}
"""Models whose numbers stand in REFERENCES of test_parameter_counts.py."""
SLOW = {"classic/cifar_resnet1202_A"}


@pytest.fixture(scope="module")
def zoo(repository):
    return json.loads((repository / "tests" / "reference" / "zoo.json").read_text(encoding="utf-8"))["models"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in ROWS])
def test_parameters_and_macs(name, zoo):
    model, arguments = ROWS[name]
    reference = zoo[name]
    channels, *space = reference["input"]
    output = reference["output"]
    classes = (output["out"] if isinstance(output, dict) else output)[1]
    built = models.create(model, **{"num_classes": classes, "in_channels": channels, **arguments})
    totals = summarize(built, (*space, channels)).totals
    assert totals.parameters == reference["params"]
    assert abs(totals.macs / (reference["gmacs"] * 1e9) - 1) <= 1e-3


def test_every_model_has_a_reference():
    assert {model for model, _ in ROWS.values()} | COUNTED_ELSEWHERE == set(models.MODELS)
