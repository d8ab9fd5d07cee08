"""A checkpoint restores what was saved or nothing; what is damaged is named, kept aside, and not used."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_jax.errors import UserError
from cnn_jax.train.checkpoint import DAMAGED, CheckpointGoneError, Checkpoints, Progress
from cnn_jax.train.checkpoint_arrays import read_arrays
from cnn_jax.train.manifest import MANIFEST, DamagedError, check_files

STATE = {
    "params": {"conv": {"kernel": jnp.arange(36.0).reshape(3, 3, 2, 2), "bias": jnp.ones(2)}},
    "half": jnp.arange(5, dtype=jnp.bfloat16),
    "count": jnp.int32(7),
    "none": jnp.zeros((0, 3)),
}
METRICS = {"loss": {"total": jnp.float32(1.5), "count": jnp.int32(3)}}
FILES = 20
"""More than a checkpoint has."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The checkpoints of steps 1, 2 and 3; the state counts them."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(directory, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, {**STATE, "count": jnp.int32(step)}, METRICS, Progress(best=0.1 * step, best_step=step))
    checkpoints.close()
    return directory


def restore(directory, step):
    reader = Checkpoints(directory, keep=None)
    try:
        return reader.restore(step, STATE, METRICS)
    finally:
        reader.close()


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def set_aside(directory):
    writer = Checkpoints(directory, keep=3)
    try:
        return writer.set_aside_damaged(), writer.steps()
    finally:
        writer.close()


def assert_found(directory, step, name):
    """Reading the checkpoint names the file; a writer takes it away, keeps it, and has the one before it."""
    with pytest.raises(DamagedError, match=f"checkpoint {step} in .* is damaged: ") as caught:
        restore(directory, step)
    assert name in str(caught.value)
    lost, left = set_aside(directory)
    assert list(lost) == [step]
    assert name in lost[step]
    assert left == [1, 2]
    kept = pathlib.Path(lost[step].partition("it is kept in ")[2])
    assert kept.parent == directory.resolve() / DAMAGED


def test_what_is_restored_is_what_was_saved(saved):
    state, metrics, progress = restore(saved, 3)
    expected = {**STATE, "count": jnp.int32(3)}
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path((state, metrics)),
        jax.tree_util.tree_leaves_with_path((expected, METRICS)),
        strict=True,
    ):
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=str(path))
    assert progress == Progress(best=0.1 * 3, best_step=3)


def test_numpy_alone_reads_a_checkpoint(saved, tmp_path):
    folder = tmp_path / "ein % übung #1" / "3"
    shutil.copytree(saved / "3", folder)
    arrays = read_arrays(folder)
    assert {path: (x.shape, x.dtype.name) for path, x in arrays.items()} == {
        "params/conv/kernel": ((3, 3, 2, 2), "float32"),
        "params/conv/bias": ((2,), "float32"),
        "half": ((5,), "bfloat16"),
        "count": ((), "int32"),
        "none": ((0, 3), "float32"),
    }
    assert all(type(x) is np.ndarray for x in arrays.values())
    np.testing.assert_array_equal(arrays["params/conv/kernel"], np.arange(36.0).reshape(3, 3, 2, 2))
    assert read_arrays(saved / "3", name="step_metrics")["loss/count"] == 3


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, FILES - 1), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_any_file_is_found_and_the_previous_checkpoint_taken(
    saved, tmp_path_factory, which, place, bit
):
    directory = tmp_path_factory.mktemp("flipped") / "checkpoints"
    shutil.copytree(saved, directory)
    files = [path for path in files_of(directory / "3") if path.stat().st_size]
    path = files[which % len(files)]
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    assert_found(directory, 3, path.relative_to(directory / "3").as_posix())
    shutil.rmtree(directory)


@pytest.mark.slow
def test_every_bit_of_every_file_counts(saved, tmp_path):
    """All bits of the small files, 2,000 of each larger one."""
    folder = tmp_path / "3"
    shutil.copytree(saved / "3", folder)
    generator, flipped = np.random.default_rng(0), 0
    for path in files_of(folder):
        content = path.read_bytes()
        bits = np.arange(8 * len(content))
        for bit in bits if len(bits) <= 2000 else generator.choice(bits, 2000, replace=False):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(changed)
            with pytest.raises(DamagedError):
                check_files(folder)
            flipped += 1
        path.write_bytes(content)
    check_files(folder)
    print(f"{flipped} bits flipped and found")
    assert flipped > 10_000


@pytest.mark.parametrize("damage", ["truncated", "emptied", "deleted", "a folder", "longer"])
def test_a_truncated_emptied_or_deleted_file_is_found(saved, tmp_path, damage):
    for number, original in enumerate(files_of(saved / "3")):
        size = original.stat().st_size
        if size == 0 and damage in ("truncated", "emptied"):
            continue
        directory = tmp_path / str(number)
        shutil.copytree(saved, directory)
        path = directory / original.relative_to(saved)
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-1])
        elif damage == "emptied":
            path.write_bytes(b"")
        elif damage == "longer":
            path.write_bytes(path.read_bytes() + b"\0")
        else:
            path.unlink()
            if damage == "a folder":
                path.mkdir()
        assert_found(directory, 3, path.relative_to(directory / "3").as_posix())


