"""Our convolution against XLA's own: value, both gradients, forward mode, second derivatives and transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.ops.conv import convolve
from cnn_jax.ops.conv_forms import channels_last
from cnn_jax.ops.conv_small import is_dense
from cnn_jax.ops.native import calls
from cnn_jax.ops.native.library import Library, library

# Each: size of the image, the window, the stride, the padding and the dilation, per axis of space.
GEOMETRIES = {
    "1-D": ((11,), (3,), (1,), ((1, 1),), (1,)),
    "1-D, stride beyond the window": ((11,), (2,), (3,), ((0, 0),), (1,)),
    "valid": ((7, 6), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "same, even window": ((7, 6), (4, 2), (1, 1), ((1, 2), (0, 1)), (1, 1)),
    "full": ((5, 4), (3, 3), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    "stride 2, odd and even": ((9, 8), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "stride 2, 1×1": ((9, 8), (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "unequal everything": ((9, 12), (3, 2), (2, 3), ((0, 2), (3, 1)), (2, 1)),
    "dilated and strided": ((12, 11), (3, 3), (2, 2), ((2, 2), (1, 0)), (2, 3)),
    "cropping": ((9, 8), (3, 3), (1, 2), ((-1, 0), (0, -2)), (1, 1)),
    "padding beyond the window": ((3, 3), (2, 2), (1, 1), ((4, 3), (0, 5)), (1, 1)),
    "one pixel": ((1, 1), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "smaller than the window": ((2, 2), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "smaller, along one axis": ((9, 2), (3, 5), (2, 1), ((1, 1), (2, 3)), (1, 1)),
    "smaller, strided": ((2, 3), (5, 4), (2, 3), ((2, 2), (3, 1)), (1, 1)),
    "smaller, dilated": ((4, 3), (3, 2), (1, 2), ((2, 2), (3, 1)), (2, 3)),
    "smaller, cropped on one side": ((4, 4), (5, 3), (1, 1), ((3, -1), (-1, 2)), (1, 1)),
    "smaller, with taps that see zeros alone": ((1, 2), (7, 9), (1, 1), ((3, 3), (4, 4)), (1, 1)),
    "smaller, full": ((2, 2), (3, 3), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    "smaller, one result": ((2, 2), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "smaller, not whole along one axis": ((1, 3), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "smaller cotangent": ((4, 4), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "smaller cotangent, unequal": ((7, 4), (4, 3), (3, 2), ((1, 0), (0, 1)), (1, 1)),
    "smaller cotangent, dilated": ((6, 7), (3, 2), (2, 4), ((2, 1), (1, 1)), (2, 3)),
    "smaller cotangent, phases without taps": ((5, 6), (2, 3), (3, 4), ((-1, 0), (1, -1)), (2, 1)),
    "1-D, smaller": ((2,), (3,), (1,), ((1, 1),), (1,)),
    "3-D, smaller cotangent": ((2, 3, 4), (3, 3, 3), (1, 2, 2), ((1, 1), (1, 1), (1, 1)), (1, 1, 1)),
    "3-D": ((4, 5, 3), (2, 3, 2), (2, 1, 1), ((0, 1), (1, 1), (0, 0)), (1, 1, 2)),
}


def stock(x, kernel, *, stride, padding, dilation, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        stride,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=channels_last(len(stride)),
        feature_group_count=groups,
    )


def inputs(space, window, *, batch=3, channels=4, features=5, groups=1, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (batch, *space, channels), dtype)
    return x, jax.random.normal(keys[1], (*window, channels // groups, features), dtype)


def derivatives(convolution, x, kernel):
    """Everything that must agree, in one program."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(convolution(x, kernel)))

    gradient = jax.grad(loss, argnums=(0, 1))
    tangents = jnp.cos(x), jnp.cos(kernel)

    def squared(x, kernel):
        return sum(jnp.sum(g**2) for g in gradient(x, kernel))

    return {
        "value": convolution(x, kernel),
        "gradients": gradient(x, kernel),
        # Not of the loss: a single sum of both signs may cancel to next to nothing.
        "forward mode": jax.jvp(lambda *primals: jnp.sin(convolution(*primals)), (x, kernel), tangents)[1],
        "forward over reverse": jax.jvp(gradient, (x, kernel), tangents)[1],
        "reverse over reverse": jax.grad(squared, argnums=(0, 1))(x, kernel),
    }


