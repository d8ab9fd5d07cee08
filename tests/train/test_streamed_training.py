"""Training on a stream: the run that the same images in memory give, what is skipped, and what a config may not ask."""

import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.sources import open_source
from cnn_jax.data.stream import open_stream
from cnn_jax.errors import ProcessLostError, UserError
from cnn_jax.train.figures import most_confidently_wrong
from cnn_jax.train.prediction import predict
from cnn_jax.train.run import build
from cnn_jax.train.session import evaluate_run, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Sixty digits of 8×8 pixels as PNG files in a folder for each class."""
    digits = open_source("sklearn", "digits").load("train[:60]")
    root = tmp_path_factory.mktemp("streamed") / "digits"
    for index, (image, label) in enumerate(zip(digits.images, digits.labels)):
        place = root / ("train" if index < 40 else "test") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{index:03d}.png")
    return root


@pytest.fixture
def config(tiny_config, folder) -> dict:
    """The tiny config on the folder, streamed."""
    tiny_config["data"] = {
        "source": "folder",
        "name": folder.name,
        "directory": str(folder.parent),
        "splits": {"train": "train[:33]", "validation": "train[33:]", "test": "test"},
        "channels": 1,
        "batch_size": 16,
        "evaluation_batch_size": 8,
        "mean": (0.3,),
        "std": (0.4,),
        "augment": ({"name": "random_crop", "padding": 1},),
        "stream": {},
    }
    tiny_config["model"] = {"name": "classic_stack", "channels": (4,), "in_channels": 1, "dense": ()}
    tiny_config["train"] |= {"duration": {"steps": 6}, "ema": None}
    return tiny_config


def lines(path: pathlib.Path) -> list[dict]:
    """The log without times."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


@pytest.mark.slow
def test_a_streamed_run_is_the_run_in_memory(config, tmp_path):
    result = train(config, tmp_path / "streamed")
    config["data"]["stream"] = None
    in_memory = train(config, tmp_path / "memory")
    assert result["metrics"] == in_memory["metrics"]
    assert result["config_sha256"] == in_memory["config_sha256"]
    assert lines(tmp_path / "streamed") == lines(tmp_path / "memory")
    passport = json.loads((tmp_path / "streamed" / "passport.json").read_text(encoding="utf-8"))
    assert json.dumps(passport).count('"digest_of": "contents"') == 3
    assert evaluate_run(tmp_path / "streamed", split="validation")["examples"] == 7


@pytest.mark.slow
def test_a_resumed_stream_gives_the_uninterrupted_run(config, tmp_path):
    config["train"]["keep_checkpoints"] = 100
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = train(config, whole)
    shutil.copytree(whole, cut)
    for later in (cut / "checkpoints").iterdir():  # what a kill behind the step 2 leaves, in the middle of an epoch
        if int(later.name) > 2:
            shutil.rmtree(later)
    (cut / "result.json").unlink()
    assert train(config, cut, resume=True)["metrics"] == result["metrics"]
    assert lines(cut) == lines(whole)


@pytest.mark.slow
def test_a_stream_is_resumed_from_memory_and_back_and_with_other_patience(config, tmp_path):
    config["train"]["keep_checkpoints"] = 100
    result = train(config, tmp_path / "whole")
    for streams in (({}, None), (None, {})):
        path = tmp_path / f"{streams}"
        config["data"]["stream"] = streams[0]
        train(config, path)
        for later in (path / "checkpoints").iterdir():
            if int(later.name) > 2:
                shutil.rmtree(later)
        (path / "result.json").unlink()
        config["data"] |= {"stream": streams[1], "on_corrupt": "skip", "max_corrupt": 7}
        assert train(config, path, resume=True)["metrics"] == result["metrics"]
        assert lines(path) == lines(tmp_path / "whole")


