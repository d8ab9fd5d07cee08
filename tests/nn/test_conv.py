"""Convolution against SciPy's correlation and NumPy's padding, for every padding, stride, dilation and grouping."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.nn.blocks import ConvNormAct
from cnn_jax.nn.conv import Conv, he_fan_in, he_fan_out


def correlate(image, kernel, mode="valid"):
    """`[*space, C]` with `[*k, C, F]` -> `[*out, F]` in float64, one SciPy call per pair of channels."""
    image, kernel = image.astype(np.float64), kernel.astype(np.float64)
    maps = [
        sum(scipy.signal.correlate(image[..., c], kernel[..., c, f], mode=mode) for c in range(image.shape[-1]))
        for f in range(kernel.shape[-1])
    ]
    return np.stack(maps, axis=-1)


def random_arrays(space, kernel_size, channels=2, features=3):
    generator = np.random.default_rng(0)
    image = generator.standard_normal((*space, channels), dtype=np.float32)
    kernel = generator.standard_normal((*kernel_size, channels, features), dtype=np.float32)
    return image, kernel


def apply(layer, image, kernel):
    params = {"kernel": jnp.asarray(kernel)}
    return np.asarray(layer.apply({"params": params}, jnp.asarray(image)[None])[0])


def test_worked_example_of_cross_correlation():
    # numbers.md, "Worked examples"
    image = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9]])[..., None]
    kernel = np.float32([[1, 0], [0, -1]])[..., None, None]
    y = apply(Conv(1, 2, padding="valid", use_bias=False), image, kernel)
    np.testing.assert_array_equal(y[..., 0], [[-4, -4], [-4, -4]])


def test_worked_example_of_a_parameter_count():
    # numbers.md: 3×3 from 64 to 128 channels with bias
    shapes = jax.eval_shape(Conv(128, 3).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 64), jnp.float32))
    assert {name: leaf.shape for name, leaf in shapes["params"].items()} == {"kernel": (3, 3, 64, 128), "bias": (128,)}
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 73_856


@pytest.mark.parametrize("space", [(9,), (9, 8), (6, 5, 7)], ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("padding", ["valid", "same", "full"])
def test_padding_equals_scipy(padding, space):
    image, kernel = random_arrays(space, (3,) * len(space))
    y = apply(Conv(3, 3, padding=padding, use_bias=False), image, kernel)
    np.testing.assert_allclose(y, correlate(image, kernel, mode=padding), atol=1e-5)


# Pixels before and after, typed from the definitions: "same" and "reflect" add k - 1 in all, the smaller half first.
PADS = [
    ("same", (3, 3), 1, ((1, 1), (1, 1))),
    ("same", (5, 2), 1, ((2, 2), (0, 1))),
    ("same", (4, 1), 1, ((1, 2), (0, 0))),
    ("same", (3, 3), 2, ((2, 2), (2, 2))),
    ("reflect", (3, 5), 1, ((1, 1), (2, 2))),
    ("reflect", (4, 3), 2, ((3, 3), (2, 2))),
    ("full", (3, 2), 1, ((2, 2), (1, 1))),
    ("full", (2, 3), 2, ((2, 2), (4, 4))),
    (2, (3, 5), 1, ((2, 2), (2, 2))),
    ("valid", (3, 2), 2, ((0, 0), (0, 0))),
]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("padding", "kernel_size", "dilation", "pads"), PADS)
def test_padding_stride_and_dilation_equal_numpy_pad(padding, kernel_size, dilation, pads, stride):
    image, kernel = random_arrays((10, 9), kernel_size)
    spread = np.zeros((*(dilation * (k - 1) + 1 for k in kernel_size), *kernel.shape[2:]), np.float32)
    spread[::dilation, ::dilation] = kernel
    padded = np.pad(image, (*pads, (0, 0)), mode="reflect" if padding == "reflect" else "constant")
    expected = correlate(padded, spread)[::stride, ::stride]
    layer = Conv(3, kernel_size, stride=stride, padding=padding, dilation=dilation, use_bias=False)
    np.testing.assert_allclose(apply(layer, image, kernel), expected, atol=1e-5)
    if padding in ("same", "reflect"):
        assert expected.shape[:2] == (-(-10 // stride), -(-9 // stride))


@pytest.mark.parametrize(
    ("space", "stride"), [((9,), (2,)), ((10, 9), (2, 3)), ((9, 8), (1, 2)), ((5, 6, 7), (1, 2, 3))]
)
def test_a_stride_for_each_axis(space, stride):
    image, kernel = random_arrays(space, (3,) * len(space))
    expected = correlate(image, kernel, mode="same")[tuple(slice(None, None, step) for step in stride)]
    y = apply(Conv(3, 3, stride=stride, use_bias=False), image, kernel)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert y.shape[:-1] == tuple(-(-n // step) for n, step in zip(space, stride, strict=True))


def test_stride_two_same_is_torch_and_not_xla():
    image, kernel = random_arrays((8, 8), (3, 3))
    ours = apply(Conv(3, 3, stride=2, padding="same", use_bias=False), image, kernel)
    torch = apply(Conv(3, 3, stride=2, padding=1, use_bias=False), image, kernel)
    xla = jax.lax.conv_general_dilated(image[None], kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[
        0
    ]
    np.testing.assert_array_equal(ours, torch)
    assert ours.shape == xla.shape
    assert np.abs(ours - np.asarray(xla)).max() > 0.1


def test_groups_see_only_their_channels():
    image, _ = random_arrays((6, 6), (3, 3), channels=4)
    kernel = np.random.default_rng(1).standard_normal((3, 3, 2, 6), dtype=np.float32)
    y = apply(Conv(6, 3, padding="valid", groups=2, use_bias=False), image, kernel)
    expected = [correlate(image[..., :2], kernel[..., :3]), correlate(image[..., 2:], kernel[..., 3:])]
    np.testing.assert_allclose(y, np.concatenate(expected, axis=-1), atol=1e-5)


def test_bias_is_added_per_output_channel():
    image, kernel = random_arrays((4, 4), (1, 1))
    bias = jnp.float32([1.0, -2.0, 3.0])
    with_bias = Conv(3, 1).apply({"params": {"kernel": kernel, "bias": bias}}, jnp.asarray(image)[None])[0]
    without = apply(Conv(3, 1, use_bias=False), image, kernel)
    np.testing.assert_allclose(with_bias - without, np.broadcast_to(bias, without.shape), atol=1e-6)


def test_the_bias_starts_as_told():
    params = Conv(3, 1, bias_init=jax.nn.initializers.constant(2.0)).init(jax.random.key(0), jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(params["params"]["bias"], [2.0, 2.0, 2.0])


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters():
    layer = Conv(3, 3, dtype="bfloat16")
    y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, 4, 4, 2)))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_he_initial_variances():
    # He et al. 2015: 2 / fan-in (Eq. 10) and 2 / fan-out (Eq. 14) for a 3×3 kernel from 32 to 64 channels
    for initializer, fan in ((he_fan_in, 9 * 32), (he_fan_out, 9 * 64)):
        values = np.asarray(initializer(jax.random.key(0), (3, 3, 32, 64)))
        np.testing.assert_allclose(values.var(), 2 / fan, rtol=0.05)


SMALL = [
    (Conv(1, 5, padding="valid"), (4, 8), "'Conv' gets an image of 4×8 pixels, too small for its kernel of 5×5"),
    (Conv(1, 3, padding="valid", dilation=2), (4, 4), "dilation 2"),
    (Conv(1, 7, padding="reflect"), (3, 9), "padding 'reflect'"),
    (Conv(1, 5, padding=1), (2, 5), "padding 1"),
]


@pytest.mark.parametrize(("layer", "space", "message"), SMALL)
def test_too_small_images(layer, space, message):
    x = jax.ShapeDtypeStruct((1, *space, 1), jnp.float32)
    with pytest.raises(ImageTooSmallError, match=message) as caught:
        jax.eval_shape(layer.init, jax.random.key(0), x)
    assert "\n" not in str(caught.value)


def test_smallest_images_that_work():
    for layer, space, out in (
        (Conv(1, 5, padding="valid"), (5, 5), (1, 1, 1, 1)),
        (Conv(1, 7, padding="reflect"), (4, 4), (1, 4, 4, 1)),
    ):
        x = jax.ShapeDtypeStruct((1, *space, 1), jnp.float32)
        assert jax.eval_shape(layer.init_with_output, jax.random.key(0), x)[0].shape == out


def test_the_error_has_the_path_of_the_layer():
    block = ConvNormAct(1, 3, padding="valid", name="stage7")
    with pytest.raises(ImageTooSmallError, match="layer 'conv'"):
        block.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)), train=False)


BAD = [
    (Conv(1, 3, padding="smae"), "unknown padding 'smae'; did you mean 'same'"),
    (Conv(1, 3, padding=-1), "padding is -1"),
    (Conv(1, (3, 3, 3)), "kernel_size .* has 3 entries, but the input has 2 spatial axes"),
    (Conv(1, 0), "kernel_size is 0"),
    (Conv(1, 3, stride=0), "stride is 0"),
    (Conv(1, 3, stride=(1, 0)), r"stride is \(1, 0\); it must be 1 or more"),
    (Conv(1, 3, stride=(1, 2, 2)), "stride .* has 3 entries, but the input has 2 spatial axes"),
    (Conv(0, 3), "features is 0"),
    (Conv(3, 3, groups=2), "groups=2 must divide its 4 input and 3 output channels"),
]


@pytest.mark.parametrize(("layer", "message"), BAD)
def test_bad_arguments(layer, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(layer.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32))


def test_orders_of_a_block():
    x = jax.random.normal(jax.random.key(0), (4, 5, 5, 2))
    outputs = {}
    for order in ("conv_norm_act", "conv_act_norm"):
        block = ConvNormAct(3, 3, norm="batch", order=order)
        variables = block.init(jax.random.key(1), x, train=True)
        outputs[order], _ = block.apply(variables, x, train=True, mutable=["batch_stats"])
    # Behind the activation nothing is negative; behind the norm every channel has mean 0.
    assert float(outputs["conv_norm_act"].min()) == 0.0
    np.testing.assert_allclose(outputs["conv_act_norm"].mean(axis=(0, 1, 2)), 0, atol=1e-5)
    with pytest.raises(UserError, match="unknown order"):
        jax.eval_shape(functools.partial(ConvNormAct(3, 3, order="act_conv").init, train=False), jax.random.key(0), x)
