"""Errors that are the user's to mend: commands print them as one line and exit with status 2."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message is one line that names the offending value and the fix."""


class CorruptImageError(UserError):
    """An image of a data set cannot be read; the message names it. A stream may skip it and count it."""


class ImageTooSmallError(UserError):
    """An image has fewer pixels along an axis than a layer needs; the whole network adds the smallest size."""


class DivergenceError(RuntimeError):
    """Training produced a non-finite loss or gradient; the message has the step, the rate and the gradient norm.

    Args:
      message: one line.
      step: the first step that was not finite, counted from 1.
    """

    def __init__(self, message: str, *, step: int):
        super().__init__(message)
        self.step = step


class StorageError(OSError):
    """A file of a run cannot be written: the disk is full, or fails. What was finished before is still there."""

    @classmethod
    def of(cls, message: str, error: Exception) -> "StorageError":
        """One line in place of another error, whose notes it keeps: they say who else knows of it.

        Args:
          message: the line.
          error: what the system, or a library for it, raised.
        """
        made = cls(message)
        for note in getattr(error, "__notes__", ()):
            made.add_note(note)
        return made


class ProcessLostError(RuntimeError):
    """Another process of the same run, or one that reads for it, has ended; one line says how to go on."""


def unknown_name(what: str, value: str, known: Iterable[str]) -> UserError:
    """The error for a name that is in no table: names the nearest known one and lists all.

    Args:
      what: what the name stands for, for example "model".
      value: the unknown name.
      known: the names that exist.

    Example:
      >>> print(unknown_name("model", "resnet05", ["lenet5", "resnet50"]))
      unknown model 'resnet05'; did you mean 'resnet50'? Known: lenet5, resnet50
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return UserError(f"unknown {what} {value!r}{hint} Known: {', '.join(known)}")
