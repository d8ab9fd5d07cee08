"""A process that reads hostile files in children of its own, and what every one of them must come to."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

MOST_MEGABYTES, MOST_SECONDS = 300, 10
"""For files of less than a megabyte; the seconds are for a machine that others use too."""


@pytest.fixture(scope="session")
def attempt():
    """`attempt(reader, path, …)` is what came of reading a file: (outcome, message), within bounds."""
    script = pathlib.Path(__file__).with_name("reading.py")
    root = script.parent.parent.parent
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
    )

    def attempt(reader, path, *, megabytes=MOST_MEGABYTES, seconds=MOST_SECONDS):
        process.stdin.write(json.dumps([reader, str(path)]) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["outcome"] in ("read", "refused"), answer
        assert answer["megabytes"] < megabytes, answer
        assert answer["seconds"] < seconds, answer
        assert "\n" not in answer["message"], answer
        return answer["outcome"], answer["message"]

    yield attempt
    with process:
        process.stdin.close()


@pytest.fixture
def refused(attempt):
    """`refused(reader, path, part)`: it is refused in one line that has this part."""

    def refused(reader, path, part, **bounds):
        outcome, message = attempt(reader, path, **bounds)
        assert outcome == "refused", message
        assert part in message, message
        assert len(message) < 2000
        return message

    return refused
