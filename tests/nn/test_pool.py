"""Pooling against windows cut out with NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.nn.pool import AveragePool, GlobalAveragePool, L2Pool, MaxPool


def windows(image, window, stride, pads, fill):
    """Every window of `[*space, C]` padded with `fill`: (shape of the output's space, list of `[*window, C]`)."""
    padded = np.pad(image, (*pads, (0, 0)), constant_values=fill)
    sizes = [(n - k) // s + 1 for n, k, s in zip(padded.shape, window, stride, strict=False)]
    cut = []
    for position in itertools.product(*map(range, sizes)):
        where = tuple(slice(i * s, i * s + k) for i, s, k in zip(position, stride, window, strict=True))
        cut.append(padded[where])
    return sizes, cut


def test_worked_example():
    # numbers.md: 2×2 max pooling, stride 2
    x = jnp.float32([[1, 2], [3, 4]])[None, ..., None]
    np.testing.assert_array_equal(MaxPool(2).apply({}, x), [[[[4]]]])


CASES = [
    # space, window, stride (None: the window), padding, pads
    ((7,), 2, None, "valid", ((0, 0),)),
    ((8, 7), 3, 2, 1, ((1, 1), (1, 1))),
    ((8, 7), 3, 2, "same", ((1, 1), (1, 1))),
    ((6, 7), 2, 2, "same", ((0, 1), (0, 1))),
    ((9, 7), (3, 2), None, "valid", ((0, 0), (0, 0))),
    ((4, 5, 6), 2, 1, "valid", ((0, 0), (0, 0), (0, 0))),
]


@pytest.mark.parametrize(("space", "window", "stride", "padding", "pads"), CASES)
def test_pools_equal_numpy(space, window, stride, padding, pads):
    image = (np.random.default_rng(0).standard_normal((*space, 2)) - 5).astype(
        np.float32
    )  # negative: 0 would win a max
    size = (window,) * len(space) if isinstance(window, int) else window
    step = size if stride is None else (stride,) * len(space)
    axes = tuple(range(len(space)))
    x = jnp.asarray(image)[None]
    out, cut = windows(image, size, step, pads, -np.inf)
    expected = np.reshape([w.max(axis=axes) for w in cut], (*out, 2))
    np.testing.assert_array_equal(MaxPool(window, stride, padding).apply({}, x)[0], expected)
    _, cut = windows(image, size, step, pads, np.nan)
    inside = np.reshape([np.nanmean(w, axis=axes) for w in cut], (*out, 2))
    y = AveragePool(window, stride, padding, count_include_pad=False).apply({}, x)[0]
    np.testing.assert_allclose(y, inside, rtol=1e-5)
    _, cut = windows(image, size, step, pads, 0.0)
    everywhere = np.reshape([w.mean(axis=axes) for w in cut], (*out, 2))
    np.testing.assert_allclose(AveragePool(window, stride, padding).apply({}, x)[0], everywhere, rtol=1e-5)
    roots = np.reshape([np.sqrt(np.mean(w**2, axis=axes)) for w in cut], (*out, 2))
    np.testing.assert_allclose(L2Pool(window, stride, padding).apply({}, x)[0], roots, rtol=1e-5)


def test_l2_pool_has_a_gradient_at_zero():
    # d √((x² + y²) / 2) / dx = x / (2 √((x² + y²) / 2)): with 3 and 4 that is 3 / (2 √12.5); zeros get zero.
    x = jnp.float32([3, 4, 0, 0])[None, :, None]
    gradient = jax.grad(lambda x: L2Pool(2).apply({}, x).sum())(x)[0, :, 0]
    np.testing.assert_allclose(gradient, [3 / (2 * 12.5**0.5), 4 / (2 * 12.5**0.5), 0, 0], rtol=1e-6)
    assert L2Pool(2).apply({}, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("space", [(), (5,), (4, 3), (2, 3, 4)])
def test_global_average_pool(space):
    x = jax.random.normal(jax.random.key(0), (2, *space, 3))
    expected = np.asarray(x, np.float64).reshape(2, -1, 3).mean(axis=1)
    np.testing.assert_allclose(GlobalAveragePool().apply({}, x), expected, atol=1e-6)
    assert GlobalAveragePool().apply({}, x.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("pool", [MaxPool, AveragePool, L2Pool])
def test_errors(pool):
    x = jnp.ones((1, 2, 2, 1))
    layer = "squares" if pool is L2Pool else pool.__name__
    with pytest.raises(ImageTooSmallError, match=f"'{layer}' gets an image of 2×2 pixels.* kernel of 3×3"):
        pool(3).apply({}, x)
    with pytest.raises(UserError, match="pool padding is 2; it must be at most half the window"):
        pool(3, padding=2).apply({}, x)
    with pytest.raises(UserError, match="unknown pool padding 'full'"):
        pool(2, padding="full").apply({}, x)
    with pytest.raises(UserError, match="pool stride is 0"):
        pool(2, stride=0).apply({}, x)


CEIL_SIZES = [
    # size, window, stride, windows by torch's pooling_output_shape: 0 is an error there too
    *((1, 2, 2, 1), (2, 3, 2, 1), (1, 3, 2, 0), (3, 3, 2, 1), (4, 3, 2, 2), (5, 3, 2, 2), (8, 3, 2, 4), (3, 2, 2, 2)),
]


@pytest.mark.parametrize(("size", "window", "stride", "expected"), CEIL_SIZES)
def test_ceil_mode_holds_all_of_the_image(size, window, stride, expected):
    image = jnp.asarray(np.random.default_rng(0).standard_normal((1, size, 1), dtype=np.float32) - 5)
    pool = MaxPool(window, stride, ceil_mode=True)
    if expected == 0:
        with pytest.raises(ImageTooSmallError, match=f"image of {size} pixels.* kernel of {window}"):
            pool.apply({}, image)
        return
    cut = [image[:, start : start + window].max(axis=1) for start in range(0, expected * stride, stride)]
    np.testing.assert_array_equal(pool.apply({}, image), np.stack(cut, axis=1))
