"""Which form a convolution takes on a CPU, what that costs, and that it keeps to its windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.ops.conv import convolve
from cnn_jax.ops.conv_forms import fold_factor
from cnn_jax.ops.conv_small import is_smaller, sees_whole
from cnn_jax.ops.native import calls
from cnn_jax.ops.native.library import Library

ONES = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "rhs_dilation": (1, 1)}


@pytest.fixture(autouse=True)
def no_library(monkeypatch):
    """These are the forms that XLA compiles where the library does not apply."""
    monkeypatch.setattr(calls, "library", lambda: Library("", "a test of the other forms"))


def inputs(space, window, *, batch=3, channels=4, features=5):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (batch, *space, channels))
    return x, jax.random.normal(keys[1], (*window, channels, features))


def test_a_window_sees_the_whole_image_where_no_pixel_is_left_out():
    assert sees_whole((2, 2), (3, 3), **ONES)
    assert not sees_whole((3, 2), (3, 3), **ONES)  # the first window ends before the last row
    assert sees_whole((3, 2), (5, 3), **{**ONES, "padding": ((2, 2), (1, 1))})
    assert not sees_whole((2, 2), (3, 3), **{**ONES, "padding": ((2, 1), (1, 1))})
    assert not sees_whole((2, 2), (3, 3), **{**ONES, "rhs_dilation": (2, 2), "padding": ((2, 2), (2, 2))})
    assert not sees_whole((2, 2), (3, 3), **{**ONES, "padding": ((0, 0), (1, 1))})  # no result at all


def test_a_window_longer_than_the_image_is_smaller_whatever_its_taps():
    assert is_smaller((4, 9), (3, 3), (2, 1))
    assert not is_smaller((5, 9), (3, 3), (2, 1))
    assert not is_smaller((2, 2), (12, 12), (1, 1))  # too many taps to be written out


@pytest.mark.parametrize(
    ("channels", "features", "stride", "factor"),
    [
        (3, 16, 1, 4),
        (7, 7, 1, 2),
        (8, 16, 1, 2),
        (8, 17, 1, 1),
        (1, 16, 2, 4),
        (3, 16, 2, 2),
        (8, 16, 2, 1),
    ],
)
def test_pixels_move_into_few_channels(channels, features, stride, factor):
    assert fold_factor((2, 9, 9, channels), (3, 3, channels, features), (1, stride), (1, 1)) == factor


def test_no_gradient_of_small_maps_multiplies_the_zeros_of_padding_or_stride():
    def multiplications(space, stride, argument):
        x, kernel = inputs((space, space), (3, 3), batch=64, channels=16, features=16)
        run = functools.partial(convolve, stride=(stride,) * 2, padding=((1, 1), (1, 1)), dilation=(1, 1))

        def loss(*arguments):
            return jnp.sum(run(*arguments) ** 2)

        function = run if argument is None else jax.grad(loss, argnums=argument)
        cost = jax.jit(function).lower(x, kernel).compile().cost_analysis()
        return cost["flops"] / (2 * 64 * 16 * 16)

    # Of 2×2 pixels with as many, 16 products; with a stride of 2 nine taps on each of 2×2 phases, and the forward pass.
    assert multiplications(2, 1, None) < 17
    for argument in (0, 1):
        assert multiplications(2, 1, argument) < 2 * 17
    assert multiplications(4, 2, 0) < 4 * 9 + 4 * 9 + 4


@pytest.mark.parametrize(("space", "stride"), [(2, 1), (2, 2), (4, 2)])
def test_what_is_infinite_stays_within_the_windows_of_small_maps(space, stride):
    geometry = {"stride": (stride,) * 2, "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    x, kernel = inputs((space, space), (3, 3), batch=2, channels=16, features=16)
    run = functools.partial(convolve, **geometry)
    out, transposed = jax.vjp(run, jnp.ones_like(x), jnp.ones_like(kernel))
    backward = {"input": lambda c: transposed(c)[0], "kernel": lambda c: transposed(c)[1]}
    functions = {"forward": (lambda x: run(x, jnp.ones_like(kernel)), x.shape)}
    functions |= {name: (function, out.shape) for name, function in backward.items()}
    if space > 2:
        del functions["kernel"]  # XLA's convolution of a padded image: zeros times infinity.
    for name, (function, shape) in functions.items():
        hot = jnp.zeros(shape).at[0, 0, 0, 3].set(1.0)
        sees = function(hot) > 0
        infinite = function(jnp.where(hot > 0, jnp.inf, 1.0))
        assert bool(jnp.any(sees)), name
        np.testing.assert_array_equal(~jnp.isfinite(infinite), sees, err_msg=name)


@pytest.mark.parametrize("channels", [(4, 5), (9, 10), (12, 11)])
@pytest.mark.parametrize("padding", [((-1, 1), (0, 0)), ((-2, 2), (1, 1)), ((2, -2), (-1, 1))])
def test_an_image_that_is_moved_is_not_taken_as_it_is(channels, padding):
    """XLA's convolution with as much negative padding as positive is wrong on a CPU: here it is no reference."""
    x, kernel = inputs((9, 8), (3, 3), channels=channels[0], features=channels[1])
    geometry = {"stride": (1, 1), "dilation": (1, 1)}
    before = jax.lax.pad(x, 0.0, [(0, 0, 0), *((*edges, 0) for edges in padding), (0, 0, 0)])
    ours = convolve(x, kernel, padding=padding, **geometry)
    np.testing.assert_allclose(ours, convolve(before, kernel, padding=((0, 0),) * 2, **geometry), atol=2e-5)


@pytest.mark.parametrize(
    ("space", "window", "stride", "padding"),
    [((4, 1), (4, 1), (1, 7), ((4, 2), (2, 1))), ((6, 5), (3, 2), (2, 3), ((4, 0), (0, 3)))],
)
def test_padding_beyond_a_strided_window_has_the_gradient_of_forward_mode(space, window, stride, padding):
    # XLA's own gradient reads memory that is not its own here.
    x, kernel = inputs(space, window, channels=3, features=2)
    convolution = functools.partial(convolve, kernel=kernel, stride=stride, padding=padding, dilation=(1, 1))
    out, transposed = jax.vjp(convolution, x)
    cotangent = jax.random.normal(jax.random.key(1), out.shape)
    (gradient,) = jax.jit(transposed)(cotangent)
    jacobian = jax.jacfwd(convolution)(x)
    np.testing.assert_allclose(gradient, jnp.tensordot(cotangent, jacobian, out.ndim), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "window", "stride", "padding"),
    [((4, 4), (12, 12), (1, 1), ((1, 1), (1, 1))), ((2, 2), (5, 2), (13, 11), ((1, 1), (0, 0)))],
)
def test_a_window_that_fits_nowhere_gives_an_empty_map_and_no_gradient(space, window, stride, padding):
    x, kernel = inputs(space, window, channels=3, features=2)
    convolution = functools.partial(convolve, stride=stride, padding=padding, dilation=(1, 1))
    out, transposed = jax.vjp(convolution, x, kernel)
    assert not out.size
    for gradient, argument in zip(jax.jit(transposed)(out), (x, kernel), strict=True):
        np.testing.assert_array_equal(gradient, jnp.zeros_like(argument))
