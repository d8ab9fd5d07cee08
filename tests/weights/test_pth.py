"""torch's files are read as torch wrote them, and a file that tries anything else is refused before it can."""

import io
import os
import pathlib
import pickle
import struct
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import UserError
from cnn_jax.weights import tensor_pickle
from cnn_jax.weights.pth import MAGIC_NUMBER, read_pth

# Written by torch 2.13, the values by NumPy; bfloat16 is there as its bits.
REFERENCE = pathlib.Path(__file__).parent.parent / "reference" / "pth"
MANY = [f"many_types{kind}.pth" for kind in ("", "_legacy", "_protocol4")]


def values(name):
    with np.load(REFERENCE / name) as file:
        return dict(file)


@pytest.mark.parametrize("name", MANY)
def test_every_type_stride_and_offset_is_read_as_torch_wrote_it(name):
    state, expected = read_pth(REFERENCE / name), values("values.npz")
    assert list(state) == list(expected)
    assert state["bfloat16"].dtype == ml_dtypes.bfloat16
    state["bfloat16"] = state["bfloat16"].view(np.uint16)
    for key, value in expected.items():
        assert state[key].dtype == value.dtype, key
        np.testing.assert_array_equal(state[key], value, err_msg=key)
    assert not state["shared_row"].flags.writeable
    assert np.shares_memory(state["shared_row"], state["shared_whole"])


@pytest.mark.parametrize("name", ["module.pth", "module_legacy.pth", "checkpoint.pth"])
def test_a_state_dict_is_found_in_a_checkpoint_and_without_the_prefix_of_parallel_training(name):
    state, expected = read_pth(REFERENCE / name), values("module.npz")
    assert list(state) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(state[key], value)


def test_a_whole_network_is_refused_with_the_class_it_wants():
    with pytest.raises(UserError, match=r"asks for 'torch\.nn\.modules\.container\.Sequential'.*save model.state_dict"):
        read_pth(REFERENCE / "whole_module.pth")


# What a pickle is written with here: torch's names, without torch.


class Call:
    """Pickled as a call of a function that need not exist here."""

    def __init__(self, name, *arguments, state=None):
        self.name, self.arguments, self.state = name, arguments, state


class Name:
    """Pickled as a global."""

    def __init__(self, name):
        self.name = name


class Stored:
    """Pickled as a persistent id."""

    def __init__(self, *identity):
        self.identity = identity


class Assembler(pickle._Pickler):
    """Writes what real picklers do not: globals by their names alone, and persistent ids."""

    def save(self, item, save_persistent_id=True):  # noqa: ARG002 - the pickler passes it
        if isinstance(item, Name):
            module, _, name = item.name.partition(" ")
            self.write(b"c" + module.encode() + b"\n" + name.encode() + b"\n")
        elif isinstance(item, Call):
            self.save(Name(item.name))
            self.save(item.arguments)
            self.write(b"R")
            if item.state is not None:
                self.save(item.state)
                self.write(b"b")
        elif isinstance(item, Stored):
            self.save(item.identity)
            self.write(b"Q")
        else:
            super().save(item)


def assembled(item, protocol=2):
    file = io.BytesIO()
    Assembler(file, protocol).dump(item)
    return file.getvalue()


def storage(*, key="0", size=6, kind="torch FloatStorage", extra=()):
    return Stored("storage", Name(kind), key, "cpu", size, *extra)


def tensor(of=None, *, offset=0, shape=(2, 3), strides=(3, 1), **others):
    hooks = Call("collections OrderedDict")
    return Call(
        "torch._utils _rebuild_tensor_v2", of or storage(**others), offset, tuple(shape), tuple(strides), False, hooks
    )