def assert_close(got, expected, bound):
    """Within a bound relative to the largest value, name by name."""
    for name, reference in expected.items():
        for ours, theirs in zip(jax.tree.leaves(got[name]), jax.tree.leaves(reference), strict=True):
            assert ours.dtype == theirs.dtype
            scale = max(float(jnp.abs(theirs).max()), 1e-6)
            difference = float(jnp.abs(ours.astype(jnp.float32) - theirs.astype(jnp.float32)).max())
            derivatives_taken = 2 if " over " in name else 1  # each rounds
            assert difference <= derivatives_taken * bound * scale, (name, difference / scale)


def assert_both_forms_equal_xlas(monkeypatch, x, kernel, bound=2e-6, **geometry):
    """Calls of the library, where there is one, and the forms for XLA's CPU backend."""
    theirs = jax.jit(functools.partial(derivatives, functools.partial(stock, **geometry)))(x, kernel)
    for form in ("library", "XLA") if library().digest else ("XLA",):
        with monkeypatch.context() as patch:
            if form == "XLA":
                patch.setattr(calls, "library", lambda: Library("", "a test of the other forms"))
            ours = jax.jit(functools.partial(derivatives, functools.partial(convolve, **geometry)))(x, kernel)
        assert_close(ours, theirs, bound)


# (channels, features, groups): folded by four, folded by two, as they are, one kernel for each channel.
CHANNELS = {"folded by 4": (4, 5, 1), "folded by 2": (9, 10, 1), "as they are": (12, 11, 1), "depthwise": (4, 4, 4)}


def is_slow(name, channels):
    """Quick ones are a row of each kind of geometry, and of small images two."""
    small = "smaller" in name and (
        name not in ("smaller than the window", "smaller, strided", "smaller cotangent") or channels != "as they are"
    )
    return channels == "depthwise" or small


CASES = [
    pytest.param(name, channels, marks=[pytest.mark.slow] if is_slow(name, channels) else [])
    for name in GEOMETRIES
    for channels in CHANNELS
]


@pytest.mark.parametrize(("name", "channels"), CASES)
def test_values_and_derivatives_equal_those_of_xla(monkeypatch, name, channels):
    space, window, stride, padding, dilation = GEOMETRIES[name]
    channels, features, groups = CHANNELS[channels]
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x, kernel = inputs(space, window, channels=channels, features=features, groups=groups)
    kernel = kernel / 4  # the sine of large numbers would show their rounding
    assert_both_forms_equal_xlas(monkeypatch, x, kernel, **geometry)


ONES = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "rhs_dilation": (1, 1)}


