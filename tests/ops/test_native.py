"""The compiled library of convolutions: equal to XLA's at every edge of blocks and panels, on any number of threads."""

import concurrent.futures
import functools
import os
import shutil
import subprocess
import sys

import hypothesis
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from cnn_jax.ops.conv import convolve
from cnn_jax.ops.conv_forms import channels_last
from cnn_jax.ops.native import library as library_module
from cnn_jax.ops.native.library import FOLDER, library

has_compiler = bool(os.environ.get("CXX")) or any(map(shutil.which, library_module.COMPILERS))
pytestmark = pytest.mark.skipif(not has_compiler, reason="there is no C++ compiler")


def test_where_there_is_a_compiler_there_is_a_library():
    assert library().digest, library().reason


def stock(x, kernel, *, stride, padding, dilation):
    numbers = channels_last(len(stride))
    return jax.lax.conv_general_dilated(
        x, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=numbers, precision="highest"
    )


def result_and_gradients(convolution, x, kernel, **geometry):
    """All that the library computes, in one program."""

    def all_of_them(x, kernel):
        out, transposed = jax.vjp(functools.partial(convolution, **geometry), x, kernel)
        return out, *transposed(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))  # [N] -> out

    return jax.jit(all_of_them)(x, kernel)


def inputs(space, window, batch, channels, features):
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, *space, channels), np.float32)
    return jnp.asarray(x), jnp.asarray(random.standard_normal((*window, channels, features), np.float32))


def assert_equal_to_xla(space, window, *, batch=2, channels=7, features=9, **geometry):
    rank = len(space)
    geometry = {"stride": (1,) * rank, "padding": ((1, 1),) * rank, "dilation": (1,) * rank} | geometry
    x, kernel = inputs(space, window, batch, channels, features)
    ours = result_and_gradients(convolve, x, kernel, **geometry)
    theirs = result_and_gradients(stock, x, kernel, **geometry)
    for name, got, expected in zip(("result", "input", "kernel"), ours, theirs, strict=True):
        bound = 3e-6 * max(1e-6, float(jnp.abs(expected).max()))
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound, err_msg=name)


# Vectors have 4, 8 or 16 numbers, panels twice as many, tiles 6 or 8 rows; images are unfolded below 6 channels.
@pytest.mark.parametrize("channels", [1, 3, 5, 6, 8, 13, 33])
def test_every_number_of_channels(channels):
    assert_equal_to_xla((6, 5), (3, 3), channels=channels, features=channels + 2)


@pytest.mark.parametrize("features", [1, 8, 10, 16, 17, 31, 32, 47, 65])
def test_every_width_of_the_last_panel(features):
    assert_equal_to_xla((4, 5), (3, 2), features=features)


# A block has 256 pixels: parts of an image, or several images, the last of which may be fewer.
@pytest.mark.parametrize(
    ("space", "window", "batch"),
    [
        ((40, 33), (3, 3), 2),
        ((600,), (3,), 2),
        ((2, 300), (3, 3), 1),
        ((300, 2), (3, 3), 1),
        ((3, 21, 17), (2, 3, 3), 1),
        ((9, 11, 8), (3, 1, 3), 2),
        ((4, 4), (3, 3), 37),
        ((1, 1), (3, 3), 300),
        ((17, 16), (5, 5), 3),
    ],
)
@pytest.mark.parametrize("channels", [3, 6])
def test_blocks_of_rows_and_of_images(space, window, batch, channels):
    assert_equal_to_xla(space, window, batch=batch, channels=channels, features=5)


GEOMETRIES = strategies.integers(1, 3).flatmap(
    lambda rank: strategies.lists(
        strategies.tuples(
            strategies.integers(1, 9),  # pixels
            strategies.integers(1, 4),  # taps
            strategies.integers(1, 4),  # stride
            strategies.integers(1, 3),  # dilation
            strategies.integers(-2, 6),  # padding
            strategies.integers(-2, 6),
        ),
        min_size=rank,
        max_size=rank,
    )
)


def check(axes, batch, channels, features):
    pixels, window, stride, dilation, before, after = zip(*axes, strict=True)
    # Cropping leaves a pixel at least: XLA takes no padding that leaves less than none.
    hypothesis.assume(all(n + min(b, 0) + min(a, 0) > 0 for n, b, a in zip(pixels, before, after, strict=True)))
    reach = (d * (k - 1) + 1 for d, k in zip(dilation, window, strict=True))
    hypothesis.assume(all(n + b + a >= r for n, b, a, r in zip(pixels, before, after, reach, strict=True)))
    # XLA's own convolution and its transposes are wrong where positive padding meets negative, see `conv_forms.stock`.
    hypothesis.assume(all((b >= 0) == (a >= 0) for b, a in zip(before, after, strict=True)))
    hypothesis.assume(all(b < d * k for b, d, k in zip(before, dilation, window, strict=True)))
    hypothesis.assume(all(a < d * k for a, d, k in zip(after, dilation, window, strict=True)))
    padding = tuple(zip(before, after, strict=True))
    assert_equal_to_xla(
        pixels,
        window,
        batch=batch,
        channels=channels,
        features=features,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


SIZES = {
    "batch": strategies.integers(1, 4),
    "channels": strategies.integers(1, 18),
    "features": strategies.integers(1, 36),
}
SETTINGS = {"deadline": None, "derandomize": True, "suppress_health_check": list(hypothesis.HealthCheck)}


@hypothesis.settings(max_examples=15, **SETTINGS)
@hypothesis.given(axes=GEOMETRIES, **SIZES)
def test_any_geometry(axes, batch, channels, features):
    check(axes, batch, channels, features)


@pytest.mark.slow
@hypothesis.settings(max_examples=100, **SETTINGS)
@hypothesis.given(axes=GEOMETRIES, **SIZES)
def test_many_geometries(axes, batch, channels, features):
    check(axes, batch, channels, features)


def test_what_is_infinite_stays_within_its_windows():
    """No tap is multiplied with padding, whose product with an infinite weight would be NaN."""
    x, kernel = inputs((5, 4), (3, 3), 1, 6, 8)
    hot = kernel.at[0, 0, 0, 0].set(jnp.inf)
    out = convolve(jnp.abs(x), hot, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1))
    expected = np.zeros(out.shape, bool)
    expected[:, 1:, 1:, 0] = True
    np.testing.assert_array_equal(jnp.isinf(out), expected)
    assert not bool(jnp.isnan(out).any())


