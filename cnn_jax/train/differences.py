"""What differs between two plain values, such as configs, by path; and the way back: a value set at a path."""

import dataclasses
from collections.abc import Mapping
from typing import Any


class _Absent:
    """Where only the other side has a key."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()


@dataclasses.dataclass(frozen=True)
class Difference:
    """One value that two sides do not share.

    Attributes:
      what: where it stands, such as `versions.jax`.
      then: the first side's, or ABSENT.
      now: the second side's, or ABSENT.
    """

    what: str
    then: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.what}: {_short(self.then)} -> {_short(self.now)}"

    def as_json(self) -> dict[str, Any]:
        """For machines: a side that is absent has no key."""
        sides = {"then": self.then, "now": self.now}
        return {"what": self.what, **{name: value for name, value in sides.items() if value is not ABSENT}}


def differences(then: Any, now: Any, *, path: str = "") -> list[Difference]:
    """Every value that differs, by its dotted path; lists of other lengths, and other types, as a whole.

    Args:
      then: a plain value: what JSON holds.
      now: another one.
      path: of both.

    Example:
      >>> [str(each) for each in differences({"a": [1, 2], "b": 0}, {"a": [1, 3]}, path="config")]
      ['config.a.1: 2 -> 3', 'config.b: 0 -> absent']
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = [*then, *(key for key in now if key not in then)]
        pairs = [(key, then.get(key, ABSENT), now.get(key, ABSENT)) for key in keys]
    elif isinstance(then, list | tuple) and isinstance(now, list | tuple) and len(then) == len(now):
        pairs = [(str(index), *both) for index, both in enumerate(zip(then, now, strict=True))]
    else:
        # 0, 0.0 and False are equal to Python, and not to a config.
        same = then is now or (type(then) is type(now) and then == now)
        return [] if same else [Difference(path, then, now)]
    return [each for key, a, b in pairs for each in differences(a, b, path=f"{path}.{key}" if path else str(key))]


def assign(values: Any, path: str, value: Any) -> None:
    """Set what lies at a dotted path, in place; sections that are not there are made.

    Args:
      values: nested dictionaries and lists.
      path: such as `optimizer.learning_rate` or `data.augment.0.padding`.
      value: what is to stand there.

    Example:
      >>> config = {"a": [{"b": 1}]}
      >>> assign(config, "a.0.b", 2)
      >>> config
      {'a': [{'b': 2}]}
    """
    *above, last = path.split(".")
    for key in above:
        values = values[int(key)] if isinstance(values, list) else values.setdefault(key, {})
    values[int(last) if isinstance(values, list) else last] = value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value else repr(value)
    text = text.replace("\n", " ")
    return text if len(text) <= 200 else f"{text[:197]}..."
