"""The pickles in which torch names its tensors, read without pickle: nothing is imported and nothing called.

A file is a program for a small stack machine. This one has the opcodes that a dictionary of tensors needs, and knows
three functions and the storages by their names; whatever else a program asks for is refused.
"""

import dataclasses
import io
import math
import pickletools
from typing import Any

import ml_dtypes
import numpy as np

from cnn_jax.errors import UserError

STORAGES: dict[str, np.dtype] = {
    f"{module} {name}Storage": np.dtype(dtype)
    for module in ("torch", "torch.cuda")
    for name, dtype in {
        "Float": np.float32,
        "Double": np.float64,
        "Half": np.float16,
        "BFloat16": ml_dtypes.bfloat16,
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
    }.items()
}
"""Types of elements by the name of torch's storage."""

DICTIONARY, PARAMETER = "collections OrderedDict", "torch._utils _rebuild_parameter"
TENSORS = {"torch._utils _rebuild_tensor": (4,), "torch._utils _rebuild_tensor_v2": (6, 7)}
"""torch's functions that make a tensor of a storage, and how many arguments each takes."""

CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
NUMBERS_AND_TEXTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"} | {
    "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"  # the last two by Python 2
}  # fmt: skip
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
LARGEST_RANK = 32
LARGEST_KEY = 2**32
"""Integers that are keys of dictionaries are smaller: those 2**61 - 1 apart have one hash."""
LONGEST_SHOWN = 100
"""Characters of a name in a message."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Elements that a file holds, of which tensors are views.

    Attributes:
      key: names it in the file.
      dtype: of an element.
      size: number of elements that the file declares.
      first: element at which this part of it starts, for parts of another storage.
      part: number of elements of this part.
    """

    key: str
    dtype: np.dtype
    size: int
    first: int
    part: int

    @property
    def shown(self) -> str:
        """The key in a message."""
        return repr(self.key[:LONGEST_SHOWN])


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage, within its bounds.

    Attributes:
      storage: what it is a view of.
      offset: index of its first element in the whole storage.
      shape: its sizes.
      strides: elements from one index to the next, per axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Global:
    """A module and a name in it, as a pickle writes them."""

    name: str


def unpickle(stream: io.BytesIO) -> Any:
    """What one pickle holds: dictionaries, lists, tuples, numbers, texts, None and tensors.

    The stream stands behind the pickle afterwards.

    Raises:
      UserError: the pickle asks for anything else, or is damaged.
    """
    try:
        return _run(stream)
    except UserError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_SHOWN]
        raise UserError(f"its pickle is damaged ({reason!r})") from None


def storages(value: Any) -> dict[str, Storage]:
    """The storages of all tensors in dictionaries, lists and tuples, by key.

    Raises:
      UserError: two tensors disagree about a storage.
    """
    found: dict[str, Storage] = {}
    seen: set[int] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Tensor):
            other = found.setdefault(item.storage.key, item.storage)
            if (other.dtype, other.size) != (item.storage.dtype, item.storage.size):
                raise UserError(f"two tensors disagree about the type or size of storage {item.storage.shown}")
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))  # a list can be in itself
            pending.extend(item.values() if isinstance(item, dict) else item)
    return found


def _run(stream: io.BytesIO) -> Any:
    """The stack machine."""
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        operation = opcode.name
        if operation in CONSTANTS:
            stack.append(CONSTANTS[operation])
        elif operation in NUMBERS_AND_TEXTS:
            stack.append(argument)
        elif operation in TUPLES:
            stack.append(tuple([stack.pop() for _ in range(TUPLES[operation])][::-1]))
        elif operation == "GLOBAL":
            stack.append(_known(str(argument)))
        elif operation == "STACK_GLOBAL":
            # Only texts are formatted: tuples that a memo doubles again and again have no end.
            module, name = (_instance(stack.pop(index), str, "a name") for index in (-2, -1))
            stack.append(_known(f"{module} {name}"))
        elif operation in ("BINPUT", "LONG_BINPUT"):
            memo[_whole(argument)] = stack[-1]
        elif operation in ("BINGET", "LONG_BINGET"):
            stack.append(memo[_whole(argument)])
        elif operation == "MARK":
            marked.append(stack)
            stack = []
        elif operation in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, marked.pop()
            if operation == "TUPLE":
                stack.append(tuple(items))
            elif operation == "APPENDS":
                _instance(stack[-1], list, operation).extend(items)
            else:
                _set(stack[-1], zip(items[::2], items[1::2], strict=True))
        elif operation == "APPEND":
            item = stack.pop()
            _instance(stack[-1], list, operation).append(item)
        elif operation == "SETITEM":
            item, key = stack.pop(), stack.pop()
            _set(stack[-1], [(key, item)])
        elif operation == "EMPTY_DICT":
            stack.append({})
        elif operation == "EMPTY_LIST":
            stack.append([])
        elif operation == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif operation == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif operation == "REDUCE":
            arguments = _instance(stack.pop(), tuple, operation)
            stack.append(_call(_instance(stack.pop(), _Global, operation).name, arguments))
        elif operation == "BUILD":
            # The attributes of a dictionary, such as the versions of a network's modules.
            _instance(stack.pop(), dict, operation)
            _instance(stack[-1], dict, operation)
        elif operation == "STOP":
            return _instance(stack.pop(), dict | list | tuple | int | Tensor, operation)
        elif operation not in ("PROTO", "FRAME"):
            raise _refusal(
                f"{str(argument).replace(' ', '.', 1)!r}" if operation == "INST" else f"the opcode {operation}"
            )
    raise AssertionError("pickletools ends with STOP or an error")


