"""Files of weights and arrays from strangers, and images that are not prepared as the weights expect."""

import io
import json
import pathlib
import pickle
import zipfile
from typing import Any

import numpy as np
from bad_configs_and_places import PLACE
from bad_labels_and_shapes import MODEL, weights_file
from bench import Bench, Case, changed, image_file, image_folder, on_folder, refused

from cnn_jax import weights
from cnn_jax.data.sources import open_source
from cnn_jax.train.run import build
from cnn_jax.train.session import evaluate_run, train
from cnn_jax.weights import files, pretrained
from cnn_jax.weights.preprocess import Preprocessing


class Attack:
    """Unpickling it makes a file."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return pathlib.Path.touch, (self.path,)


def malicious_weights(bench: Bench) -> None:
    mark = bench.path / "it ran"
    attack = pickle.dumps({"weight": Attack(mark)}, protocol=2)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", attack)
        file.writestr("archive/version", "3\n")
    for content in (attack, archive.getvalue()):
        for name in ("weights.pth", "weights.pt", "weights.pkl", "weights", "weights.safetensors"):
            path = bench.path / name
            path.write_bytes(content)
            refused(rf"/{name}'( |:)", weights.load, MODEL, path)
            output = bench.path / "out.safetensors"
            refused(name, bench.command, "convert", f"--model={MODEL}", f"--input={path}", f"--output={output}")
            picture = image_file(bench.path / "a.png")
            refused(name, bench.command, "predict", f"--model={MODEL}", f"--weights={path}", picture)
    assert not mark.exists()
    pickle.loads(attack)
    assert mark.exists()  # the attack is a real one


def malicious_arrays(bench: Bench) -> None:
    mark = bench.path / "it ran"
    objects = np.array([Attack(mark)] * 4, object)
    folder = bench.path / "set"
    folder.mkdir()
    for name in ("images", "labels"):
        np.save(folder / f"{name}.npy", objects, allow_pickle=True)
    refused(
        r"images\.npy holds Python objects, which could run anything; store numbers", open_source, "arrays", str(folder)
    )
    np.savez(bench.path / "a.npz", images=np.zeros((4, 8, 8), np.uint8), labels=objects)
    refused(r"a\.npz: labels holds Python objects", open_source, "arrays", str(bench.path / "a.npz"))
    (bench.path / "b.npz").write_bytes(pickle.dumps(Attack(mark)))
    refused(r"b\.npz' is damaged or no array", open_source, "arrays", str(bench.path / "b.npz"))
    refused(r"a\.npz': ", weights.load, MODEL, bench.path / "a.npz")
    assert not mark.exists()


def a_flipped_bit_in_a_torch_file(bench: Bench) -> None:
    """A torch file is an archive with a checksum for each tensor."""
    whole = pathlib.Path(__file__).parent.parent / "reference" / "pth" / "module.pth"
    content = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        member = max(archive.infolist(), key=lambda one: one.file_size)
    content[member.header_offset + 30 + len(member.filename) + member.file_size // 2 + 40] ^= 1
    path = bench.path / "flipped.pth"
    path.write_bytes(bytes(content))
    refused(r"flipped\.pth'", files.read, path)


def every_published_file_says_what_it_expects(bench: Bench) -> None:
    for name, entry in pretrained.table().items():
        how = entry.preprocessing
        channels = len(how.mean)
        assert channels == len(how.std) == 3, name
        assert all(0 <= value <= 1 for value in how.mean), name
        assert all(0 < value <= 1 for value in how.std), name
        assert how.interpolation in ("bilinear", "bicubic"), name
        assert how.crop is None or min(how.crop) > 0, name


def pictures_are_prepared_as_the_weights_expect(bench: Bench) -> None:
    """`predict.py` does it by itself, and says how; also where names are odd."""
    how = Preprocessing(resize=72, crop=(64, 64), interpolation="bicubic", mean=(0.1, 0.2, 0.3))  # small: quick
    entry = pretrained.Pretrained(f"{MODEL}.TEST", MODEL, "http://127.0.0.1:1/a.pth", None, None, {}, how)
    bench.fixture("monkeypatch").setattr(pretrained, "table", lambda: {entry.name: entry})
    place = bench.path / PLACE
    place.mkdir(parents=True)
    path, _ = weights_file(bench)
    output = place / "gewichte ü.safetensors"
    assert bench.command("convert", f"--model={MODEL}", f"--input={path}", f"--output={output}") == 0
    picture = image_file(place / "ein hund 犬.png", size=(40, 50))
    names = place / "klassen.txt"
    names.write_text("\n".join("äöü犬e"), encoding="utf-8")
    arguments = (f"--model={MODEL}", f"--weights={output}", f"--classes={names}", picture)
    bench.fixture("capsys").readouterr()
    assert bench.command("predict", *arguments) == 0
    shown = bench.fixture("capsys").readouterr().out
    assert "犬" in shown
    assert str(how) in shown.replace("\n", " ")


def other_units_and_channels(bench: Bench) -> None:
    root = image_folder(bench.path / "images")
    for name, value in {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}.items():
        message = rf"config\.data\.{name}\.0: {value[0]} is not in \[0, 1\], where pixels are; divide .* by 255"
        refused(message, train, on_folder(bench.config, root, **{name: value}), bench.path / "run")
        refused(
            rf"config\.data\.{name} has 1 values, the images have 3 channels",
            build,
            on_folder(bench.config, root, **{name: (0.5,)}),
        )
    np.savez(bench.path / "a.npz", images=np.zeros((9, 8, 8, 3), np.float32), labels=np.arange(9) % 3)
    refused(
        r"images has type float32; images must be uint8, 0 to 255", open_source, "arrays", str(bench.path / "a.npz")
    )


def evaluation_takes_the_runs_own(bench: Bench) -> None:
    """Mean and deviation are kept with the run: those of other images are not measured anew."""
    run = bench.fixture("copy_of_a_run")
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))["data"]
    assert tuple(stored["mean"]) == build(bench.config).mean
    config = changed(bench.config, "data.splits.train", "train[64:]")
    assert tuple(stored["mean"]) != build(config).mean
    assert evaluate_run(run, split="train[64:164]")["examples"] == 100


PICKLES = (
    Case("weights", malicious_weights),
    Case("arrays", malicious_arrays),
    "test_a_file_that_tries_anything_else_is_refused",
    "test_headers_that_lie",
)
FLIPPED = (
    Case("in a torch file", a_flipped_bit_in_a_torch_file),
    "test_a_file_that_the_user_put_there_is_taken_and_checked",
    "test_another_digest_is_refused_and_nothing_is_kept",
)
PREPROCESSING = (
    Case("published weights", every_published_file_says_what_it_expects),
    Case("pictures", pictures_are_prepared_as_the_weights_expect),
    Case("units and channels", other_units_and_channels),
    Case("a run keeps its own", evaluation_takes_the_runs_own),
    "test_torchvisions_weights_are_as_torchvision_describes_them",
    "test_an_image_becomes_what_torchvision_makes_of_it",
)