def archive(path, program, entries=None, *, root="archive", compression=zipfile.ZIP_STORED):
    """A torch file of this pickle and these further entries."""
    entries = {"byteorder": b"little", "data/0": np.arange(6, dtype=np.float32).tobytes(), **(entries or {})}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {"data.pkl": program, **entries}.items():
            if content is not None:
                file.writestr(f"{root}/{name}" if root else name, content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        read_pth(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(repr(str(path)))
    assert len(text) < 700
    return text


def test_what_the_tests_assemble_is_read(path):
    state = read_pth(archive(path, assembled({"a": tensor(), "b": tensor(offset=1, shape=(2,), strides=(2,))})))
    np.testing.assert_array_equal(state["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(state["b"], [1, 3])


def test_python_2_and_tensors_of_torch_before_0_4_are_read(path):
    old = Call("torch._utils _rebuild_tensor", storage(kind="torch.cuda FloatStorage"), 0, (6,), (1,))
    state = read_pth(archive(path, assembled(Call("collections OrderedDict", [["a", old]]))))
    np.testing.assert_array_equal(state["a"], np.arange(6))
    program = b"\x80\x02}U\x01a" + assembled(old)[2:-1] + b"s."  # a text as Python 2 writes it
    np.testing.assert_array_equal(read_pth(archive(path, program))["a"], np.arange(6))


def test_big_endian_files_are_read(path):
    entries = {"byteorder": b"big", "data/0": np.arange(6, dtype=">f4").tobytes()}
    np.testing.assert_array_equal(
        read_pth(archive(path, assembled({"a": tensor()}), entries))["a"].ravel(), np.arange(6)
    )


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def marker(tmp_path):
    return tmp_path / "the attack succeeded"


# Programs that pickle.loads would run, and the name that the refusal must give.
ATTACKS = {
    "reduce of os.system": (lambda command: pickle.dumps(Attack(os.system, command), 2), r"'(posix|nt)\.system'"),
    "stack global": (lambda command: pickle.dumps({"a": Attack(os.system, command)}, 4), r"'(posix|nt)\.system'"),
    "eval": (lambda command: pickle.dumps(Attack(eval, f"__import__('os').system({command!r})"), 2), "builtin.*eval"),
    "global without a call": (lambda _: b"\x80\x02cbuiltins\nexec\n.", r"'builtins\.exec'"),
    "nested name": (
        lambda _: b"\x80\x04\x8c\x0ctorch._utils\x8c\x23_rebuild_tensor_v2.__globals__.get_item\x93.".replace(
            b"\x23", bytes([len("_rebuild_tensor_v2.__globals__.get_item")])
        ),
        r"'torch\._utils\._rebuild_tensor_v2\.__globals__\.get_item'",
    ),
    "a name that is no text": (lambda _: b"\x80\x04K\x01K\x02\x93.", "a name of a int"),
    "a name of tuples doubled through the memo": (
        lambda _: b"\x80\x04)\x94" + b"".join(bytes([0x68, i, 0x68, i, 0x86, 0x94]) for i in range(99)) + b"h\x63\x93.",
        "a name of a tuple",
    ),
    "integers of one hash as keys": (
        lambda _: pickle.dumps({k * (2**61 - 1): 0 for k in range(3)}, 2),
        "a key of 2.31",
    ),
    "a real number as a key": (lambda _: assembled({1.5: 3}), "a key of a float"),
    "inst": (lambda command: b"(S'" + command.encode() + b"'\nios\nsystem\n.", "asks for"),
    "inst without arguments": (lambda _: b"\x80\x02(ios\nsystem\n.", r"'os\.system'"),
    "obj": (lambda _: b"\x80\x02(cos\nsystem\nU\x01xo.", r"'os\.system'"),
    "obj of a known name": (lambda _: b"\x80\x02(ccollections\nOrderedDict\no.", "the opcode OBJ"),
    "newobj": (lambda _: b"\x80\x02csubprocess\nPopen\n)\x81.", r"'subprocess\.Popen'"),
    "newobj of a known name": (lambda _: b"\x80\x02ccollections\nOrderedDict\n)\x81.", "the opcode NEWOBJ"),
    "newobj_ex": (lambda _: b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "the opcode NEWOBJ_EX"),
    "extension": (lambda _: b"\x80\x02\x82\x01)R.", "the opcode EXT1"),
    "extension of 4 bytes": (lambda _: b"\x80\x02\x84\x01\x00\x00\x00.", "the opcode EXT4"),
    "text persistent id": (lambda _: b"\x80\x02Pstorage\n.", "the opcode PERSID"),
    "attributes of a function": (
        lambda _: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01sb.",
        r"BUILD of torch\._utils\._rebuild_tensor_v2",
    ),
    "attributes of a storage's type": (lambda _: b"\x80\x02ctorch\nFloatStorage\n}b.", r"BUILD of torch\.FloatStorage"),
    "items of a function": (
        lambda _: b"\x80\x02ctorch._utils\n_rebuild_parameter\nX\x01\x00\x00\x00aK\x01s.",
        r"SETITEM of torch\._utils\._rebuild_parameter",
    ),
    "items of a list": (lambda _: b"\x80\x02]X\x01\x00\x00\x00aK\x01s.", "SETITEM of a list"),
    "items appended to a dictionary": (lambda _: b"\x80\x02}K\x01a.", "APPEND of a dict"),
    "call of a text": (lambda _: b"\x80\x02X\x01\x00\x00\x00a)R.", "REDUCE of a str"),
    "call of a storage's type": (
        lambda _: assembled(Call("torch FloatStorage", 2**40)),
        r"call of torch\.FloatStorage",
    ),
    "call with a dictionary": (lambda _: b"\x80\x02ccollections\nOrderedDict\n}R.", "REDUCE of a dict"),
    "a tensor of no storage": (lambda _: assembled({"a": tensor("no storage")}), "of a str"),
    "a parameter of no tensor": (
        lambda _: assembled(Call("torch._utils _rebuild_parameter", [1], True, None)),
        "a parameter of a list",
    ),
    "tensors as keys": (lambda _: assembled({(1, 2): 3}), "a key of a tuple"),
    "metadata": (
        lambda _: assembled(
            Call("torch._utils _rebuild_tensor_v2", storage(), 0, (6,), (1,), False, None, {"conj": True})
        ),
        "a tensor with metadata",
    ),
    "a quantised tensor": (lambda _: assembled(Call("torch._utils _rebuild_qtensor", 1)), r"_utils\._rebuild_qtensor'"),
    "a module as a text": (lambda _: b"\x80\x02c__builtin__\nsetattr\n.", r"'__builtin__\.setattr'"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
def test_a_file_that_tries_anything_else_is_refused(attack, container, path, tmp_path):
    write, message = ATTACKS[attack]
    program = write(f"touch '{marker(tmp_path)}'")
    if container == "zip":
        archive(path, program)
    else:
        head = [pickle.dumps(part, 2) for part in (MAGIC_NUMBER, 1001, {"little_endian": True})]
        path.write_bytes(b"".join([*head, program] if container == "legacy" else [program]))
    if container == "bare" and not program.startswith(b"\x80"):
        message = "no file of torch's"
    refused(path, message)
    assert not marker(tmp_path).exists()


def test_the_attacks_are_real(tmp_path):
    program = ATTACKS["stack global"][0](f"touch '{marker(tmp_path)}'")
    pickle.loads(program)
    assert marker(tmp_path).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"offset": -1}, "-1 is no size, offset or stride"),
        ({"offset": 1}, r"out of the bounds of its storage of 6 elements"),
        ({"offset": 2**63}, "9.22e[+]18 is no size"),
        ({"strides": (-3, 1)}, "-3 is no size"),
        ({"strides": (3, 2)}, "strides \\(3, 2\\) and offset 0 is out of the bounds"),
        ({"strides": (2**60, 1)}, "1.15e[+]18 is no size"),
        ({"strides": (2**55, 2**55)}, "out of the bounds"),
        ({"shape": (2, 4)}, "out of the bounds"),
        ({"shape": (-2, 3)}, "-2 is no size"),
        ({"shape": (2**20, 2**20), "strides": (0, 0)}, "out of the bounds"),
        ({"shape": (0, 2**50, 2**50), "strides": (1, 1, 1)}, "is no size|out of the bounds"),
        ({"shape": (2, 3, 1)}, "3 axes and 2 strides"),
        ({"shape": (1,) * 40, "strides": (1,) * 40}, "40 axes"),
        ({"shape": (2.0, 3)}, "2 is no size"),
        ({"shape": (True, 3)}, "1 is no size"),
        ({"shape": ([1], 3)}, "a list is no size"),
        ({"shape": (0,), "strides": (1,), "offset": 7}, "out of the bounds"),
        ({"size": 2**40}, "has 24 bytes, its tensors say 1099511627776 of 4 bytes"),
        ({"size": 2**70}, "1.18e[+]21 is no size"),
        ({"size": -6}, "-6 is no size"),
        ({"size": 7}, "has 24 bytes, its tensors say 7 of 4"),
        ({"size": 5, "shape": (5,), "strides": (1,)}, "has 24 bytes, its tensors say 5 of 4"),
        ({"key": "../data.pkl"}, "no storage '../data.pkl'"),
        ({"key": "1"}, "no storage '1'"),
        ({"key": 0}, "a storage of unknown type"),
        ({"kind": "torch.storage UntypedStorage"}, r"'torch\.storage\.UntypedStorage'"),
        ({"kind": "collections OrderedDict"}, "a storage of unknown type"),
        ({"extra": (("part", 4, 3),)}, "a part of storage '0' is out of its bounds"),
        ({"extra": (("part", 2, 4),)}, "out of the bounds of its storage of 4 elements"),
    ],
)
def test_sizes_offsets_and_strides_are_within_bounds(arguments, message, path):
    refused(archive(path, assembled({"a": tensor(**arguments)})), message)


def test_bounds_are_exact(path):
    last = tensor(offset=5, shape=(1, 1), strides=(2**50, 7))
    empty = tensor(offset=6, shape=(0, 4), strides=(4, 1))
    part = tensor(extra=(("part", 2, 4),), offset=1, shape=(3,), strides=(1,))
    state = read_pth(archive(path, assembled({"last": last, "empty": empty, "part": part})))
    np.testing.assert_array_equal(state["last"], [[5]])
    assert state["empty"].shape == (0, 4)
    np.testing.assert_array_equal(state["part"], [3, 4, 5])


def test_tensors_that_disagree_about_a_storage_are_refused(path):
    state = {"a": tensor(), "b": tensor(kind="torch IntStorage")}
    refused(archive(path, assembled(state)), "disagree about the type or size of storage '0'")


def test_long_keys_of_storages_are_cut(path):
    refused(archive(path, assembled({"a": tensor(key="k" * 5000)})), "it has no storage 'k{100}'$")


@pytest.mark.parametrize("error", [RecursionError, MemoryError])
def test_what_is_too_deep_or_too_large_is_damaged(error, path, monkeypatch):
    def fail(stream):
        raise error("too much")

    monkeypatch.setattr(tensor_pickle, "_run", fail)
    refused(archive(path, assembled({"a": tensor()})), f"its pickle is damaged .*{error.__name__}: too much")


def test_booleans_are_0_or_1(path):
    program = assembled({"a": tensor(kind="torch BoolStorage")})
    refused(archive(path, program, {"data/0": b"\0\1\2\0\1\0"}), "other bytes than 0 and 1")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "archive/../../evil", "archive\\evil", "other/data/0", "archive//x"]
)
def test_entries_out_of_the_archives_folder_are_refused(name, path):
    archive(path, assembled({"a": tensor()}))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"x")
    refused(path, "which torch does not write")


