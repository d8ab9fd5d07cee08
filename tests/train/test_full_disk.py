"""A full or failing disk: training stops and says why, loses no finished checkpoint, and goes on when it can."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from cnn_jax.train.checkpoint_arrays import read_arrays
from cnn_jax.train.manifest import check_files
from cnn_jax.train.writers import JsonLines, read_rows

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).parent
CONFIG = """
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.task = {"name": "classification"}
    config.model = {"name": "mlp", "hidden": (512, 512), "in_channels": 1}
    config.data = {
        "source": "sklearn",
        "name": "digits",
        "splits": {"train": "train[:80%]", "validation": "train[80%:]"},
        "batch_size": 32,
    }
    config.optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
    config.train = {
        "duration": {"steps": 40},
        "log_every": {"steps": 3},
        "evaluate_every": {"steps": 10},
        "save_every": {"steps": 4},
        "keep_checkpoints": 100,
        "figures": False,
    }
    return config.lock()
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def arguments(config, directory):
    command = [sys.executable, str(ROOT / "experiments" / "train.py")]
    return [*command, f"--config={config}", f"--workdir={directory}", "--config.parallel.devices=1", "--resume"]


def without_times(directory):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(directory / "metrics.jsonl")]


# $1 is a folder; what follows is the command. The folder is a file system of 20 MB, then of 200 MB.
SCRIPT = """
set -u
disk="$1"; shift
mount -t tmpfs -o size=20m tmpfs "$disk" || exit 77
"$@" > "$disk.first" 2>&1
echo "status $?" >> "$disk.first"
cp -r "$disk/run" "$disk.full"
mount -o remount,size=200m "$disk" || exit 77
"$@" > "$disk.second" 2>&1
echo "status $?" >> "$disk.second"
cp -r "$disk/run" "$disk.done"
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system as Linux does")
def test_a_full_disk_costs_no_finished_checkpoint(tmp_path):
    config, disk = tmp_path / "config.py", tmp_path / "disk"
    config.write_text(CONFIG, encoding="utf-8")
    disk.mkdir()
    script = ["bash", "-c", SCRIPT, "bash", str(disk), *arguments(config, disk / "run")]
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    try:
        done = subprocess.run(
            [*namespace, *script], env=environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here, which gives a file system of 20 MB")
    if done.returncode in (1, 77):
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    first, second = (pathlib.Path(f"{disk}.{name}").read_text(encoding="utf-8") for name in ("first", "second"))
    assert "Traceback" not in first + second, first + second
    reason = re.search(
        r"error: .* cannot be written: .*(No space left|RESOURCE_EXHAUSTED).*; to go on:\n  .*--resume", first
    )
    assert reason, first
    assert first.splitlines()[-1] == "status 1"
    full = pathlib.Path(f"{disk}.full")
    kept = sorted(int(path.name) for path in (full / "checkpoints").glob("[0-9]*"))
    assert len(kept) >= 2, kept
    for step in kept:
        check_files(full / "checkpoints" / str(step))
    assert not list((full / "checkpoints").glob(".*")), "what could not be finished takes the space that is missing"
    assert not (full / "result.json").exists()
    assert second.splitlines()[-1] == "status 0", second
    whole = tmp_path / "whole"
    subprocess.run(arguments(config, whole), env=environment(), cwd=ROOT, check=True, capture_output=True)
    ended = pathlib.Path(f"{disk}.done")
    assert without_times(ended) == without_times(whole)
    ours, theirs = (read_arrays(run / "checkpoints" / "40") for run in (ended, whole))
    assert all(ours[path].tobytes() == theirs[path].tobytes() for path in theirs)


@pytest.fixture(scope="session")
def failing_writes(tmp_path_factory):
    """The library that makes writes fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler here to make a disk that fails")
    library = tmp_path_factory.mktemp("library") / "failing_writes.so"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        str(library),
        str(HERE / "failing_writes.c"),
        "-ldl",
        "-lpthread",
    ]
    subprocess.run(command, check=True)
    return library


@pytest.mark.slow
@pytest.mark.parametrize(("what", "every", "least"), [("checkpoint", 3, 20), ("training", 12, 20)])
def test_any_write_may_fail_and_costs_no_finished_checkpoint(failing_writes, tmp_path, what, every, least):
    folder = tmp_path / "below"
    folder.mkdir()
    command = [sys.executable, str(HERE / "every_write.py"), what, str(failing_writes), str(folder), str(every)]
    preloaded = environment(LD_PRELOAD=str(failing_writes))
    done = subprocess.run(command, env=preloaded, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    injected = int(done.stdout.split()[0])
    print(done.stdout)
    assert injected >= least, done.stdout


LIMITED = """
import pathlib, resource, sys
import jax
import jax.numpy as jnp
from cnn_jax.train.checkpoint import Checkpoints, Progress

checkpoints = Checkpoints(pathlib.Path(sys.argv[1]), keep=1)
checkpoints.save(1, {"x": jnp.arange(8.0)}, {"n": jnp.zeros(())}, Progress())
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, resource.RLIM_INFINITY))
checkpoints.save(2, {"x": jax.random.normal(jax.random.key(0), (1 << 18,))}, {"n": jnp.zeros(())}, Progress())
try:
    checkpoints.wait()
except OSError as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("steps:", Checkpoints(pathlib.Path(sys.argv[1]), keep=None).steps())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_disk_that_takes_no_more_is_one_line_and_costs_no_finished_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "checkpoints")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("StorageError a checkpoint in ")
    assert "cannot be written" in lines[0]
    assert lines[1] == "steps: [1]"


class FullFile:
    """A file of a disk that is full, until it is not."""

    def __init__(self, file):
        self.file, self.full = file, True

    def write(self, data):
        """Half of what is asked, as a disk that fills up does, then nothing."""
        if self.full and len(data) < 8:
            raise OSError(28, "No space left on device")
        return self.file.write(data[: len(data) // 2] if self.full else data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_lines_of_the_log_that_could_not_be_written_are_written_later(tmp_path, capsys):
    log = JsonLines(tmp_path / "metrics.jsonl", resume_step=0)
    log.write(1, {"loss": 1.0})
    log._file = file = FullFile(log._file)
    for step in (2, 3):
        log.write(step, {"loss": float(step)})
    assert capsys.readouterr().err.count("No space left on device; training goes on, the line is tried again") == 1
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]  # the torn line is none
    file.full = False
    log.write(4, {"loss": 4.0})
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    file.full = True
    log.write(5, {"loss": 5.0})
    with pytest.raises(OSError, match=r"metrics.jsonl cannot be written: No space left on device"):
        log.flush()
    file.full = False
    log.close()
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