def _refusal(what: str) -> UserError:
    return UserError(
        f"refused: it asks for {what[:LONGEST_SHOWN]}, and only tensors in dictionaries are read;"
        " save model.state_dict() instead"
    )


def _known(name: str) -> _Global:
    if name in STORAGES or name in TENSORS or name in (DICTIONARY, PARAMETER):
        return _Global(name)
    raise _refusal(f"{name.replace(' ', '.', 1)!r}")


def _instance(value: Any, kind: Any, operation: str) -> Any:
    """The value, which must be of this kind."""
    if isinstance(value, kind):
        return value
    what = value.name.replace(" ", ".", 1) if isinstance(value, _Global) else f"a {type(value).__name__}"
    raise _refusal(f"{operation} of {what}")


def _set(target: Any, items: Any) -> None:
    """Puts pairs into a dictionary; keys are what a comparison cannot make expensive."""
    _instance(target, dict, "SETITEM")
    for key, value in items:
        if isinstance(_instance(key, str | int, "a key"), int) and abs(key) >= LARGEST_KEY:
            raise _refusal(f"a key of {key:.3g}")
        target[key] = value


def _whole(value: Any) -> int:
    """A number of elements: at least 0, and such that bytes can be counted in 64 bits."""
    if type(value) is not int or not 0 <= value < 2**56:
        what = f"{value:.3g}" if isinstance(value, int | float) else f"a {type(value).__name__}"
        raise UserError(f"refused: {what} is no size, offset or stride of a tensor")
    return value


def _storage(identity: Any) -> Storage:
    """The storage that a persistent id names.

    Newer files write `("storage", type, key, device, size)`, those before torch 1.6 behind it None or, for a part of
    a storage, `(key of the part, first element, elements)`.
    """
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise _refusal("an object that is no storage")
    kind, key, size = identity[1], identity[2], _whole(identity[4])
    if not isinstance(kind, _Global) or kind.name not in STORAGES or not isinstance(key, str):
        raise _refusal("a storage of unknown type")
    first, part = 0, size
    if len(identity) == 6 and identity[5] is not None:
        _, first, part = _instance(identity[5], tuple, "a part")
        if _whole(first) + _whole(part) > size:
            raise UserError(f"refused: a part of storage {key[:LONGEST_SHOWN]!r} is out of its bounds")
    return Storage(key=key, dtype=STORAGES[kind.name], size=size, first=first, part=part)


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    """The result of one of the known functions."""
    if name == DICTIONARY:
        made: dict[Any, Any] = {}
        if len(arguments) > 1:
            raise _refusal(f"{DICTIONARY} of {len(arguments)} arguments")
        for pairs in arguments:  # Python 2 writes the pairs here
            _set(made, [_instance(pair, list | tuple, "pairs") for pair in _instance(pairs, list, "pairs")])
        return made
    if name == PARAMETER and len(arguments) == 3:
        return _instance(arguments[0], Tensor, "a parameter")
    if len(arguments) in TENSORS.get(name, ()):
        # requires_grad and the hooks mean nothing here; metadata would change values (conjugate or negative views)
        if len(arguments) == 7 and arguments[6]:
            raise _refusal("a tensor with metadata")
        return _tensor(*arguments[:4])
    raise _refusal(f"a call of {name.replace(' ', '.', 1)} with {len(arguments)} arguments")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """The view, if it is within the bounds of its storage."""
    _instance(storage, Storage, "a tensor")
    shape = tuple(map(_whole, _instance(shape, tuple, "a shape")))
    strides = tuple(map(_whole, _instance(strides, tuple, "strides")))
    if len(shape) != len(strides) or len(shape) > LARGEST_RANK:
        raise UserError(f"refused: a tensor has {len(shape)} axes and {len(strides)} strides")
    elements, nonzero = math.prod(shape), math.prod(max(size, 1) for size in shape)
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if elements else -1
    # A view with more elements than its storage may be within its bounds, but a copy of it fills the memory.
    if _whole(offset) + reach >= storage.part or elements > storage.part or nonzero != _whole(nonzero):
        raise UserError(
            f"refused: a tensor of shape {shape}, strides {strides} and offset {offset} is out of the bounds of its"
            f" storage of {storage.part} elements"
        )
    # Strides along axes of one element reach nothing, and can be any number.
    strides = tuple(stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True))
    return Tensor(storage=storage, offset=storage.first + offset, shape=shape, strides=strides)
