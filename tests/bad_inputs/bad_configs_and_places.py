"""Configs that cannot be run, and directories that cannot be written or are those of another run."""

import json
import os
import pathlib

import jax
import numpy as np
from bench import STREAM, Bench, Case, changed, image_folder, on_folder, refused, refused_by_status

from cnn_jax.train.run import build
from cnn_jax.train.run_directory import RunDirectory
from cnn_jax.train.session import evaluate_run, train


def batch_and_devices(bench: Bench) -> None:
    config = changed(bench.config, "parallel.devices", 8)
    for size, nearest in {20: "use 16 or 24", 4: "use 8"}.items():
        message = rf"batch_size {size} cannot be divided over 8 device.*{nearest}"
        refused(message, train, changed(config, "data.batch_size", size), bench.path / "run")
    assert not (bench.path / "run").exists()


def evaluation_is_padded(bench: Bench) -> None:
    experiment = build(changed(changed(bench.config, "parallel.devices", 8), "data.evaluation_batch_size", 20))
    batches = list(experiment.evaluation_batches("test"))
    assert all(batch["mask"].shape[0] % 8 == 0 for batch in batches)
    assert sum(float(batch["mask"].sum()) for batch in batches) == 32


WRONG_KEYS = {
    ("sed", 3): r"config\.sed: unknown key 'sed'; did you mean 'seed'\? Valid here: data, init, model",
    ("train.acumulate", 3): r"config\.train\.acumulate: unknown key 'acumulate'; did you mean 'accumulate'",
    ("model.widht", 3): r"config\.model\.widht: unknown key 'widht'.*Valid here: .*hidden",
    ("optimizer.momentun", 0.9): "did you mean 'momentum'",
    ("task.loss", "cross_entropy"): r"config\.task\.loss: must be a node such as .*, got 'cross_entropy'",
    ("data.batch_size", "16"): r"config\.data\.batch_size: should be a valid integer, got '16' \(str\)",
    ("data.batch_size", 16.5): r"config\.data\.batch_size: .*got 16\.5",
    ("train.duration", 8): r"config\.train\.duration: should be a duration such as \{'steps': 100\}, got 8",
    ("model.hidden", "wide"): r"config\.model\.hidden: .*got 'wide'",
    ("optimizer.learning_rate", "fast"): r"config\.optimizer\.learning_rate: .*got 'fast'",
}


def unknown_keys(bench: Bench) -> None:
    for (path, value), message in WRONG_KEYS.items():
        refused(message, train, changed(bench.config, path, value), bench.path / "run")
    assert not (bench.path / "run").exists()


def before_any_device(bench: Bench) -> None:
    """On a platform that does not exist, so that taking a device would be another error."""
    file, workdir = bench.config_file(), f"--workdir={bench.path / 'run'}"
    for override, message in {
        "--config.sed=1": "unknown key 'sed'; did you mean 'seed'?",
        "--config.train.duration=8": "should be a duration such as {'steps': 100}, got 8",
        "--config.optimizer.momentun=0.9": "unknown key 'momentun'; did you mean 'momentum'?",
        "--config.model.widht=3": "config.model.widht: unknown key 'widht'",
        "--confg.seed=1": "'--confg.seed=1' is not understood",
    }.items():
        done = bench.process("train", f"--config={file}", workdir, override, JAX_PLATFORMS="nothing")
        refused_by_status(message, done)
    assert not (bench.path / "run").exists()


def another_config(bench: Bench) -> None:
    run = bench.fixture("copy_of_a_run")
    config = changed(changed(bench.config, "optimizer.learning_rate", 0.2), "seed", 1)
    message = (
        r"different config \(config\.seed: 0 -> 1; config\.optimizer\.learning_rate: 0\.1 -> 0\.2\); choose another"
    )
    for resume in (True, False):
        refused(message, train, config, run, resume=resume)
    refused(r"already holds this run; add --resume to continue it", train, bench.config, run)


