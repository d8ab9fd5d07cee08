"""Every bad input of the table in reliability.md has its named error or its documented behaviour.

`TABLE` is keyed by the first cell of that table's rows. An entry is made and checked here (`Case`), or is the name of
the test that does it elsewhere.
"""

import functools
import pathlib
import re
import shutil

import bad_configs_and_places as configs
import bad_files_of_weights as strangers
import bad_images_and_sets as images
import bad_labels_and_shapes as shapes
import pytest
from bench import ROOT, Bench, Case, tiny_regression

from cnn_jax.train.session import train

TABLE: dict[str, tuple[Case | str, ...]] = {
    "wrong num_classes vs checkpoint": shapes.WRONG_CLASSES,
    "label >= C": shapes.LARGE_LABEL,
    "label = -1": shapes.MINUS_ONE,
    "NaN/Inf loss": ("test_a_divergence_stops_the_run_and_keeps_the_last_good_checkpoint",),
    "image smaller than stride/receptive field": shapes.SMALL_IMAGE,
    "grayscale into RGB net": shapes.GREY,
    "odd modes": images.ODD_MODES,
    "corrupt JPEG": images.CORRUPT_JPEG,
    "image bomb": images.IMAGE_BOMB,
    "empty dataset / split, empty class dir, drop_last leaves 0 batches": images.NOTHING,
    "batch not divisible by devices": configs.BATCH_AND_DEVICES,
    "unknown config key / wrong type": configs.UNKNOWN_KEY,
    "truncated checkpoint": ("test_a_truncated_emptied_or_deleted_file_is_found",),
    "bit-flipped checkpoint/weights": (
        "test_a_flipped_bit_in_any_file_is_found_and_the_previous_checkpoint_taken",
        *strangers.FLIPPED,
    ),
    "out of disk": ("test_a_full_disk_costs_no_finished_checkpoint",),
    "killed mid-save": ("test_killed_at_any_moment_a_run_ends_as_if_it_had_not_been",),
    "SIGTERM": ("test_a_signal_saves_and_stops",),
    "two runs, one workdir": (
        "test_a_live_lock_is_refused_and_a_stale_one_taken_over",
        "test_a_directory_in_use_is_refused",
    ),
    "resume with changed config / dataset / worker count": configs.OTHER_RUN,
    "read-only workdir": configs.READ_ONLY,
    "relative path": configs.RELATIVE,
    "non-ASCII/space paths": configs.ODD_NAMES,
    "malicious pickle (.pth/.pt/.pkl/.npy object)": strangers.PICKLES,
    "mismatched preprocessing (mean/std, size, RGB/BGR, 0-255)": strangers.PREPROCESSING,
}
CASES = [
    pytest.param(entry, id=f"{row}: {entry.name}", marks=[pytest.mark.slow] if entry.slow else [])
    for row, entries in TABLE.items()
    for entry in entries
    if isinstance(entry, Case)
]
ELSEWHERE = sorted({entry for entries in TABLE.values() for entry in entries if isinstance(entry, str)})


@pytest.fixture(scope="module")
def run_of_the_bench(tmp_path_factory) -> pathlib.Path:
    """A finished run of the bench's config."""
    directory = tmp_path_factory.mktemp("bench") / "run"
    train(tiny_regression(), directory)
    return directory


@pytest.fixture
def copy_of_a_run(run_of_the_bench, tmp_path) -> pathlib.Path:
    """A copy of that run which a case may change."""
    shutil.copytree(run_of_the_bench, tmp_path / "run")
    return tmp_path / "run"


# Orbax leaves the other reads of a failed one behind, and Python tells when it finds them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("case", CASES)
def test_every_bad_input_has_its_error_or_its_documented_behaviour(case, tmp_path, request):
    case.check(Bench(path=tmp_path, config=tiny_regression(), fixture=request.getfixturevalue))


def test_no_row_of_the_reference_is_forgotten(raw_data):
    reference = raw_data.parent / "reference" / "reliability.md"
    if not reference.is_file():
        pytest.skip(f"{reference} is not there")
    section = reference.read_text(encoding="utf-8").partition("\n## 2. ")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    assert rows[0] == "input"
    assert rows[2:] == list(TABLE)
    assert all(TABLE.values())


@functools.cache
def names_of_tests() -> frozenset[str]:
    """The names of all test functions below `tests/`."""
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")]
    return frozenset(name for text in texts for name in re.findall(r"^def (test_\w+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_tested_elsewhere_is(name):
    assert name in names_of_tests()
