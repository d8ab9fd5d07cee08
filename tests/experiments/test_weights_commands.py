"""`convert.py` and `predict.py` as a user runs them, in this process."""

import importlib
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnn_jax import models, weights
from cnn_jax.errors import UserError
from cnn_jax.weights import files, pretrained
from cnn_jax.weights.preprocess import Preprocessing, preprocess, read_image

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODEL = "squeezenet1_1"
CLASSES = 5


@pytest.fixture(scope="module")
def state(golden):
    """Torch's state dict of a small network with five classes."""
    whole, _, _ = golden.load(MODEL)
    return {key: value[:CLASSES] if key.startswith("classifier") else value for key, value in whole.items()}


@pytest.fixture
def file(tmp_path, state):
    path = tmp_path / "torch.safetensors"
    files.write_safetensors(path, state, metadata={"format": "pt"})
    return path


@pytest.fixture
def command(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module


def test_the_round_trip_is_exact(command, tmp_path, file, state, capsys):
    convert = command("convert")
    ours, theirs = tmp_path / "flax.safetensors", tmp_path / "back.safetensors"
    assert convert.main([f"--model={MODEL}", f"--input={file}", f"--output={ours}"]) == 0
    assert f"wrote {ours}: {len(state)} arrays of" in capsys.readouterr().out
    assert all(name.startswith("params/") for name in files.read(ours))
    assert files.read_metadata(ours) == {"format": "flax", "model": MODEL}
    assert convert.main([f"--model={MODEL}", f"--input={ours}", f"--output={theirs}", "--to=torch"]) == 0
    assert files.read_metadata(theirs) == {"format": "pt", "model": MODEL}
    back = files.read(theirs)
    assert set(back) == set(state)
    for key, value in state.items():
        assert back[key].dtype == value.dtype
        np.testing.assert_array_equal(back[key], value)


def test_published_weights_keep_their_name(command, tmp_path, file):
    (tmp_path / "squeezenet1_1-b8a52dc0.pth").write_bytes(file.read_bytes())
    arguments = [f"--model={MODEL}", f"--input={tmp_path / 'squeezenet1_1-b8a52dc0.pth'}"]
    assert command("convert").main([*arguments, f"--output={tmp_path / 'flax.safetensors'}"]) == 0
    assert files.read_metadata(tmp_path / "flax.safetensors")["weights"] == "squeezenet1_1.IMAGENET1K_V1"


def test_what_cannot_be_converted_is_refused(command, tmp_path, file):
    convert = command("convert")
    output = tmp_path / "new.safetensors"

    def refused(message, *, model=MODEL, input=file, output=output, others=()):
        with pytest.raises(UserError, match=message) as caught:
            convert.main([f"--model={model}", f"--input={input}", f"--output={output}", *others])
        assert "\n" not in str(caught.value)

    refused("is already there", output=file)
    refused("must end with .safetensors", output=tmp_path / "a.pth")
    refused("unknown model with torch weights 'squeezenet'", model="squeezenet")
    refused("do not fit the model", model="squeezenet1_0")
    refused("neither a file nor published weights", input="nowhere.pth")
    refused("are of the model 'resnet50', not of 'squeezenet1_1'", input="resnet50.IMAGENET1K_V2")
    refused("is no JSON", others=["--arguments=width=3"])
    refused("must be a JSON object", others=["--arguments=[1]"])
    refused("must not say model, new_head", others=['--arguments={"new_head": 1, "model": "a"}'])
    refused("starts with the home of a user", output="~nouser/a.safetensors")
    refused("unknown argument of model", others=['--arguments={"widht": 3}'])
    refused("cannot be written", output=tmp_path / "no folder" / "new.safetensors")
    assert not output.exists()
    with pytest.raises(UserError, match="invalid choice: 'onnx'"):
        convert.main([f"--model={MODEL}", f"--input={file}", f"--output={output}", "--to=onnx"])


@pytest.fixture
def pictures(tmp_path):
    """Three image files of different sizes."""
    paths = []
    for index, (height, width) in enumerate(((80, 120), (100, 70), (64, 64))):
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([y * 255 / height, x * 255 / width, 40.0 * index + 0 * x], -1).astype(np.uint8)
        paths.append(str(tmp_path / f"picture {index}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def small_images(monkeypatch):
    """The published weights of the model want small images here, so that the program runs at once."""
    how = Preprocessing(resize=72, crop=(64, 64), interpolation="bicubic")
    entry = pretrained.Pretrained(f"{MODEL}.TEST", MODEL, "http://127.0.0.1:1/a.pth", None, None, {}, how)
    monkeypatch.setattr(pretrained, "table", lambda: {entry.name: entry})
    return how


def test_images_are_classified(command, file, pictures, small_images, state, capsys, tmp_path, monkeypatch):
    predict = command("predict")
    monkeypatch.setattr(predict, "BATCH", 2)  # and so the last batch is not full
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"[class] {index}" for index in range(CLASSES)))
    assert predict.main([f"--model={MODEL}", f"--weights={file}", "--top=2", f"--classes={names}", *pictures]) == 0
    out = capsys.readouterr().out
    model = models.create(MODEL, num_classes=CLASSES)
    variables = weights.convert(MODEL, state)
    images = np.stack([preprocess(read_image(pathlib.Path(path)), small_images) for path in pictures])
    logits = np.asarray(model.apply(variables, jnp.asarray(images), train=False), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    lines = iter(line for line in out.splitlines() if "[class]" in line)
    for path, row in zip(pictures, expected, strict=True):
        for rank, index in enumerate(np.argsort(-row)[:2]):
            line = next(lines)
            assert (path in line) == (rank == 0)
            assert f"[class] {index}" in line
            assert abs(float(line.split()[-1]) - 100 * row[index]) < 0.02
    assert next(lines, None) is None
    assert f"Preprocessing of {MODEL}.TEST: shortest side to 72 pixels (bicubic), middle 64×64" in out


def test_images_that_cannot_be_read_are_named_and_the_others_shown(
    command, file, pictures, small_images, capsys, tmp_path
):
    predict = command("predict")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    images = ["missing.png", pictures[0], str(tmp_path / "broken.jpg")]
    assert predict.main([f"--model={MODEL}", f"--weights={file}", *images]) == 2
    out, err = capsys.readouterr()
    assert pictures[0] in out
    lines = err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: 'missing.png' cannot be read")
    assert "broken.jpg' is no image" in lines[1]
    assert predict.main([f"--model={MODEL}", f"--weights={file}", "missing.png"]) == 2
    assert capsys.readouterr().out == ""


def test_what_cannot_be_predicted_is_refused(command, file, pictures, small_images, tmp_path):
    predict = command("predict")
    arguments = [f"--model={MODEL}", f"--weights={file}", pictures[0]]
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\n")
    for others, message in (
        ([f"--classes={names}"], "has 2 lines, but the weights have 5 classes"),
        (["--classes=nowhere.txt"], "--classes=nowhere.txt cannot be read"),
        (["--top=0"], "--top=0 must be 1 or more"),
        (["--preprocessing=resnet50.V9"], "unknown weights 'resnet50.V9'"),
        (["--model=r3d_18"], "takes videos"),
        (["--model=resnet05"], "unknown model with torch weights"),
    ):
        with pytest.raises(UserError, match=message):
            predict.main([*arguments, *others])


def test_imagenets_names_are_for_1000_classes(command):
    predict = command("predict")
    assert predict.class_names(None, 1000)[281] == "tabby"
    assert predict.class_names(None, 3) == ["0", "1", "2"]


def test_both_commands_end_as_all_commands_do(tmp_path):

    for script, others in (
        ("convert.py", ["--output=a.safetensors", "--input=x"]),
        ("predict.py", ["--weights=x", "y.png"]),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "experiments" / script), "--model=resnet05", *others],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith("error: unknown model with torch weights 'resnet05'")
        assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
