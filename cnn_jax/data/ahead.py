"""Elements that threads or processes make before they are asked for, by Grain."""

import dataclasses
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from cnn_jax.errors import ProcessLostError
from cnn_jax.memory import keep_freed_memory

Element = TypeVar("Element")

BATCHES_AHEAD = 2
"""Of each thread or process that decodes."""
LOST = "terminated unexpectedly"
"""Grain's words for a process that is gone."""
PARENT_SECONDS = 2.0
"""Between two looks of a worker whether its parent is there."""


@dataclasses.dataclass(frozen=True)
class Elements(Generic[Element]):
    """Elements that a function makes from their number, as a source for Grain."""

    make: Callable[[int], Element]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Element:
        return self.make(int(index))


def ahead(source: Elements[Element], *, start: int, workers: int) -> Generator[Element]:
    """The elements from `start` on, made by threads or by other processes before they are asked for.

    Raises:
      ProcessLostError: one of the processes was killed.
    """
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain's processes get absl's flags, which only absl's own main parses
        flags.FLAGS.mark_as_parsed()
    # A worker makes one element at a time: there are as many workers as there is to be done at once.
    threads = 0 if workers else _cores()
    dataset = grain.MapDataset.source(source).slice(slice(start, None))
    elements = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=BATCHES_AHEAD * threads)
    )
    if workers:
        options = grain.multiprocessing.MultiprocessingOptions(
            num_workers=workers, per_worker_buffer_size=BATCHES_AHEAD
        )
        elements = elements.mp_prefetch(options, worker_init_fn=functools.partial(_begin_worker, os.getpid()))
    iterator = iter(elements)
    try:
        yield from iterator
    except RuntimeError as error:
        if not workers or LOST not in str(error):
            raise
        raise ProcessLostError(
            f"a process that reads images was killed, perhaps for want of memory ({str(error).split('. ')[0]});"
            " give the same command again, with fewer data.stream.workers"
        ) from None
    finally:
        iterator.close()


def _begin_worker(parent: int, worker: int, workers: int) -> None:
    """In a worker: leave Ctrl-C to the process that trains, and end with it."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory(os.environ)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """End this process when its parent has ended, however it did.

    Args:
      parent: its number, as the parent itself tells it: it may have ended before this process can ask.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InTurn(Generic[Element]):
    """Random access to what is made in turn: the next element costs nothing extra, any other begins anew.

    Args:
      begin: the number of an element to the elements from there on.
    """

    def __init__(self, begin: Callable[[int], Generator[Element]]):
        self._begin = begin
        self._elements: Generator[Element] | None = None
        self._following = -1

    def __call__(self, number: int) -> Element:
        """The element of a number."""
        if self._elements is None or number != self._following:
            self.close()
            self._elements = self._begin(number)
        self._following = number + 1
        return next(self._elements)

    def close(self) -> None:
        """End the threads and processes that read ahead."""
        if self._elements is not None:
            self._elements.close()
            self._elements = None