DIGEST = """
import hashlib, os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
import jax, jax.numpy as jnp
from cnn_jax.ops.conv import convolve
from cnn_jax.ops.native.library import library
assert library().digest, library().reason
run = lambda x, k: convolve(x, k, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1))
digest = hashlib.sha256()
for space, channels in ((7, 20), (40, 3)):
    x = jax.random.normal(jax.random.key(0), (33, space, space, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, 40))
    out, transposed = jax.vjp(run, x, kernel)
    for array in (out, *transposed(out)):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_the_number_of_threads_does_not_change_a_bit():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else 1
    if cores < 2:
        pytest.skip("needs two cores")
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST, str(count)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        ).stdout
        for count in (1, cores)
    }
    assert len(digests) == 1


def test_calls_that_wait_for_each_other_come_to_an_end():
    """All threads of the pool may be inside a call, whose work they share."""
    x, kernel = inputs((12, 12), (3, 3), 8, 8, 8)
    geometry = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    run = jax.jit(lambda x: [convolve(x * i, kernel, **geometry) for i in range(8)])
    expected = run(x)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for results in threads.map(run, [x] * 200):
            for got, one in zip(results, expected, strict=True):
                np.testing.assert_array_equal(got, one)


def text_of(function, *arguments, **options):
    return jax.jit(function, **options).lower(*arguments).as_text()


def test_what_a_device_has_alone_is_a_call_and_what_xla_divides_is_not():
    x, kernel = inputs((5, 5), (3, 3), 16, 4, 4)
    run = functools.partial(convolve, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    divided = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    assert "cnn_jax_convolve" in text_of(run, x, kernel)
    assert "cnn_jax_convolve" not in text_of(run, x, kernel, in_shardings=(divided, whole))
    specs = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    each = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False)
    assert "cnn_jax_convolve" in text_of(each, x, kernel)
    np.testing.assert_allclose(jax.jit(each)(x, kernel), run(x, kernel), rtol=0, atol=1e-5)
    both = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    # XLA still divides over the other axis.
    part = jax.shard_map(run, mesh=both, in_specs=specs, out_specs=specs[0], axis_names={"data"}, check_vma=False)
    assert "cnn_jax_convolve" not in text_of(part, x, kernel)


def test_an_export_may_leave_the_batch_open():
    x, kernel = inputs((12, 12), (3, 3), 4, 4, 8)
    run = jax.jit(functools.partial(convolve, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1)))
    (batch,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(run)(jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), kernel)
    np.testing.assert_allclose(exported.call(x, kernel), run(x, kernel), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("window", "stride", "dtype"),
    [((1, 1), 1, jnp.float32), ((12, 11), 1, jnp.float32), ((3, 3), 12, jnp.float32), ((3, 3), 1, jnp.bfloat16)],
)
def test_what_is_not_its_own_stays_with_xla(window, stride, dtype):
    x, kernel = (array.astype(dtype) for array in inputs((20, 20), window, 1, 2, 2))
    run = functools.partial(convolve, stride=(stride, stride), padding=((0, 0), (0, 0)), dilation=(1, 1))
    assert "cnn_jax_convolve" not in text_of(run, x, kernel)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/c++", "/nowhere/c++: No such file or directory"),
        ("false", "false fails: without a reason"),
        ("true --quiet", "true --quiet fails: without a reason"),
        ("g++ '", 'CXX="g++ \'" is no command: No closing quotation'),
    ],
)
def test_without_a_compiler_it_says_so_and_leaves_nothing_behind(monkeypatch, tmp_path, capsys, compiler, reason):
    monkeypatch.setenv(FOLDER, str(tmp_path / "a folder"))
    monkeypatch.setenv("CXX", compiler)
    found = library_module._library.__wrapped__()
    assert not found.digest
    assert found.reason == reason
    assert capsys.readouterr().err == f"note: {found.description}\n"
    assert not list(tmp_path.glob("a folder/*"))


def test_a_folder_that_cannot_be_written_to_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER, str(tmp_path / "file" / "folder"))
    assert library_module._library.__wrapped__().reason == f"{tmp_path / 'file' / 'folder'}: Not a directory"


def test_an_empty_folder_name_turns_it_off(monkeypatch, capsys):
    monkeypatch.setenv(FOLDER, "")
    assert library_module._library.__wrapped__().reason == f"{FOLDER} is empty"
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_a_damaged_library_is_compiled_anew(tmp_path):
    def found():
        script = "from cnn_jax.ops.native.library import library; print(library().description)"
        environment = {**os.environ, FOLDER: str(tmp_path / "a folder"), "JAX_PLATFORMS": "cpu"}
        run = [sys.executable, "-c", script]
        return subprocess.run(run, check=True, capture_output=True, text=True, env=environment).stdout

    whole = found()
    assert whole == f"{library().description}\n"
    (path,) = tmp_path.glob("a folder/*.so")
    # The system maps a part of a library, and ends the process when what is missing is touched.
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert found() == whole
    assert sorted(each.suffix for each in path.parent.iterdir()) == [".sha256", ".so"]
