"""Checkpoints that cannot be written say so as what they are: an error of the system."""

import subprocess
import sys

import pytest

SCRIPT = """
import pathlib, resource, sys
import jax.numpy as jnp
from cnn_jax.train.checkpoint import Checkpoints, Progress

checkpoints = Checkpoints(pathlib.Path(sys.argv[1]), keep=1)
checkpoints.save(1, {"x": jnp.arange(8.0)}, {"n": jnp.zeros(())}, Progress())
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
# Numbers that do not compress.
import jax
checkpoints.save(2, {"x": jax.random.normal(jax.random.key(0), (1 << 18,))}, {"n": jnp.zeros(())}, Progress())
try:
    checkpoints.wait()
except OSError as error:
    print("OSError:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("steps:", Checkpoints(pathlib.Path(sys.argv[1]), keep=None).steps())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_disk_that_takes_no_more_is_an_error_of_the_system_and_costs_no_finished_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "checkpoints")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("OSError: a checkpoint in ")
    assert "cannot be written" in lines[0]
    assert lines[1] == "steps: [1]"