def test_an_augmentation_that_does_not_suit_the_images_begins_no_run(config, tmp_path):
    config["data"]["augment"] = ({"name": "rand_augment", "magnitude": 40},)
    with pytest.raises(UserError, match="magnitude 40 is none of 31 bins"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


WORKERS = """
import sys, time
from cnn_jax.data.sources import open_source
from cnn_jax.data.stream import open_stream

def main():
    stream = open_stream(open_source("folder", sys.argv[1]), "train", workers=2)
    batches = stream.training_batches(seed=0, start=0, batch_size=4)
    next(batches)
    import multiprocessing
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    main()
"""


def running(number: int) -> bool:
    """Whether a process runs; one that has ended may wait for the system to notice."""
    try:
        state = pathlib.Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_the_training_process_is_killed(folder, tmp_path, sent):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(script), str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [int(number) for number in process.stdout.readline().split()]
        assert len(workers) == 2
        process.send_signal(sent)
    deadline = time.monotonic() + 60
    while any(running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_predictions_of_what_is_skipped_are_nan(config, folder, tmp_path):
    root = tmp_path / "damaged" / "digits"
    shutil.copytree(folder, root)
    broken = sorted((root / "test").rglob("*.png"))[3]
    broken.write_bytes(b"no image")
    config["data"] |= {"directory": str(root.parent), "on_corrupt": "skip"}
    experiment = build(config)
    predicted = predict(experiment, experiment.initial_state(), "test")["probabilities"]
    assert np.flatnonzero(np.isnan(predicted).any(axis=1)).tolist() == [3]
    figure = most_confidently_wrong(
        experiment.splits["test"].read, np.full(20, 10), predicted, [str(n) for n in range(11)], "test"
    )
    assert "nan" not in " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line(folder):
    batches = open_stream(open_source("folder", str(folder)), "train", workers=1).training_batches(
        seed=0, start=0, batch_size=4
    )
    next(batches)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(ProcessLostError, match=r"was killed, perhaps for want of memory.*fewer data\.stream\.workers"):
        list(itertools.islice(batches, 100))


@pytest.mark.slow
def test_what_is_skipped_is_in_result_and_report(config, folder, tmp_path):
    root = tmp_path / "damaged" / "digits"
    for file in folder.rglob("*.png"):
        place = root / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    broken = sorted((root / "train").rglob("*.png"))[5]
    broken.write_bytes(b"no image")
    config["data"] |= {"directory": str(root.parent), "on_corrupt": "skip"}
    for stream in ({}, None):
        config["data"]["stream"] = stream
        path = tmp_path / f"run {stream}"
        result = train(config, path)
        ((problem,),) = result["corrupt"].values()
        assert broken.name in problem
        assert broken.name in (path / "report.md").read_text(encoding="utf-8")
    config["data"]["on_corrupt"] = "error"
    with pytest.raises(UserError, match=broken.name):
        train(config, tmp_path / "error")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None}, "config.data.mean and data.std are not measured on a stream"),
        ({"resident": True}, "drop one"),
        ({"stream": {"workers": -1}}, "config.data.stream.workers"),
        ({"stream": {"worker": 1}}, "did you mean 'workers'"),
        ({"transforms": {"evaluation": ({"name": "random_flip"},)}}, "evaluation is not random"),
        ({"transforms": {"train": ({"name": "random_flip"},)}, "stream": None}, "in memory are transformed once"),
        ({"transforms": {"train": ({"name": "rezise"},)}}, "did you mean 'resize'"),
        ({"wrappers": {"train": ({"name": "label_nose"},)}}, "did you mean 'label_noise'"),
        ({"on_corrupt": "ignore"}, "config.data.on_corrupt"),
        ({"channels": 2}, "config.data.channels"),
    ],
)
def test_what_a_config_may_not_ask_is_one_line(config, change, message):
    config["data"] |= change
    with pytest.raises(UserError) as error:
        build(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_wrappers_reach_training_and_the_passport(config, tmp_path):
    fold = {"name": "fold", "folds": 4, "fold": 1}
    config["data"]["splits"] = {"train": "train", "validation": "train", "test": "test"}
    config["data"]["wrappers"] = {
        "train": ({**fold, "part": "train"}, {"name": "label_noise", "rate": 0.5}),
        "validation": ({**fold, "part": "validation"},),
    }
    for stream in ({}, None):
        config["data"]["stream"] = stream
        experiment = build(config)
        sizes = {name: len(split) for name, split in experiment.splits.items()}
        assert sizes["train"] + sizes["validation"] == 40
        assert abs(sizes["validation"] - 10) <= 3
        origin = experiment.splits["train"].description()["origin"]
        assert "fold" in origin
        assert "label_noise" in origin
    first, second = (jax.device_get(build(config).batch(1)) for _ in range(2))
    np.testing.assert_array_equal(first["label"], second["label"])
    config["data"]["wrappers"]["validation"] = ()
    with pytest.raises(UserError, match="share examples"):
        train(config, tmp_path / "overlap")
