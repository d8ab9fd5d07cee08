"""Weights come from files with torch's names or ours, or by name: downloaded once, checked, and kept whole."""

import dataclasses
import hashlib
import http.server
import logging
import os
import pathlib
import threading
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from cnn_jax import weights
from cnn_jax.errors import UserError
from cnn_jax.weights import download, files, pretrained
from cnn_jax.weights.load import published
from cnn_jax.weights.preprocess import Preprocessing

MODEL = "shufflenet_v2_x1_0"


@pytest.fixture(scope="module")
def state(golden):
    """Torch's state dict of a small network with BatchNorm, every number another one."""
    _, _, meta = golden.load(MODEL)
    numbers = iter(range(2**23))
    return {
        key: np.fromiter(numbers, np.float32, count=int(np.prod(shape))).reshape(shape)
        for key, (shape, *_) in meta["tensors"].items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="module")
def variables(state):
    return weights.convert(MODEL, state)


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def flat(variables):
    return traverse_util.flatten_dict(variables, sep="/")


def pth(path, state):
    """A torch file of float32 tensors, as torch 1.6 and newer write them."""
    with zipfile.ZipFile(path, "w") as file:
        program = b"\x80\x02}("
        for index, (name, value) in enumerate(state.items()):
            program += (
                text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
            )
            program += text(str(index)) + text("cpu") + number(value.size) + b"tQK\x00"
            strides = [stride // value.itemsize for stride in value.strides]
            program += b"(" + b"".join(map(number, value.shape)) + b"t(" + b"".join(map(number, strides)) + b"t"
            program += b"\x89ccollections\nOrderedDict\n)RtR"
            file.writestr(f"archive/data/{index}", value.tobytes())
        file.writestr("archive/data.pkl", program + b"u.")
    return path


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value):
    return b"J" + value.to_bytes(4, "little")


@pytest.mark.parametrize("kind", ["pth", "torch names", "our names", "no suffix"])
def test_every_kind_of_file_gives_the_same_variables(kind, tmp_path, state, variables):
    path = tmp_path / ("weights.pth" if kind == "pth" else "weights" if kind == "no suffix" else "weights.safetensors")
    if kind == "pth":
        pth(path, state)
    else:
        files.write_safetensors(path, flat(variables) if kind == "our names" else state, metadata={})
    equal(weights.load(MODEL, str(path)), variables)


def test_files_of_lower_precision_are_read_exactly(tmp_path, state):
    path = tmp_path / "weights.safetensors"
    low = {key: value.astype(ml_dtypes.bfloat16) for key, value in state.items()}
    files.write_safetensors(path, low, metadata={"format": "pt"})
    assert files.read(path)["conv1.0.weight"].dtype == ml_dtypes.bfloat16
    equal(
        weights.load(MODEL, path), weights.convert(MODEL, {key: value.astype(np.float32) for key, value in low.items()})
    )


def test_classes_and_channels_adapt_with_our_names_too(tmp_path, variables):
    path = tmp_path / "weights.safetensors"
    files.write_safetensors(path, flat(variables), metadata={})
    with pytest.raises(UserError, match=r"weights\.safetensors': the weights have 1000 classes, the model 7"):
        weights.load(MODEL, path, num_classes=7)
    adapted = weights.load(MODEL, path, num_classes=7, in_channels=1, new_head=jax.random.key(0))
    assert adapted["params"]["head"]["output"]["kernel"].shape == (1024, 7)
    assert adapted["params"]["backbone"]["stem"]["conv"]["kernel"].shape == (3, 3, 1, 24)


def test_safetensors_are_written_whole_from_any_memory_layout(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"a": np.arange(6).reshape(2, 3).T, "b": np.float32(3) * np.ones(()), "c": np.zeros((0, 2), bool)}
    files.write_safetensors(path, arrays, metadata={"format": "flax"})
    for name, value in files.read(path).items():
        np.testing.assert_array_equal(value, arrays[name])
        assert value.dtype == arrays[name].dtype
    assert files.read_metadata(path) == {"format": "flax"}
    assert files.read_metadata(tmp_path / "missing") == {}
    with pytest.raises(UserError, match="cannot be written"):
        files.write_safetensors(tmp_path / "no folder" / "a.safetensors", arrays, metadata={})
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_written_files_have_the_mode_that_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_safetensors(tmp_path / "a.safetensors", {"a": np.zeros(1)}, metadata={})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o644


