"""Receptive fields against an oracle that knows no geometry: which outputs become infinite with a row of pixels."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from cnn_jax.methods.receptive_field import UNKNOWN, receptive_fields
from cnn_jax.models import create
from cnn_jax.nn.conv import Conv
from cnn_jax.ops import conv_forms


def field_of(function, image, *others):
    """The field of a function's output, for an image `[B, *space, C]`."""
    traced = jax.make_jaxpr(lambda *arrays: checkpoint_name(function(*arrays), "output"))(image, *others)
    return receptive_fields(traced, 0, range(1, image.ndim - 1))["output"]


@pytest.fixture(autouse=True)
def unfolded(monkeypatch):
    """Infinity times a zero of a folded kernel would be NaN outside of the window."""
    monkeypatch.setattr(conv_forms, "FOLDS", ())


def check_footprint(function, shape, axis=0, units=3):
    """Every output unit whose window lies in the image sees exactly the window's ends; returns the window.

    Only for functions whose output moves over this axis of the image along its own axis of the same number.
    """
    window = field_of(function, jax.ShapeDtypeStruct((1, *shape), jnp.float32))[axis]
    size = shape[axis]
    # Example p has its p-th row of pixels (or column, or slice) infinite. Weights are positive: nothing cancels, and
    # unlike a gradient or a finite change infinity is not lost in a maximum or below the rounding of a sum.
    images = np.ones((size, *shape), np.float32)
    for row in range(size):
        images[(row, *(slice(None),) * axis, row)] = np.inf
    outputs = np.moveaxis(np.asarray(jax.jit(function)(images)), axis + 1, 1)
    sees = (~np.isfinite(outputs)).reshape(size, outputs.shape[1], -1).any(axis=-1)  # [row, unit]
    checked = 0
    for unit in range(outputs.shape[1]):
        first, last = (edge + window.steps[axis + 1] * unit for edge in (window.first, window.last))
        if first >= 0 and last < size:
            rows = np.flatnonzero(sees[:, unit])
            assert (rows[0], rows[-1]) == (first, last), (unit, window)
            checked += 1
    assert checked >= units
    return window


def last_map(name, shape, **kwargs):
    """The last feature map of a model with positive weights, as a function of images."""
    model = create(name, num_classes=2, in_channels=shape[-1], **kwargs)
    features = functools.partial(model.apply, train=False, method="features")
    abstract = jax.eval_shape(
        functools.partial(model.init, train=False),
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, *shape), jnp.float32),
    )
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), abstract)
    return lambda images: list(features(variables, images).values())[-1]


STACKS = [
    # Kernels 3, 3: 5. Kernels 3, 3, 3: 7 (Simonyan & Zisserman 2015, Section 2.3).
    ({"channels": (2, 2), "pool": "none"}, 5, 1),
    ({"channels": (2, 2, 2), "pool": "none"}, 7, 1),
    ({"channels": (2, 2)}, 10, 4),
    ({"channels": (2, 2), "pool": "average", "pool_size": 3}, 3 + 2 + 2 * 3 + 2 * 3, 9),
    ({"channels": (2, 2), "kernel_size": (5, 4), "padding": "same"}, 5 + 1 + 6 + 2, 4),
    ({"channels": (2, 2), "padding": "full", "pool": "none", "stride": 2}, 7, 4),
    ({"channels": (2, 2), "padding": "reflect", "norm": "layer", "pool": "average", "activation": "identity"}, 10, 4),
    ({"channels": (2, 2, 2), "kernel_size": 1, "stride": 2}, 1 + 2 + 8 + 32, 64),
    ({"channels": (2, 2), "norm": "batch", "norm_position": "after", "activation": "gelu"}, 10, 4),
]


@pytest.mark.parametrize(("kwargs", "size", "stride"), STACKS)
def test_stacks(kwargs, size, stride):
    length = 300 if stride == 64 else 64
    window = check_footprint(last_map("classic_stack", (length, 1), **kwargs), (length, 1))
    assert (window.size, window.stride) == (size, stride)


@pytest.mark.parametrize("axis", [0, 1])
def test_axes_of_an_image_are_told_apart(axis):
    # Kernel 3×5, pool 2×3.
    layer = Conv(2, (3, 5), padding="valid")
    variables = {"params": {"kernel": jnp.ones((3, 5, 1, 2)), "bias": jnp.zeros(2)}}

    def function(images):
        return nn.max_pool(layer.apply(variables, images), (2, 3), (2, 3))

    window = check_footprint(function, (14, 20, 1), axis)
    assert (window.size, window.stride) == ((4, 7)[axis], (2, 3)[axis])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_three_axes(axis):
    window = check_footprint(
        last_map("classic_stack", (12, 12, 12, 1), channels=(1, 1)), (12, 12, 12, 1), axis, units=1
    )
    assert (window.size, window.stride) == (10, 4)


