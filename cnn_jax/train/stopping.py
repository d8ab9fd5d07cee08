"""SIGTERM and Ctrl-C: the run saves what it has at the next step and ends; a second signal ends it at once.

A single process notes the signal and looks at the note between dispatches and between batches of an evaluation. Among
several processes JAX agrees on the step at which all of them stop, so that all save the same one.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal asked for the end, and everything that was done is on disk; a command ends with 128 + the signal.

    Args:
      number: of the signal.
      step: of the checkpoint that was saved; None where there was nothing to save.
    """

    def __init__(self, number: int | None, step: int | None):
        number = number or signal.SIGTERM
        saved = "nothing was trained yet" if step is None else f"step {step} is saved"
        super().__init__(f"{signal.Signals(number).name}: {saved}")
        self.status = 128 + number
        self.step = step


class StopInEvaluationError(Exception):
    """An evaluation is left, because a signal asked for the end."""


class Stop:
    """Whether a signal has asked for the end; made by `stop_on_signals`."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._asked = 0

    def note(self, number: int) -> None:
        """Handle a signal, in a thread of its own: the second one ends the process at once.

        Among several processes JAX listens for SIGTERM and tells all of them, so that Ctrl-C is passed on as that.
        """
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        name = signal.Signals(number).name
        with contextlib.suppress(OSError):
            os.write(2, f"\n{name}: saving, then stopping; once more stops at once\n".encode())
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(self) -> bool:
        """Whether to stop now; all processes of a run ask after the same steps, and get the same answer."""
        if jax.process_count() == 1:
            return self.signal is not None
        # The number of the question, not of the step: a dispatch of many steps would pass the one agreed on.
        self._asked += 1
        if multihost_utils.reached_preemption_sync_point(self._asked):
            self.signal = self.signal or signal.SIGTERM
            return True
        return False

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of an evaluation, until a signal comes.

        Raises:
          StopInEvaluationError: it came.
        """
        for batch in batches:
            if self.signal is not None and jax.process_count() == 1:
                raise StopInEvaluationError
            yield batch


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Note SIGTERM and SIGINT instead of dying of them; what handled them before does so again afterwards.

    A thread is woken by them, as a handler of Python's would wait while the main one compiles. Where this is not the
    main thread nothing is handled, as Python allows no other.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handled = (signal.SIGINT,) if jax.process_count() > 1 else SIGNALS

    def listen() -> None:
        while number := os.read(reading, 1):
            if number[0] in handled:
                stop.note(number[0])

    # What is put there writes the number of the signal into the pipe, at once, and calls the handler some time later.
    before = {number: signal.signal(number, lambda *_: None) for number in handled}
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(earlier)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(writing)
        thread.join()
        os.close(reading)