def test_an_empty_folder_is_no_checkpoint(saved, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    shutil.rmtree(directory / "3")
    (directory / "3").mkdir()
    assert_found(directory, 3, f"{MANIFEST} is missing")
    assert int(restore(directory, 2)[0]["count"]) == 2


def test_files_of_two_checkpoints_that_change_places_are_found(saved, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    for path in files_of(directory / "3" / "state"):
        if path.parent.name == "d":
            path.unlink()
    for path in files_of(directory / "2" / "state"):
        if path.parent.name == "d":
            shutil.copy(path, directory / "3" / "state" / "d" / path.name)
    assert_found(directory, 3, "state/d/")


def test_what_was_set_aside_twice_is_kept_twice(saved, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    for expected in ("3", "3-2"):
        (directory / "3" / MANIFEST).write_bytes(b"{")
        lost, _ = set_aside(directory)
        assert lost[3].endswith(f"{DAMAGED}/{expected}")
        shutil.copytree(saved / "3", directory / "3")


def test_a_newer_format_is_refused_and_not_taken_for_damage(saved, tmp_path):
    from cnn_jax.train.manifest import FORMAT, _encode

    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    content = json.loads((directory / "3" / MANIFEST).read_text(encoding="utf-8"))["content"]
    (directory / "3" / MANIFEST).write_bytes(_encode({**content, "format": FORMAT + 1}))
    message = f"format {FORMAT + 1}, this cnn_jax reads format {FORMAT}; use the cnn_jax that wrote it"
    for read in (restore, lambda directory, _: set_aside(directory)):
        with pytest.raises(UserError, match=message) as caught:
            read(directory, 3)
        assert not isinstance(caught.value, DamagedError)
    assert (directory / "3").is_dir()


def test_a_small_checkpoint_that_declares_more_than_the_memory_is_refused_unread(saved, tmp_path):
    from cnn_jax.train.manifest import _encode

    folder = tmp_path / "3"
    shutil.copytree(saved / "3", folder)
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["content"]
    for shape, message in (([10**12], "it declares 4,000,"), ([7], "half has another shape than its manifest says")):
        content["arrays"]["state"]["half"]["shape"] = shape
        content["arrays"]["state"]["half"]["dtype"] = "float32"
        (folder / MANIFEST).write_bytes(_encode(content))
        with pytest.raises(DamagedError, match=message):
            read_arrays(folder)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {**STATE, "half": jnp.zeros(6, jnp.bfloat16)},
            r"it has bfloat16\[5\] for half, this config has bfloat16\[6\]",
        ),
        ({**STATE, "half": jnp.zeros(5)}, r"it has bfloat16\[5\] for half, this config has float32\[5\]"),
        ({**STATE, "more": jnp.zeros(5)}, r"it has nothing for more, this config has float32\[5\]"),
        ({"count": STATE["count"]}, r"of another model: it has .* for .*, this config has nothing"),
    ],
)
def test_a_checkpoint_of_another_model_names_the_array(saved, state, message):
    reader = Checkpoints(saved, keep=None)
    with pytest.raises(UserError, match=message) as caught:
        reader.restore(3, state, METRICS)
    reader.close()
    assert not isinstance(caught.value, DamagedError)


def test_saving_a_step_again_replaces_it_and_going_back_in_steps_is_a_save_like_any_other(saved, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    writer = Checkpoints(directory, keep=5)
    writer.save(2, {**STATE, "count": jnp.int32(20)}, METRICS, Progress())
    writer.close()
    assert int(restore(directory, 2)[0]["count"]) == 20
    assert int(restore(directory, 3)[0]["count"]) == 3


def test_a_checkpoint_that_is_not_there_says_which_are(saved):
    with pytest.raises(CheckpointGoneError, match=r"no checkpoint of step 9 in .*; there are \[1, 2, 3\]"):
        restore(saved, 9)


def test_states_that_are_reused_after_the_save_do_not_change_it(tmp_path):
    """The next step may take the memory of the state that is being saved."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    double = jax.jit(lambda x: 2 * x, donate_argnums=0)
    state = {"x": jnp.arange(100_000.0)}
    for step in range(1, 4):
        checkpoints.save(step, state, METRICS, Progress())
        state = {"x": double(state["x"])}
    checkpoints.close()
    reader = Checkpoints(tmp_path, keep=None)
    restored = reader.restore(3, state, METRICS)[0]["x"]
    reader.close()
    np.testing.assert_array_equal(restored, 4 * np.arange(100_000.0, dtype=np.float32))