def test_unfinished_files_have_names_of_their_own(tmp_path):
    assert files.unfinished(tmp_path / "a") != files.unfinished(tmp_path / "a")


@pytest.mark.parametrize("name", ["output/scale", "output"])
def test_our_names_that_the_model_does_not_have_are_one_line(name, tmp_path, variables):
    path, key = tmp_path / "weights.safetensors", f"params/head/{name}"
    files.write_safetensors(path, {**flat(variables), key: np.zeros(3, np.float32)}, metadata={})
    with pytest.raises(UserError, match=f"none of model '{MODEL}': {key} have no place in it$"):
        weights.load(MODEL, path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert published(MODEL, tmp_path / "pipe") is None
    with pytest.raises(UserError, match="is a pipe or device, no file of weights"):
        weights.load(MODEL, tmp_path / "pipe")


def test_names_that_cannot_be_looked_for():
    with pytest.raises(UserError, match="'~nouser/a' starts with the home of a user who is not known"):
        weights.load(MODEL, "~nouser/a")
    with pytest.raises(UserError, match="aaa' is no name of a file: File name too long"):
        weights.load(MODEL, "a" * 5000)


@pytest.mark.parametrize("length", [0, 5, 50, 3_000_000])
def test_damaged_safetensors_are_named(length, tmp_path, state):
    path = tmp_path / "a.safetensors"
    files.write_safetensors(path, state, metadata={})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"a\.safetensors' is no safetensors file, or damaged"):
        files.read(path)


def test_what_is_no_file_of_weights_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"is neither a file nor published weights of 'resnet18'; those are: resnet18\.IMAGENET"
    ):
        weights.load("resnet18", "resnet18.pth")
    with pytest.raises(UserError, match="is a directory, no file of weights"):
        weights.load("resnet18", tmp_path)
    with pytest.raises(UserError, match="unknown model with torch weights 'resent'"):
        weights.load("resent", tmp_path)
    with pytest.raises(UserError, match="are of the model 'resnet50', not of 'resnet18'"):
        weights.load("resnet18", "resnet50.IMAGENET1K_V2")
    (tmp_path / "a.pth").write_bytes(b"not found")
    with pytest.raises(UserError, match=r"a\.pth': it starts with b'not '"):
        weights.load("resnet18", tmp_path / "a.pth")


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file, in several states of health."""

    def do_GET(self):
        self.server.requests.append(self.path)
        content = self.server.content
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path.startswith("/short") else content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, state, monkeypatch):
    """A server of weights, and an empty folder for downloads."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(download.FOLDER, str(tmp_path / "kept" / "here"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.content = [], pth(tmp_path / "served.pth", state).read_bytes()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def publish(server, monkeypatch):
    """`publish(path, ...)`: lets the table say that there are weights at this path of the server."""

    def add(path, **others):
        digest = hashlib.sha256(server.content).hexdigest()
        entry = pretrained.Pretrained(
            name=f"{MODEL}.TEST",
            model=MODEL,
            url=f"http://127.0.0.1:{server.server_port}/{path}",
            sha256=digest[:8],
            data=None,
            accuracy={},
            preprocessing=Preprocessing(),
        )
        entry = dataclasses.replace(entry, **others)
        monkeypatch.setattr(pretrained, "table", lambda: {entry.name: entry})
        return entry, digest

    return add


def kept():
    return sorted(path.name for path in download.folder().iterdir()) if download.folder().exists() else []


def test_published_weights_are_downloaded_once(server, publish, variables):
    entry, _ = publish("net-1a2b.pth")
    for _ in range(2):
        equal(weights.load(MODEL, entry.name), variables)
    assert server.requests == ["/net-1a2b.pth"]
    assert kept() == ["net-1a2b.pth"]