def test_compressed_repeated_and_encrypted_entries_are_refused(path):
    program = assembled({"a": tensor()})
    bomb = {"data/0": bytes(2**24)}
    refused(archive(path, program, bomb, compression=zipfile.ZIP_DEFLATED), "is compressed or encrypted")
    assert path.stat().st_size < 2**16
    archive(path, program)
    with zipfile.ZipFile(path, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("archive/data/0", bytes(24))
    refused(path, "2 entries 'archive/data/0'")
    archive(path, program)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    refused(path, "is compressed or encrypted")


def test_entries_that_declare_more_than_the_file_has_are_refused(path):
    archive(path, assembled({"a": tensor()}))
    data = bytearray(path.read_bytes())
    at = data.index(b"archive/data/0", data.index(b"PK\x01\x02")) - 46
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    refused(path, "more bytes than the file has")


def test_other_archives_are_refused(path):
    archive(path, b"x", root="")
    refused(path, "has no data.pkl")
    refused(
        archive(path, assembled({"a": tensor()}), {"constants.pkl": b"", "code/a.py": b""}), "a TorchScript program"
    )
    refused(archive(path, assembled({"a": tensor()}), {"byteorder": b"middle"}), "byte order is b'middle'")
    refused(archive(path, assembled({"a": tensor()}), {"data/0": None}), "no storage '0'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\x89PNG\r\n\x1a\n", "starts with .*PNG"),
        (b"<!DOCTYPE html>", "no file of torch's"),
        (b"PK\x03\x04", "damaged or incomplete"),
        (b"\x80", "its pickle is damaged"),
        (b"\x80\x02.", "its pickle is damaged"),
        (pickle.dumps({"a": 1}, 2), "a pickle, but no file of torch's"),
        (b"x" * 257 + b"ustar", "tar format"),
    ],
)
def test_what_is_no_file_of_torchs_is_named(content, message, path):
    path.write_bytes(content)
    refused(path, message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "nothing is no named tensor"),
        ([1], "it holds a list"),
        ({"epoch": 3, "a": tensor()}, "epoch is no named tensor"),
        ({1: tensor()}, "no state dict"),
        (tensor(), "it holds a tensor"),
        ({"model": {"model": {"model": {"model": {"model": {}}}}}}, "it holds a dict"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(value, message, path):
    refused(archive(path, assembled(value)), message)


def test_a_dictionary_in_itself_ends(path):
    inside: dict = {}
    inside["model"] = inside
    refused(archive(path, pickle.dumps(inside, 2)), "no state dict")


def test_deep_nesting_and_many_references_end(path):
    deep = b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."
    refused(archive(path, deep), "it holds a list")
    level: dict = {"x": 1}
    for _ in range(60):
        level = {"model": level, "other": level, "third": [level, level]}
    refused(archive(path, pickle.dumps(level, 2)), "no state dict")


@pytest.mark.parametrize(
    "program", [b"\x80\x02j\xff\xff\xff\xff.", b"\x80\x02\x8b\xff\xff\xff\x7f.", b"\x80\x04\x8d" + b"\xff" * 8 + b"."]
)
def test_huge_declared_lengths_take_no_memory(program, path):
    refused(archive(path, program), "damaged")


def test_storages_of_older_files_are_those_of_the_tensors(path):
    content = (REFERENCE / "module_legacy.pth").read_bytes()
    path.write_bytes(content + b"\0")
    refused(path, "bytes behind its last storage")
    path.write_bytes(content[:-1])
    refused(path, "damaged or incomplete: storage")
    head = [pickle.dumps(part, 2) for part in (MAGIC_NUMBER, 1001, {"little_endian": True})]
    program = assembled({"a": tensor(extra=(None,))})
    values = np.arange(6, dtype=np.float32).tobytes()

    def write(keys, size):
        path.write_bytes(b"".join([*head, program, pickle.dumps(keys, 2), struct.pack("<q", size), values]))
        return path

    np.testing.assert_array_equal(read_pth(write(["0"], 6))["a"].ravel(), np.arange(6))
    refused(write(["0"], 2**40), "has 1099511627776 elements, its tensors say 6")
    refused(write(["0"], -1), "its tensors say 6")
    refused(write(["0", "0"], 6), "not those of its tensors")
    refused(write(["1"], 6), "not those of its tensors")
    refused(write([["0"]], 6), "not those of its tensors")


@pytest.mark.parametrize("name", [*MANY, "checkpoint.pth"])
def test_truncated_files_are_refused(name, path):
    content = (REFERENCE / name).read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            read_pth(path)


@pytest.mark.parametrize("name", [*MANY, "checkpoint.pth"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_a_state_dict_or_one_line(name, tmp_path_factory, data):
    content = bytearray((REFERENCE / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.pth"
    path.write_bytes(content)
    try:
        state = read_pth(path)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert sum(value.nbytes for value in state.values()) <= 20 * len(content)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_pth(tmp_path / "missing.pth")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_pth(tmp_path)


def test_the_order_of_a_dictionary_is_kept(path):
    names = [f"layer{index}" for index in np.random.default_rng(0).permutation(50)]
    state = read_pth(archive(path, assembled({name: tensor() for name in names})))
    assert list(state) == names
