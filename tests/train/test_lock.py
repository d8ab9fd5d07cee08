"""One directory, one run: who lives keeps it, who is dead does not."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from cnn_jax.train import lock as module
from cnn_jax.train.lock import InUseError, Lock

HOLD = """
import pathlib, sys, time
from cnn_jax.train.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]), what="the directory")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process of this machine that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_live_lock_is_refused_and_a_stale_one_taken_over(tmp_path, holder, capsys):
    path = tmp_path / ".lock"
    host = socket.gethostname()
    message = rf"the directory is in use by process {holder.pid} on {host}, started \d{{4}}-.*; wait, or choose"
    with pytest.raises(InUseError, match=message):
        Lock(path, what="the directory")
    holder.kill()
    holder.wait()
    lock = Lock(path, what="the directory")
    assert json.loads(path.read_text(encoding="utf-8"))["process"] == os.getpid()
    lock.close()
    assert path.read_text(encoding="utf-8") == ""
    assert capsys.readouterr().err == ""  # a dead process of this machine is taken over without a word


def leave(path, host):
    """What a process of another machine leaves when it is killed, where locks are not shared."""
    path.write_text(json.dumps({"host": host, "process": 7, "started": "2026-01-01 00:00:00"}), encoding="utf-8")


def test_a_dead_process_of_another_machine_is_waited_for_and_taken_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    leave(tmp_path / ".lock", "elsewhere")
    started = time.monotonic()
    Lock(tmp_path / ".lock", what="the directory").close()
    assert time.monotonic() - started >= module.SILENT_BEATS * 0.05
    shown = capsys.readouterr().err
    assert (
        "the directory was locked by process 7 on elsewhere, started 2026-01-01 00:00:00; waiting for a sign" in shown
    )
    assert "taking the directory over" in shown


def test_a_live_process_of_another_machine_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    path, ended = tmp_path / ".lock", threading.Event()
    leave(path, "elsewhere")

    def beat():
        while not ended.wait(0.03):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(InUseError, match="in use by process 7 on elsewhere"):
            Lock(path, what="the directory")
    finally:
        ended.set()
        thread.join()
    assert "elsewhere" in path.read_text(encoding="utf-8")


def test_a_holder_gives_signs_of_life_until_it_closes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
    path = tmp_path / ".lock"
    lock = Lock(path, what="the directory")
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 10
    while path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime > 0
    lock.close()
    lock.close()
    os.utime(path, (0, 0))
    time.sleep(0.1)
    assert path.stat().st_mtime == 0


@pytest.mark.parametrize("content", ["", "{", "[1]", "process 3 on here, started today", "[" * 5000, "\0" * 50])
def test_what_is_no_holder_is_taken_over(tmp_path, content):
    (tmp_path / ".lock").write_text(content, encoding="utf-8")
    Lock(tmp_path / ".lock", what="the directory").close()
