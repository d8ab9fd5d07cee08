"""Whatever bytes a file has, reading it gives data or one line: every kind of file, and texts made to fit a grammar."""

import io
import json
import os
import pathlib
import time

import numpy as np
import pytest
from fuzzing import Fuzzer, bad
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.data.array_files import array_source
from cnn_jax.errors import UserError
from cnn_jax.ops.jpeg import has_too_many_scans
from cnn_jax.untrusted import DEEPEST, one_line, parse_json
from cnn_jax.weights import files

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def fuzz(tmp_path):
    """`fuzz(seed)` is a generator of what came of damaged files."""
    opened = []

    def fuzz(seed):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        opened.append(Fuzzer(tmp_path / "files", seed=seed, environment=environment))
        while True:
            yield opened[-1].next()

    yield fuzz
    for fuzzer in opened:
        fuzzer.close()


def check(reader, content, answer, kept):
    """Keep the file of a failure, and say where it is."""
    if bad(answer):
        (kept / "bad").write_bytes(content)
        pytest.fail(f"{reader}, {kept / 'bad'}: {answer}")


def test_damaged_files_of_every_kind_are_read_or_refused(fuzz, tmp_path):
    outcomes, files = set(), fuzz(0)
    for _ in range(80):
        reader, content, answer = next(files)
        check(reader, content, answer, tmp_path)
        outcomes.add((reader, answer["outcome"]))
    assert {reader for reader, _ in outcomes} == {"image", "arrays", "weights", "parquet", "json", "rows", "results"}
    assert {outcome for _, outcome in outcomes} == {"read", "refused"}


@pytest.mark.slow
def test_many_damaged_files_of_every_kind_are_read_or_refused(fuzz, tmp_path):
    seed = time.time_ns()
    print(f"seed {seed}")  # shown with a failure, which fuzzing.py repeats with it
    until, files = time.monotonic() + 40, fuzz(seed)
    while time.monotonic() < until:
        check(*next(files), tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(JSON, st.integers(0, 2 * DEEPEST))
def test_json_is_what_was_written_or_too_deep(value, depth):
    text = "[" * depth + json.dumps(value) + "]" * depth
    try:
        found = parse_json(text)
    except ValueError as error:
        assert f"deeper than {DEEPEST}" in str(error)  # noqa: PT017
        assert depth > DEEPEST - 25
    else:
        assert json.dumps(found) == json.dumps(json.loads(text))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='[]{}":,0123456789eE+-.\\unatrflsINy \n', max_size=200))
def test_text_that_looks_like_json_is_a_value_or_one_line(text):
    try:
        parse_json(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_shown_names_are_printable(text):
    assert one_line(text).isprintable()
    assert len(one_line(text)) <= 200 * 10 + 1


NUMBER = (
    st.integers(-2, 40) | st.sampled_from([2**31, 2**32, 2**63, 2**64, 2**64 - 1, 10**30]) | st.floats() | st.none()
)
TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "F16", "?", 1]),
        "shape": st.lists(NUMBER, max_size=4),
        "data_offsets": st.lists(NUMBER, min_size=2, max_size=2) | st.lists(NUMBER, max_size=3),
    }
)
HEADER = st.dictionaries(
    st.text(max_size=4) | st.just("__metadata__"), TENSOR | st.dictionaries(st.text(), st.text()), max_size=3
)


@settings(max_examples=200, deadline=None)
@given(header=HEADER, size=st.integers(0, 64), off=st.integers(-9, 9))
def test_any_header_of_safetensors_gives_arrays_or_one_line(header, size, off, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(max(len(text) + off, 0).to_bytes(8, "little") + text + bytes(size))
    files.read_metadata(path)
    try:
        found = files.read(path)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert sum(array.nbytes for array in found.values()) <= size


SHAPE = st.lists(st.integers(-1, 5) | st.sampled_from([2**31, 2**63, 10**30]), max_size=4).map(tuple).map(repr)
KIND = st.sampled_from(["|u1", "<i8", "<U0", "<U3", "|O", "|S0", "|V0", "|b1", "<M8[ns]", "(2,)u1", "u1,u1", "x", "\n"])
NPY = st.builds(
    "{{'descr': {0!r}, 'fortran_order': {1}, 'shape': {2}, }}".format,
    KIND | st.text(max_size=5),
    st.sampled_from(["True", "False", "None", "1"]),
    SHAPE | st.text(alphabet="()[]{}'\"0123456789,-+*LxN\\ \n#", max_size=20),
)


@settings(max_examples=200, deadline=None)
@given(
    text=NPY,
    size=st.integers(0, 64),
    version=st.sampled_from([(1, 2), (2, 4), (3, 4), (9, 2)]),
    name=st.sampled_from(["images", "labels"]),
)
@pytest.mark.filterwarnings("ignore")
def test_any_header_of_an_array_gives_a_set_or_one_line(text, size, version, name, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "any arrays"
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", np.zeros((4, 2, 2), np.uint8))
    np.save(folder / "labels.npy", np.arange(4))
    content = text.encode("latin1", errors="replace")
    start = b"\x93NUMPY" + bytes([version[0], 0]) + len(content).to_bytes(version[1], "little")
    (folder / f"{name}.npy").write_bytes(start + content + bytes(size))
    try:
        source = array_source(str(folder), directory=None, split_seed=0)
        sizes = [len(source.load(split).images) for split in source.sizes]
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert sum(sizes) <= 64


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"\xff\xda", b"\xff", b"\xff\xd9", b"\0", b"\xff\xd8", b"\xff\xc4\0\4ab"]), max_size=60)
)
def test_scans_of_any_bytes_are_counted(parts):
    content = io.BytesIO(b"\xff\xd8" + b"".join(parts)).getvalue()
    assert has_too_many_scans(content, 2**40) in (True, False)
    assert not has_too_many_scans(content, 1)
