"""Weights from strangers: what safetensors and archives can say; `test_pth.py` has what pickles can."""

import json
import struct
import zipfile

import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.weights import files
from cnn_jax.weights.convert import flat_to_torch
from cnn_jax.weights.key_maps import KEY_MAPS

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS = {
    "a header longer than any": ({"a": ONE}, bytes(4), 2**63),
    "a header of more than 100 MB": ({"a": ONE}, bytes(4), 10**8 + 1),
    "a header longer than the file": ({"a": ONE}, b"", 10**6),
    "overlapping tensors": ({"a": ONE, "b": ONE}, bytes(4), None),
    "a hole": ({"a": ONE, "b": {**ONE, "data_offsets": [8, 12]}}, bytes(12), None),
    "bytes behind the last": ({"a": ONE}, bytes(8), None),
    "an end out of range": ({"a": {**ONE, "data_offsets": [0, 400]}}, bytes(4), None),
    "a negative start": ({"a": {**ONE, "data_offsets": [-4, 0]}}, bytes(4), None),
    "an end before the start": ({"a": {**ONE, "data_offsets": [4, 0]}}, bytes(4), None),
    "a size that is not the type's": ({"a": {**ONE, "dtype": "F64"}}, bytes(4), None),
    "a shape beyond 64 bits": ({"a": {**ONE, "shape": [2**32, 2**32]}}, bytes(4), None),
    "an empty shape beyond 64 bits": ({"a": {**ONE, "shape": [0, 2**60, 2**60], "data_offsets": [0, 0]}}, b"", None),
    "a hundred axes": ({"a": {**ONE, "shape": [1] * 100}}, bytes(4), None),
    "deep JSON": (b'{"a":' + b"[" * 10**6, b"", None),
    "deep metadata": (b'{"__metadata__":{"a":' + b"[" * 10**6, b"", None),
    "one name for two tensors": (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        bytes(8),
        None,
    ),
    "an unknown type": ({"a": {**ONE, "dtype": "F33"}}, bytes(4), None),
    "a type of several lines": ({"a\n\x1b[31m": {**ONE, "dtype": "F\n\x1b[31m"}}, bytes(4), None),
    "a real number as a size": ({"a": {**ONE, "shape": [1.5]}}, bytes(4), None),
    "a number of thousands of digits": (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}", bytes(4), None),
    "a list": (b"[]", b"", None),
    "no UTF-8": (b'{"\xff":1}', b"", None),
    "metadata that is no text": (b'{"__metadata__":{"a":1}}', b"", None),
}


def safetensors(path, header, data, declared):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if declared is None else declared
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("lie", HEADERS)
def test_headers_of_safetensors_that_lie_are_refused(lie, tmp_path, refused):
    refused("weights", safetensors(tmp_path / "a.safetensors", *HEADERS[lie]), "is no safetensors file, or damaged")


def test_many_tensors_of_no_size_take_little_memory(tmp_path, attempt):
    text = ",".join(f'"{n:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(20_000))
    path = safetensors(tmp_path / "a.safetensors", f"{{{text}}}".encode(), b"", None)
    assert attempt("weights", path, megabytes=100) == ("read", "20000")


def test_a_zip_whose_entries_lie_beyond_any_file_is_one_line(tmp_path, refused):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
    data = bytearray(path.read_bytes())
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    further = struct.pack("<HHQ", 1, 8, 2**64 - 1)  # where the entry is, in 64 bits
    data[at + 30 : at + 32] = struct.pack("<H", len(further))
    data[at + 42 : at + 46] = b"\xff" * 4
    data[end:end] = further
    end += len(further)
    data[end + 12 : end + 16] = struct.pack("<I", end - at)
    path.write_bytes(data)
    refused("weights", path, "damaged or incomplete")


def test_keys_that_steer_a_terminal_are_shown_as_escapes(tmp_path, refused):
    path = tmp_path / "a.pth"
    key = b"a\nerror: all is well\x1b[2J"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}X" + len(key).to_bytes(4, "little") + key + b"K\x01s.")
    assert refused("weights", path, r"a\nerror: all is well\x1b[2J").isprintable()


def test_what_does_not_fit_a_model_is_one_line_however_much_it_is():
    state = {f"params/layer\n{n}\x1b[2J": np.zeros(1, np.float32) for n in range(5000)}
    with pytest.raises(UserError, match="have no place in it") as caught:
        flat_to_torch("lenet5" if "lenet5" in KEY_MAPS else "alexnet", state)
    assert str(caught.value).isprintable()
    assert "and 4,950 more" in str(caught.value)
    assert len(str(caught.value)) < 10_000


def test_metadata_of_a_hostile_file_is_none(tmp_path):
    for name, (header, data, declared) in HEADERS.items():
        path = safetensors(tmp_path / "a.safetensors", header, data, declared)
        assert files.read_metadata(path) == {}, name