def test_a_file_that_the_user_put_there_is_taken_and_checked(server, publish, variables):
    entry, digest = publish("net.pth")
    download.folder().mkdir(parents=True)
    (download.folder() / "net.pth").write_bytes(server.content)
    equal(weights.load(MODEL, entry.name), variables)
    (download.folder() / "net.pth").write_bytes(server.content + b"x")
    with pytest.raises(UserError, match=f"is damaged: its SHA-256 is .*starts with {digest[:8]}; remove the file"):
        weights.load(MODEL, entry.name)
    assert server.requests == []


def test_another_digest_is_refused_and_nothing_is_kept(publish):
    entry, digest = publish("net.pth", sha256="00000000")
    with pytest.raises(UserError, match=f"net.pth has the SHA-256 {digest}, but that of .* starts with 00000000"):
        weights.load(MODEL, entry.name)
    assert kept() == []


def test_without_a_published_digest_the_files_own_is_told(publish, caplog):
    entry, digest = publish("resolve/main/model.pth", sha256=None)
    with caplog.at_level(logging.WARNING):
        weights.load(MODEL, entry.name)
    assert digest in caplog.text
    assert kept() == [f"{MODEL}.TEST.pth"]  # "model.pth" is the name of many


def test_a_missing_file_says_where_to_put_it(publish, tmp_path):
    entry, _ = publish("missing.pth")
    place = str(tmp_path / "kept" / "here" / "missing.pth")
    with pytest.raises(
        UserError, match=f"/missing.pth answers 404 Not Found; fetch it by other means and put it at '{place}'"
    ):
        weights.load(MODEL, entry.name)
    assert kept() == []


def test_a_download_that_ends_early_is_not_kept(publish):
    entry, _ = publish("short.pth")
    with pytest.raises(UserError, match=r"short\.pth ended after [\d,]+ (of [\d,]+ )?bytes"):
        weights.load(MODEL, entry.name)
    assert kept() == []


def test_without_a_network_the_message_says_what_to_do(publish):
    entry, _ = publish("net.pth", url="http://127.0.0.1:1/net.pth")
    with pytest.raises(
        UserError, match=r"127\.0\.0\.1:1/net\.pth cannot be reached \(.*refused\); fetch it by other means"
    ) as caught:
        weights.load(MODEL, entry.name)
    assert "\n" not in str(caught.value)
    assert kept() == []


def test_a_folder_that_cannot_be_written_is_named(publish, tmp_path, monkeypatch):
    entry, _ = publish("net.pth")
    (tmp_path / "file").touch()
    monkeypatch.setenv(download.FOLDER, str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be written: .*; set CNN_JAX_WEIGHTS to another folder"):
        weights.load(MODEL, entry.name)


def test_the_folder_is_below_the_users_caches(monkeypatch):
    monkeypatch.delenv(download.FOLDER, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert download.folder() == pathlib.Path("/caches/cnn_jax/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    with pytest.raises(UserError, match="set CNN_JAX_WEIGHTS, or HOME"):
        download.folder()


def test_what_a_file_was_published_as_is_known_by_its_name_and_metadata(tmp_path):
    assert published("resnet50", "resnet50.IMAGENET1K_V2").name == "resnet50.IMAGENET1K_V2"
    assert published("resnet50", tmp_path / "resnet50-11ad3fa6.pth").name == "resnet50.IMAGENET1K_V2"
    assert published("resnet18", tmp_path / "resnet50-11ad3fa6.pth") is None
    path = tmp_path / "mine.safetensors"
    files.write_safetensors(path, {"a": np.zeros(1)}, metadata={"weights": "resnet50.IMAGENET1K_V1"})
    assert published("resnet50", path).name == "resnet50.IMAGENET1K_V1"
    assert published("resnet18", path) is None


def test_names_of_older_files_are_todays(golden):
    _, _, meta = golden.load("densenet121")
    today = {key: np.zeros(shape, np.float32) for key, (shape, *_) in meta["tensors"].items()}
    older = {}
    for key, value in today.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if ".denselayer" in key:
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        older[key] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    assert "features.norm0.weight" in older
    weights.convert("densenet121", older)
    with pytest.raises(UserError, match=r"denselayer1\.norm1\.weight, .* are the same tensor"):
        weights.convert("densenet121", {**today, **older})