# Each matrix is larger than the kernel, but for the last two, whose windows see as many taps as it has.
@pytest.mark.parametrize(
    ("batch", "space", "stride", "channels", "dense"),
    [(2, 2, 1, 16, True), (1, 2, 1, 16, False), (1, 1, 1, 16, True), (1, 2, 2, 16, True)],
)
def test_dense_and_unfolded_are_equal_on_both_sides_of_the_rule(monkeypatch, batch, space, stride, channels, dense):
    geometry = {"stride": (stride,) * 2, "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    x, kernel = inputs((space, space), (3, 3), batch=batch, channels=channels, features=channels)
    kernel = kernel / 4
    assert is_dense(x.shape, kernel.shape, **{**ONES, "window_strides": geometry["stride"]}) == dense
    assert_both_forms_equal_xlas(monkeypatch, x, kernel, **geometry)


@pytest.mark.parametrize("shape", [(0, 2, 2, 3), (0, 4, 4, 3), (2, 1, 0, 3), (2, 0, 0, 3)])
@pytest.mark.parametrize("padding", [0, 1])
def test_empty_maps_and_batches_are_those_of_xla(shape, padding):
    geometry = {"stride": (2, 1), "padding": ((padding, padding),) * 2, "dilation": (1, 1)}
    x, kernel = jnp.ones(shape), jnp.ones((3, 3, 3, 5))
    results = []
    for convolution in (convolve, stock):
        out, transposed = jax.vjp(functools.partial(convolution, **geometry), x, kernel)
        results.append((out, *transposed(jnp.ones_like(out))))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(jnp.bfloat16, 0.03), pytest.param(jnp.float16, 0.005, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("space", "stride"), [(6, 1), (2, 1), (4, 2)])
def test_half_precision_keeps_its_type(dtype, bound, space, stride):
    x, kernel = inputs((space, space), (3, 3), dtype=dtype)
    geometry = {"stride": (stride, stride), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    ours = derivatives(functools.partial(convolve, **geometry), x, kernel)
    theirs = derivatives(functools.partial(stock, **geometry), x, kernel)
    for name in ("value", "gradients"):
        assert_close({name: ours[name]}, {name: theirs[name]}, bound)


# Rows of the result: one sum of all, two of 16, and three of 13, the last of which has two rows less.
@pytest.mark.slow
@pytest.mark.parametrize("rows", [5, 32, 37])
def test_a_large_batch_of_a_depthwise_convolution_is_summed_in_parts(monkeypatch, rows):
    x, kernel = inputs((rows, 6), (3, 3), batch=48, features=4, groups=4)
    geometry = {"stride": (1, 2), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 4}
    assert_both_forms_equal_xlas(monkeypatch, x, kernel, **geometry)


def test_the_gradient_of_a_large_depthwise_convolution_is_not_written_out_row_by_row():
    def equations(rows):
        x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, rows, 6, 4), (3, 3, 1, 4)))
        run = functools.partial(convolve, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=4)
        gradient = jax.grad(lambda x, kernel: run(x, kernel).sum(), argnums=1)
        return jax.jit(gradient).lower(x, kernel).as_text().count("\n")

    assert equations(1_021) <= 1.2 * equations(16)  # 1,021 is prime


def test_the_gradient_of_a_kernel_with_full_padding_is_not_written_out_pixel_by_pixel():
    def lines(size):
        x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, size, size, 12), (3, 3, 12, 11)))
        run = functools.partial(convolve, stride=(1, 1), padding=((2, 2), (2, 2)), dilation=(1, 1))
        gradient = jax.grad(lambda x, kernel: run(x, kernel).sum(), argnums=1)
        return jax.jit(gradient).lower(x, kernel).as_text().count("\n")

    assert lines(100) <= 1.2 * lines(20)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_do_not_see_each_other(groups):
    x, kernel = inputs((6, 5), (3, 3), features=8, groups=groups)
    geometry = {"stride": (2, 1), "padding": ((1, 1), (0, 0)), "dilation": (1, 1)}
    out = convolve(x, kernel, groups=groups, **geometry)
    parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1))
    expected = jnp.concatenate([convolve(images, window, **geometry) for images, window in parts], axis=-1)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