def other_data(bench: Bench) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    labels = np.arange(40) % 4
    file = bench.path / "a.npz"
    names = {"train_images": images, "train_labels": labels, "test_images": images[:8], "test_labels": labels[:8]}
    np.savez(file, **names)
    splits = {"train": "train", "test": "test"}
    data = {"source": "arrays", "name": str(file), "splits": splits, "batch_size": 8, "mean": (0.5,), "std": (0.5,)}
    config = {**bench.config, "data": data, "train": {"duration": {"steps": 1}, "figures": False}}
    train(config, bench.path / "run")
    (bench.path / "run" / "result.json").unlink()
    images[17, 3, 3] ^= 1  # one bit
    np.savez(file, **names)
    message = (
        r"was trained on arrays/a.*/train with other content than arrays/a.*/train has now \(split 'train'\); give"
    )
    refused(message, train, config, bench.path / "run", resume=True)


def other_workers(bench: Bench) -> None:
    """They change no batch, so they may change."""
    root = image_folder(bench.path / "images")
    config = on_folder(bench.config, root, **STREAM)
    with RunDirectory(bench.path / "run", build(config).config, resume=False) as directory:
        directory.begin({"seed": 0})
    for workers in ({"workers": 2}, None):
        other = build(changed(config, "data.stream", workers)).config
        with RunDirectory(bench.path / "run", other, resume=True) as directory:
            assert not directory.is_new


def places_that_cannot_be_written(bench: Bench) -> list[pathlib.Path]:
    """For root, too, who may write where the mode says that nobody may."""
    (bench.path / "file").touch()
    places = [bench.path / "file" / "run", pathlib.Path("/proc/run")]
    if os.geteuid():
        (bench.path / "locked").mkdir(mode=0o500)
        places.append(bench.path / "locked" / "run")
    return places


def read_only_before_compilation(bench: Bench) -> None:
    compiled: list[str] = []
    build(bench.config)
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        for place in places_that_cannot_be_written(bench):
            message = f"work directory '{place}' is not writable: .*; choose another --workdir"
            refused(message, train, bench.config, place)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


def read_only_for_the_commands(bench: Bench) -> None:
    file, study = bench.config_file(), study_file(bench, bench.path)
    for place in places_that_cannot_be_written(bench):
        message = f"work directory '{place}' is not writable: .*; choose another --workdir"
        refused(message, bench.command, "inspect_data", f"--config={file}", f"--workdir={place}")
        refused(message, bench.command, "study", f"--study={study}", f"--workdir={place}")


def study_file(bench: Bench, place: pathlib.Path) -> pathlib.Path:
    """A small study in a file of an odd name."""
    study = {**bench.fixture("tiny_study"), "seeds": (0, 1)}
    text = "from ml_collections import ConfigDict\n\ndef get_config():\n"
    text += f"    return ConfigDict({study!r}, allow_dotted_keys=True)\n"
    (place / "prüfung.py").write_text(text, encoding="utf-8")
    return place / "prüfung.py"


def relative_paths(bench: Bench) -> None:
    bench.fixture("monkeypatch").chdir(bench.path)
    result = train(bench.config, "runs/one")
    assert (bench.path / "runs" / "one" / "checkpoints" / "4").is_dir()
    (bench.path / "runs" / "one" / "result.json").unlink()
    assert (
        train(bench.config, pathlib.Path("runs") / ".." / "runs" / "one", resume=True)["metrics"] == result["metrics"]
    )
    assert evaluate_run(pathlib.Path("runs/one"))["metrics"]["test/accuracy"] == result["metrics"]["test/accuracy"]


PLACE = "übung 1/läufe 犬"


def a_run_in_an_odd_place(bench: Bench) -> None:
    """Train, resume and evaluate where folders, files and classes have such names."""
    place = bench.path / PLACE
    root = image_folder(place / "bilder ß", classes=("hund ü", "猫 $a_b$"))
    bench.config.update(on_folder(bench.config, root))
    file, run = bench.config_file(f"{PLACE}/eine Übung.py"), place / "lauf 1"
    assert bench.command("train", f"--config={file}", f"--workdir={run}") == 0
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    (run / "result.json").unlink()
    assert bench.command("train", f"--config={file}", f"--workdir={run}", "--resume") == 0
    assert json.loads((run / "result.json").read_text(encoding="utf-8"))["metrics"] == result["metrics"]
    assert bench.command("evaluate", f"--run={run}", "--split=test") == 0
    stored = json.loads((run / "evaluation_test_step_4.json").read_text(encoding="utf-8"))
    assert stored["metrics"]["test/accuracy"] == result["metrics"]["test/accuracy"]
    assert str(root) in (run / "config.json").read_text(encoding="utf-8")


