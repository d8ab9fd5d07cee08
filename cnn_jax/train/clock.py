"""Wall time of a run, and the speed of its training steps."""

import time
from collections.abc import Sequence

import jax

from cnn_jax.train.checkpoint import Progress
from cnn_jax.types import PyTree


class Clock:
    """Wall time, and speed over training steps alone: no compilation, evaluation or saving in it.

    The speed is that of each run, not their sum.
    """

    def __init__(self, progresses: Sequence[Progress], started: float):
        self._progresses = [(progress, progress.seconds) for progress in progresses]
        self._started = started
        # Unknown until the first pause: the first stretch holds the compilation.
        self._since: tuple[float, int] | None = None
        self.examples_per_second: float | None = None

    def pause(self, done: int, batch_size: int, wait_for: PyTree = None) -> None:
        """Stop timing steps, once the device has caught up."""
        if wait_for is not None:
            jax.block_until_ready(wait_for)
        now = time.perf_counter()
        for progress, earlier in self._progresses:
            progress.seconds = earlier + now - self._started
        if self._since is not None and done > self._since[1]:
            seconds, examples = now - self._since[0], (done - self._since[1]) * batch_size
            for progress, _ in self._progresses:
                progress.training_seconds += seconds
                progress.timed_examples += examples
            self.examples_per_second = examples / seconds

    def resume(self, done: int) -> None:
        """Time steps from here on."""
        self._since = (time.perf_counter(), done)
