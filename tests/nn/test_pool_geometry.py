"""Pools that round up, and adaptive ones, against loops over torch's definitions, at odd and even sizes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.nn.pool import AdaptiveAveragePool, AveragePool, MaxPool


def outputs(n, window, stride, padding, ceil_mode):
    """torch: a window that starts behind the image and its leading padding is dropped."""
    steps = (n + 2 * padding - window) / stride
    count = (math.ceil(steps) if ceil_mode else math.floor(steps)) + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= n + padding else count


def pooled(image, windows, strides, padding, *, ceil_mode):
    """(maxima, means that count padding, means that do not) of `[*space, C]` in float64."""
    space = image.shape[:-1]
    out = [outputs(*axis, padding, ceil_mode) for axis in zip(space, windows, strides, strict=True)]
    results = np.zeros((3, *out, image.shape[-1]))
    for position in itertools.product(*map(range, out)):
        starts = [i * stride - padding for i, stride in zip(position, strides, strict=True)]
        ends = [start + window for start, window in zip(starts, windows, strict=True)]
        where = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(starts, ends, space, strict=True))
        inside = image[where].reshape(-1, image.shape[-1]).astype(np.float64)  # [*window, C] -> [pixels, C]
        # What is beyond the padding does not count: it is there only because of the rounding.
        counted = math.prod(min(b, n + padding) - a for a, b, n in zip(starts, ends, space, strict=True))
        results[(0, *position)] = inside.max(axis=0)
        results[(1, *position)] = inside.sum(axis=0) / counted
        results[(2, *position)] = inside.mean(axis=0)
    return results


GEOMETRIES = [
    # space, window, stride
    ((7,), (3,), (2,)),
    ((8,), (3,), (2,)),
    ((4,), (2,), (3,)),  # With padding, rounding up would start a window behind the image.
    ((8, 9), (2, 3), (3, 2)),
    ((7, 6), (3, 2), (1, 3)),
    ((5, 6, 7), (3, 2, 3), (2, 2, 3)),
]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("space", "window", "stride"), GEOMETRIES)
def test_pools_equal_loops_over_their_windows(space, window, stride, padding, ceil_mode):
    # Negative: a zero of the padding would win a maximum.
    image = (np.random.default_rng(0).standard_normal((*space, 2)) - 5).astype(np.float32)

    @jax.jit
    def run(x):
        geometry = {"window": window, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        pools = MaxPool(**geometry), AveragePool(**geometry), AveragePool(**geometry, count_include_pad=False)
        return [pool.apply({}, x)[0] for pool in pools]

    largest, with_padding, without = run(jnp.asarray(image)[None])
    expected = pooled(image, window, stride, padding, ceil_mode=ceil_mode)
    np.testing.assert_array_equal(largest, expected[0].astype(np.float32))
    np.testing.assert_allclose(with_padding, expected[1], rtol=1e-5)
    np.testing.assert_allclose(without, expected[2], rtol=1e-5)


def test_rounding_up_keeps_what_rounding_down_drops():
    x = jnp.arange(8.0).reshape(1, 8, 1)
    np.testing.assert_array_equal(MaxPool(3, 2).apply({}, x)[0, :, 0], [2, 4, 6])
    np.testing.assert_array_equal(MaxPool(3, 2, ceil_mode=True).apply({}, x)[0, :, 0], [2, 4, 6, 7])
    np.testing.assert_array_equal(AveragePool(3, 2, ceil_mode=True).apply({}, x)[0, :, 0], [1, 3, 5, 6.5])


@pytest.mark.parametrize("pool", [MaxPool, AveragePool])
def test_one_window_may_hold_a_smaller_image_when_rounding_up(pool):
    x = jnp.full((1, 2, 2, 1), -4.0)
    np.testing.assert_array_equal(pool(3, 2, ceil_mode=True).apply({}, x), [[[[-4.0]]]])
    for shape in ((1, 1, 2, 1), (1, 0, 2, 1)):  # torch: "output size is too small"
        with pytest.raises(ImageTooSmallError, match="too small for its kernel of 3×3"):
            pool(3, 2, ceil_mode=True).apply({}, jnp.zeros(shape))
    with pytest.raises(ImageTooSmallError, match="too small for its kernel of 3×3"):
        pool(3, 2).apply({}, x)


def test_the_gradient_of_a_window_that_reaches_beyond_the_image():
    x = jnp.array([1.0, 5.0, 2.0, 3.0]).reshape(1, 4, 1)
    weights = jnp.array([10.0, 100.0]).reshape(1, 2, 1)
    for pool, expected in (
        (MaxPool(3, 2, ceil_mode=True), [0, 10, 0, 100]),
        (AveragePool(3, 2, ceil_mode=True), [10 / 3, 10 / 3, 10 / 3 + 50, 50]),
    ):
        gradient = jax.grad(lambda x, pool=pool: jnp.sum(weights * pool.apply({}, x)))(x)
        np.testing.assert_allclose(gradient[0, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("space", "bins"),
    [((13,), 7), ((14,), 7), ((6,), 6), ((5,), 1), ((1,), 6), ((3, 8), 7), ((13, 6), 6), ((3, 4, 5), 2)],
)
def test_adaptive_means_are_those_of_torchs_bins(space, bins):
    image = np.random.default_rng(0).standard_normal((*space, 3), dtype=np.float32)
    expected = np.zeros((*(bins,) * len(space), 3))
    for position in itertools.product(range(bins), repeat=len(space)):
        # torch: bin i of o on n pixels is [floor(i n / o), ceil((i + 1) n / o))
        where = tuple(
            slice(math.floor(i * n / bins), math.ceil((i + 1) * n / bins)) for i, n in zip(position, space, strict=True)
        )
        expected[position] = image[where].reshape(-1, 3).astype(np.float64).mean(axis=0)  # [*bin, C] -> [pixels, C]
    y = jax.jit(lambda x: AdaptiveAveragePool(bins).apply({}, x))(jnp.asarray(image)[None])
    np.testing.assert_allclose(y[0], expected, rtol=1e-5, atol=1e-6)


def test_adaptive_errors():
    with pytest.raises(UserError, match="output_size is 0"):
        AdaptiveAveragePool(0).apply({}, jnp.ones((1, 4, 1)))
    with pytest.raises(ImageTooSmallError, match="an image without pixels"):
        AdaptiveAveragePool(2).apply({}, jnp.ones((1, 4, 0, 1)))