@pytest.mark.parametrize(
    ("name", "kwargs", "size", "stride"),
    [
        # Stem 3, then two 3s per block: 2 pixels each at stride 1, 4 behind a stride of 2, 8 behind two (by hand).
        ("resnet_cifar", {"depth": 8, "width": 2, "shortcut": "A"}, 3 + 4 + (2 + 4) + (4 + 8), 4),
        ("resnet_cifar", {"depth": 8, "width": 2, "shortcut": "B"}, 25, 4),
        ("plain20", {"width": 2}, 3 + 12 + (2 + 5 * 4) + (4 + 5 * 8), 4),
        ("resnet20", {"width": 2}, 81, 4),
        ("resnet20", {"width": 2, "norm": "none"}, 81, 4),
        ("lenet5", {"activation": "relu"}, 16, 4),
    ],
)
def test_networks(name, kwargs, size, stride):
    length = 128
    window = check_footprint(last_map(name, (length, 1), **kwargs), (length, 1))
    assert (window.size, window.stride) == (size, stride)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("resnet18", 435), ("resnet50", 427)])
def test_imagenet_networks(name, size):
    window = check_footprint(last_map(name, (640, 1), width=2), (640, 1))
    assert (window.size, window.stride) == (size, 32)


FUNCTIONS = {
    "every second": lambda x: nn.avg_pool(x, (3,), (1,))[:, ::2][:, 1:],
    "patches": lambda x: x.reshape((x.shape[0], -1, 4, 1)).sum(axis=2),
    "folded twice": lambda x: x.reshape((x.shape[0], -1, 2, 2)).max(axis=(2, 3))[..., None],
    "reversed": lambda x: jnp.flip(jnp.flip(x, 1)[:, 2:], 1) + x[:, 2:],
    "shifted sum": lambda x: x[:, 3:] + x[:, :-3],
    "branches": lambda x: jnp.concatenate([x[:, 1:-1], nn.max_pool(x, (3,), (1,))], axis=-1),
    "zeros": lambda x: nn.avg_pool(jnp.pad(x, ((0, 0), (3, 2), (1, 0))), (5,), (2,)),
    "channels first": lambda x: jnp.swapaxes(
        jax.lax.conv_general_dilated(x, jnp.ones((3, 1, 2)), (2,), "VALID", dimension_numbers=("NWC", "WIO", "NCW")),
        1,
        2,
    ),
    "edge": lambda x: nn.avg_pool(jnp.pad(x, ((0, 0), (3, 3), (0, 0)), mode="edge"), (5,), (2,)),
    "reflect": lambda x: nn.avg_pool(jnp.pad(x, ((0, 0), (3, 3), (0, 0)), mode="reflect"), (5,), (2,)),
    "channels split": lambda x: jnp.split(jnp.concatenate([x, nn.avg_pool(x, (3,), (1,), "SAME")], -1), 2, axis=-1)[1],
    "dense": lambda x: nn.avg_pool(x, (3,), (2,)) @ jnp.ones((1, 4)),
    "rematerialised": jax.checkpoint(lambda x: nn.relu(x[:, 1:] + x[:, :-1])),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_primitives(function):
    check_footprint(function, (24, 1))


def test_dilated_convolution():
    layer, kernel = Conv(1, 3, dilation=4, padding="valid", use_bias=False), jnp.ones((3, 1, 1))
    window = check_footprint(lambda x: layer.apply({"params": {"kernel": kernel}}, x), (24, 1))
    assert window.size == 9


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape((1, -1)),
        lambda x: x.mean(axis=(1, 2)),
        lambda x: jnp.einsum("byxc,yx->bc", x, jnp.ones((6, 5))),
    ],
)
def test_what_sees_all_does_not_move(function):
    field = field_of(function, jnp.zeros((1, 6, 5, 2)))
    assert [(window.size, window.stride) for window in field] == [(6, 0), (5, 0)]


def test_a_gate_over_the_whole_image_does_not_widen_the_field():
    def gated(x):
        return nn.avg_pool(x, (3,), (2,)) * nn.sigmoid(x.mean(axis=1, keepdims=True))

    (window,) = field_of(gated, jnp.zeros((1, 9, 2)))
    assert (window.size, window.stride) == (3, 2)


def test_what_is_not_understood_is_unknown():
    assert field_of(lambda x: jnp.sort(x, axis=1) + 1, jnp.zeros((1, 9, 2))) == UNKNOWN
    assert field_of(lambda x: x[:, ::2] + x[:, :5], jnp.zeros((1, 9, 2))) == UNKNOWN
    upsampled = functools.partial(jax.lax.conv_transpose, rhs=jnp.ones((2, 2, 2)), strides=(2,), padding="VALID")
    assert field_of(upsampled, jnp.zeros((1, 9, 2))) == UNKNOWN


def test_what_does_not_depend_on_the_image_has_none():
    assert field_of(lambda _, y: y * 2, jnp.zeros((1, 9, 2)), jnp.zeros(3)) is None
