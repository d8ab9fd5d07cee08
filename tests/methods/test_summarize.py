"""Parameters and multiply-accumulates against published counts and hand counts; what a row is; sums."""

import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnn_jax.errors import ImageTooSmallError
from cnn_jax.methods.summarize import Totals, summarize
from cnn_jax.models import create
from cnn_jax.models.lenet_1998 import RBFHead, output_codes
from cnn_jax.nn.conv import Conv

OWN_MACS = {RBFHead: lambda head: output_codes(head.num_classes).size}


def by_path(summary):
    return {row.path: row for row in summary.rows}


# Receptive fields of the stages, published for the networks with the stride on the 3×3 convolution at
# gist.github.com/samson-wang/a6073c18f2adf16e0ab5fb95b53db3e6. Depth 152 by hand, from 101: four more blocks in stage 2
# (16 pixels each) and 13 more in stage 3 (32 pixels each).
FIELDS = {
    "resnet18": (43, 99, 211, 435),
    "resnet34": (59, 179, 547, 899),
    "resnet50": (35, 91, 267, 427),
    "resnet101": (35, 91, 811, 971),
    "resnet152": (35, 91 + 64, 811 + 64 + 416, 971 + 64 + 416),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_imagenet_resnets_equal_the_reference(name, repository):
    reference = json.loads((repository / "tests/reference/zoo.json").read_text())["models"][name]
    channels, *space = reference["input"]
    summary = summarize(create(name, num_classes=1000), (*space, channels))
    assert summary.totals.parameters == reference["params"]
    assert summary.totals.macs == round(reference["gmacs"] * 1e9)
    for stage, field in enumerate(FIELDS[name], start=1):
        last = [row for row in summary.rows if row.path.startswith(f"backbone/stage{stage}")][-1]
        assert last.receptive_field == (field, field)


def test_modern_lenet5():
    rows = by_path(summarize(create("lenet5", num_classes=10), (28, 28, 1)))
    macs = {path: row.macs for path, row in rows.items() if row.macs}
    assert macs == {
        "backbone/stage1/conv": 28 * 28 * 6 * 25,
        "backbone/stage2/conv": 10 * 10 * 16 * 150,
        "head/dense1": 400 * 120,
        "head/dense2": 120 * 84,
        "head/output": 84 * 10,
    }
    fields = [row.receptive_field[0] for row in rows.values()]
    assert fields == [5, 6, 14, 16, 32, 32, 32]


@pytest.mark.parametrize("size", [28, 32])
def test_lenet5_of_1998(size):
    # LeCun et al. 1998, Section II-B: parameters per layer; C3 has 60 connections of 96; F6 to ten codes of 84.
    summary = summarize(create("lenet5_1998", num_classes=10), (size, size, 1), own_macs=OWN_MACS)
    rows = {path.split("/")[-1]: row for path, row in by_path(summary).items()}
    assert {name: row.parameters for name, row in rows.items()} == {
        **{"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164},
        "head": 0,
    }
    assert {name: row.macs for name, row in rows.items()} == {
        **{"c1": 28 * 28 * 25 * 6, "s2": 0, "c3": 10 * 10 * 25 * 60, "s4": 0, "c5": 400 * 120, "f6": 120 * 84},
        "head": 10 * 84,
    }
    assert [row.receptive_field for row in rows.values()] == [(n, n) for n in (5, 6, 14, 16, 32, 32, 32)]
    assert [row.stride for row in rows.values()] == [(n, n) for n in (1, 2, 2, 4, 4, 0, 0)]


# The strides that `ResNet` documents for its stages: 1, 2, 4 (cifar) and 4, 8, 16, 32 (imagenet).
@pytest.mark.parametrize(
    ("name", "kwargs", "shape", "strides"),
    [
        ("resnet20", {"shortcut": "A"}, (32, 32, 3), (1, 2, 4)),
        ("resnet20", {"shortcut": "B", "norm": "group"}, (32, 32, 3), (1, 2, 4)),
        ("resnet18", {"stem": "cifar"}, (32, 32, 3), (1, 2, 4, 8)),
        ("resnet18", {}, (64, 3), (4, 8, 16, 32)),
        ("resnet20", {}, (16, 16, 16, 3), (1, 2, 4)),
        ("resnet50", {"width": 8, "dtype": "bfloat16"}, (64, 48, 3), (4, 8, 16, 32)),
    ],
)
def test_strides_and_shapes(name, kwargs, shape, strides):
    summary = summarize(create(name, num_classes=10, **kwargs), shape)
    for stage, stride in enumerate(strides, start=1):
        last = [row for row in summary.rows if row.path.startswith(f"backbone/stage{stage}/")][-1]
        assert last.stride == (stride,) * (len(shape) - 1)
        assert last.output_shape[:-1] == tuple(math.ceil(size / stride) for size in shape[:-1])


MODELS = {
    "resnet20": (32, 32, 3),
    "lenet5": (28, 28, 3),
    "lenet5_1998": (32, 32, 3),
    "mlp": (8, 3),
    "plain20": (16, 16, 16, 3),
    "classic_stack": (32, 32, 3),
}


@pytest.mark.parametrize("name", MODELS)
def test_rows_sum_to_the_model(name):
    model = create(name, num_classes=7, in_channels=3)
    summary = summarize(model, MODELS[name])
    variables = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, *MODELS[name])), train=False), jax.random.key(0)
    )
    sizes = {key: sum(leaf.size for leaf in jax.tree.leaves(tree)) for key, tree in variables.items()}
    totals = Totals(sizes["params"], sizes.get("batch_stats", 0), summary.totals.macs)
    assert summary.totals == totals
    assert sum(row.parameters for row in summary.rows) == totals.parameters
    assert sum(row.statistics for row in summary.rows) == totals.statistics
    assert sum(row.macs for row in summary.rows) == totals.macs
    assert all(row.receptive_field is not None for row in summary.rows)


def test_an_activation_with_parameters_has_a_row():
    summary = summarize(create("classic_stack", num_classes=2, in_channels=1, activation="prelu"), (12, 12, 1))
    row = by_path(summary)["backbone/stage1/act"]
    assert (row.kind, row.parameters, row.macs, row.receptive_field) == ("PReLU", 32, 0, (3, 3))


class Twice(nn.Module):
    """Grouped and dilated convolutions, a layer that is called twice, and a parameter beside submodules."""

    @nn.compact
    def __call__(self, x, *, train):
        x = Conv(6, 3, groups=2, dilation=2, name="grouped")(x)
        shared = Conv(6, 3, name="shared")
        x = nn.Dropout(0.5)(shared(shared(x)), deterministic=not train)
        return x * self.param("scale", nn.initializers.ones, (1, 1, 6))


def test_calls_of_a_shared_layer_and_parameters_of_a_parent():
    summary = summarize(Twice(), (10, 4))
    assert [(row.path, row.parameters, row.macs, row.receptive_field) for row in summary.rows] == [
        ("grouped", 3 * 2 * 6 + 6, 10 * 3 * 2 * 6, (5,)),
        ("shared", 3 * 6 * 6 + 6, 10 * 3 * 6 * 6, (7,)),
        ("shared", 0, 10 * 3 * 6 * 6, (9,)),
        ("Twice", 6, 0, (9,)),
    ]
    assert summary.totals.parameters == 42 + 114 + 6


def test_an_image_that_is_too_small_is_an_error():
    with pytest.raises(ImageTooSmallError, match="too small"):
        summarize(create("classic_stack", num_classes=2), (4, 4, 3))