GEOMETRY = {"stride": (2, 1), "padding": ((1, 1), (0, 2)), "dilation": (1, 2)}


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (2, 1)])
def test_vmap_equals_a_loop(axes):
    x, kernel = inputs((6, 7), (3, 2))
    kernel = kernel / 4  # the sine of large numbers would show their rounding
    xs = x if axes[0] is None else jnp.stack([x, 2 * x, -x], axis=axes[0])
    kernels = kernel if axes[1] is None else jnp.stack([kernel, kernel**2, 3 * kernel], axis=axes[1])

    def gradients(x, kernel):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(convolve(*a, **GEOMETRY))), argnums=(0, 1))(x, kernel)

    mapped = jax.vmap(gradients, in_axes=axes)(xs, kernels)
    for i in range(3):
        one = gradients(
            x if axes[0] is None else jnp.take(xs, i, axes[0]),
            kernel if axes[1] is None else jnp.take(kernels, i, axes[1]),
        )
        for got, expected in zip(mapped, one):
            np.testing.assert_allclose(got[i], expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))


def test_vmap_of_the_gradients_of_an_empty_map_gives_zeros():
    x, kernel = jnp.ones((2, 3, 2, 2, 4)), jnp.ones((3, 3, 4, 5))
    run = functools.partial(convolve, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
    gradients = jax.vmap(jax.grad(lambda *a: jnp.sum(run(*a)), argnums=(0, 1)), (0, None))(x, kernel)
    assert [g.shape for g in gradients] == [x.shape, (2, *kernel.shape)]
    assert not any(map(jnp.any, gradients))


def test_scan_checkpoint_and_linearize():
    x, kernel = inputs((6, 7), (3, 2))

    def loss(convolution, x, kernel):
        return jnp.sum(jnp.sin(convolution(x, kernel, **GEOMETRY)))

    def descend(convolution):
        def step(kernel, _):
            gradient = jax.grad(jax.checkpoint(functools.partial(loss, convolution)), argnums=1)(x, kernel)
            return kernel - 0.01 * gradient, None

        return jax.lax.scan(step, kernel, None, length=4)[0]

    np.testing.assert_allclose(descend(convolve), descend(stock), rtol=1e-4, atol=1e-5)
    linear = [jax.linearize(functools.partial(loss, c), x, kernel)[1](x, kernel) for c in (convolve, stock)]
    np.testing.assert_allclose(*linear, rtol=1e-4)


def test_gradients_are_calls_or_plain_convolutions_on_a_cpu_and_elsewhere_xlas_own(monkeypatch):
    x, kernel = inputs((6, 6), (3, 3))

    def dimension_numbers(platform):
        gradient = jax.jit(jax.grad(lambda k: jnp.sum(convolve(x, k, **GEOMETRY) ** 2)))
        text = gradient.trace(kernel).lower(lowering_platforms=(platform,)).as_text()
        return {
            line.partition("dim_numbers = ")[2].partition(",  window")[0].partition(", window")[0]
            for line in text.splitlines()
            if "stablehlo.convolution" in line
        }

    if library().digest:
        assert not dimension_numbers("cpu")
    monkeypatch.setattr(calls, "library", lambda: Library("", "a test of the other forms"))
    assert dimension_numbers("cpu") == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert len(dimension_numbers("cuda")) == 2


@pytest.mark.parametrize(("space", "window"), [((6, 6), (3, 3)), ((2, 2), (3, 3))])
def test_a_batch_over_devices_needs_one_reduction_and_no_gather(space, window):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    divided = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    geometry = (
        GEOMETRY if space == (6, 6) else {**GEOMETRY, "stride": (1, 1), "padding": ((1, 1),) * 2, "dilation": (1, 1)}
    )
    x, kernel = inputs(space, window, batch=16)

    def gradient(x, kernel):
        return jax.grad(lambda k: jnp.sum(convolve(x, k, **geometry) ** 2))(kernel)

    compiled = jax.jit(gradient, in_shardings=(divided, whole), out_shardings=whole).lower(x, kernel).compile()
    text = compiled.as_text()
    assert text.count(" all-reduce(") == 1
    assert not any(f" {name}(" in text for name in ("all-gather", "all-to-all", "collective-permute"))
    np.testing.assert_allclose(compiled(x, kernel), gradient(x, kernel), rtol=1e-4, atol=1e-4)
