"""Freed memory stays in the process: steps after the first take no new pages from the system."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, sys
from cnn_jax.memory import keep_freed_memory
kept = keep_freed_memory({} if sys.argv[1] == "keep" else {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"})
import jax, jax.numpy as jnp
program = jax.jit(lambda x: jnp.cumsum(jnp.flip(x) + 1.0)[::7])
x = jnp.arange(4_000_000.0)
for _ in range(3):
    program(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    program(x).block_until_ready()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc's malloc")
def test_steps_after_the_first_take_no_new_pages():
    found = {}
    for word in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, word], capture_output=True, text=True, check=True)
        kept, faults = done.stdout.split()
        assert kept == str(word == "keep"), "own settings of the user are left alone"
        found[word] = int(faults)
    assert found["keep"] < found["leave"] / 10