def figures_in_an_odd_place(bench: Bench) -> None:
    """Of a run and of an inspection, with class names that the font of figures has no letters for."""
    place = bench.path / PLACE
    root = image_folder(place / "bilder ß", classes=("hund ü", "猫 $a_b$"))
    bench.config.update(on_folder(bench.config, root))
    bench.config["train"] = {**bench.config["train"], "figures": True}
    file = bench.config_file(f"{PLACE}/eine Übung.py")
    assert bench.command("train", f"--config={file}", f"--workdir={place / 'lauf 2'}") == 0
    assert (place / "lauf 2" / "figures" / "confusion_matrix.png").stat().st_size > 1000
    assert bench.command("inspect_data", f"--config={file}", f"--workdir={place / 'daten'}") == 0
    assert r"猫 \$a_b\$" in (place / "daten" / "data.md").read_text(encoding="utf-8")


def a_study_in_an_odd_place(bench: Bench) -> None:
    place = bench.path / PLACE
    place.mkdir(parents=True)
    assert bench.command("study", f"--study={study_file(bench, place)}", f"--workdir={place / 'studie 1'}") == 0
    assert {"report.md", "results.csv"} <= {path.name for path in (place / "studie 1").iterdir()}


def where_text_is_ascii(bench: Bench) -> None:
    """Python then has the bytes of a name, which no JSON file can hold: a line says so, and what to do."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = (f"--config={bench.config_file()}", f"--workdir={bench.path / 'läufe'}")
    refused_by_status(
        "is no text in the encoding ascii of this system", bench.process("train", *arguments, **ascii_only)
    )
    assert not (bench.path / "läufe").exists()
    # Python itself chooses UTF-8 where the locale is C and nothing forbids it.
    done = bench.process("train", *arguments, LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert (bench.path / "läufe" / "result.json").exists()


def names_that_are_no_utf8(bench: Bench) -> None:
    name = os.fsdecode(b"l\xfcufe")
    message = r"--workdir='l\\udcfcufe' is no text in the encoding .* of this system; choose a name such as"
    for command in ("train", "inspect_data"):
        refused(message, bench.command, command, f"--config={bench.config_file()}", f"--workdir={name}")
    study = study_file(bench, bench.path)
    refused(message, bench.command, "study", f"--study={study}", f"--workdir={name}")
    for key in ("name", "directory"):
        config = changed(bench.config, f"data.{key}", name)
        refused(rf"config\.data\.{key}.*: 'l\\udcfcufe' has .*bytes that are no text; rename it", build, config)


BATCH_AND_DEVICES = (
    Case("names the nearest sizes", batch_and_devices),
    Case("evaluation is padded and masked", evaluation_is_padded),
    "test_evaluation_counts_each_example_once",
)
UNKNOWN_KEY = (
    Case("names the nearest key", unknown_keys),
    Case("before any device", before_any_device),
    "test_bad_input_is_one_line_before_any_step",
    "test_bad_input_is_one_line_and_status_2",
)
OTHER_RUN = (
    Case("config", another_config),
    Case("data", other_data),
    Case("workers", other_workers),
    "test_a_stream_is_resumed_from_memory_and_back_and_with_other_patience",
    "test_two_processes_make_the_batches_of_threads_from_every_step",
)
READ_ONLY = (
    Case("before compilation", read_only_before_compilation),
    Case("inspect_data and study", read_only_for_the_commands),
)
RELATIVE = (Case("train, resume, evaluate", relative_paths),)
ODD_NAMES = (
    Case("train, resume, evaluate", a_run_in_an_odd_place),
    Case("figures, inspect_data", figures_in_an_odd_place, slow=True),
    Case("study", a_study_in_an_odd_place, slow=True),
    Case("where text is ASCII", where_text_is_ascii, slow=True),
    Case("no UTF-8", names_that_are_no_utf8),
)
