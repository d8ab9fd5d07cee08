"""How each JAX primitive maps the pixels that its operands see to those that its output sees; see `receptive_field`."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.extend.core as jex

from cnn_jax.ops.conv_forms import channels_last


@dataclasses.dataclass(frozen=True)
class Window:
    """The pixels along one axis of the image that an element of an array sees.

    Attributes:
      steps: per axis of the array, pixels from one element's window to the next one's; 0 where it does not move.
      first: first pixel of element 0; negative in the padding.
      last: last pixel of element 0.
    """

    steps: tuple[int, ...]
    first: int
    last: int

    @property
    def size(self) -> int:
        """The receptive field in pixels."""
        return self.last - self.first + 1

    @property
    def stride(self) -> int:
        """Pixels between the windows of neighbours; 0 if all elements have one window."""
        return min((abs(step) for step in self.steps if step), default=0)


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of an input or output of a jaxpr or an equation."""
    return tuple(atom.aval.shape)


class UnknownFieldError(Exception):
    """The elements of a primitive's output have no windows of this form."""


def _join(windows: Sequence[Window | None], rank: int) -> Window:
    """What elements see that are computed from the same element of several arrays of this rank, or from scalars."""
    known = [window if window.steps else dataclasses.replace(window, steps=(0,) * rank) for window in windows if window]
    moving = [window for window in known if any(window.steps)] or known
    if len({window.steps for window in moving}) > 1:
        raise UnknownFieldError
    return Window(moving[0].steps, min(w.first for w in moving), max(w.last for w in moving))


def _slide(window: Window, axis: int, first: int, last: int, stride: int = 1) -> Window:
    """Element i of the new axis sees the elements `[stride·i + first, stride·i + last]` of the old one."""
    step = window.steps[axis]
    ends = sorted((step * first, step * last))
    steps = (*window.steps[:axis], step * stride, *window.steps[axis + 1 :])
    return Window(steps, window.first + ends[0], window.last + ends[1])


def _whole(window: Window, axes: Sequence[int], shape: Sequence[int]) -> Window:
    """Every element sees what any element along these axes saw."""
    for axis in axes:
        window = _slide(window, axis, 0, shape[axis] - 1, stride=0)
    return window


def _only(windows: Sequence[Window | None]) -> Window:
    """The window of the first operand, if it alone depends on the image."""
    first, *others = windows
    if first is None or any(others):
        raise UnknownFieldError
    return first


def _elementwise(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    return _join(windows, len(shape_of(eqn.outvars[0])))


def _convolution(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    params = eqn.params
    image, kernel = (shape_of(atom) for atom in eqn.invars[:2])
    # Our own primitive has the same parameters, less those that it does not take.
    numbers = params.get("dimension_numbers") or channels_last(len(params["window_strides"]))
    if any(size != 1 for size in params.get("lhs_dilation", ())) or params.get("batch_group_count", 1) != 1:
        raise UnknownFieldError
    window = _whole(_only(windows), numbers.lhs_spec[1:2], image)
    steps = [0] * len(image)
    for i, (axis, taps) in enumerate(zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], strict=True)):
        before, reach = params["padding"][i][0], params["rhs_dilation"][i] * (kernel[taps] - 1)
        window = _slide(window, axis, -before, reach - before, params["window_strides"][i])
    for old, new in zip(numbers.lhs_spec, numbers.out_spec, strict=True):
        steps[new] = window.steps[old]
    return Window(tuple(steps), window.first, window.last)


def _pool(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    window, params = _only(windows), eqn.params
    # Our own primitive takes no dilation.
    if any(size != 1 for size in params.get("base_dilation", ())):
        raise UnknownFieldError
    dilation = params.get("window_dilation", (1,) * len(params["window_dimensions"]))
    for axis, size in enumerate(params["window_dimensions"]):
        before, reach = params["padding"][axis][0], dilation[axis] * (size - 1)
        window = _slide(window, axis, -before, reach - before, params["window_strides"][axis])
    return window


def _matmul(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    contracted, batch = eqn.params["dimension_numbers"]
    shapes = [shape_of(atom) for atom in eqn.invars]
    free = [[a for a in range(len(shapes[i])) if a not in (*contracted[i], *batch[i])] for i in (0, 1)]
    results = []
    for i, window in enumerate(windows):
        if window is not None:
            window = _whole(window, contracted[i], shapes[i])
            own = [window.steps[axis] for axis in free[i]]
            steps = [window.steps[axis] for axis in batch[i]]
            steps += own + [0] * len(free[1]) if i == 0 else [0] * len(free[0]) + own
            results.append(Window(tuple(steps), window.first, window.last))
    return _join(results, len(shape_of(eqn.outvars[0])))


def _drop(window: Window, axes: Sequence[int]) -> Window:
    return dataclasses.replace(window, steps=tuple(s for axis, s in enumerate(window.steps) if axis not in axes))


def _reduce(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    axes = eqn.params["axes"]
    return _drop(_whole(_only(windows), axes, shape_of(eqn.invars[0])), axes)


def _squeeze(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    return _drop(_only(windows), eqn.params["dimensions"])


def _transpose(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    window = _only(windows)
    return dataclasses.replace(window, steps=tuple(window.steps[axis] for axis in eqn.params["permutation"]))


def _broadcast(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    window, old, shape = _only(windows), shape_of(eqn.invars[0]), eqn.params["shape"]
    steps = [0] * len(shape)
    for axis, target in enumerate(eqn.params["broadcast_dimensions"]):
        steps[target] = window.steps[axis] if old[axis] == shape[target] else 0  # Copies of one element see the same.
    return dataclasses.replace(window, steps=tuple(steps))


def _slice(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    window, starts = _only(windows), eqn.params["start_indices"]
    for axis, (start, stride) in enumerate(zip(starts, eqn.params["strides"] or (1,) * len(starts), strict=True)):
        window = _slide(window, axis, start, start, stride)
    return window


def _pad(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    window = _only(windows)
    for axis, (before, _, between) in enumerate(eqn.params["padding_config"]):
        if between and window.steps[axis]:
            raise UnknownFieldError
        window = _slide(window, axis, -int(before), -int(before))
    return window


def _reverse(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    window = _only(windows)
    for axis in eqn.params["dimensions"]:
        end = shape_of(eqn.invars[0])[axis] - 1
        window = _slide(window, axis, end, end, stride=-1)
    return window


def _split(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    window = _only(windows)
    if window.steps[eqn.params["axis"]]:
        raise UnknownFieldError
    return window


def _concatenate(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    axis, sizes = eqn.params["dimension"], [shape_of(atom)[eqn.params["dimension"]] for atom in eqn.invars]
    if not any(window and window.steps[axis] for window in windows):
        return _join(windows, len(shape_of(eqn.outvars[0])))
    # Along space, the short pieces pad the long one (its edge, its mirror image): padding counts as more image.
    longest = sizes.index(max(sizes))
    before = sum(sizes[:longest])
    return _slide(_only([windows[longest]]), axis, -before, -before)


def _reshape(eqn: jex.JaxprEqn, windows: Sequence[Window | None]) -> Window:
    window, old, new = _only(windows), shape_of(eqn.invars[0]), eqn.params["new_sizes"]
    if eqn.params["dimensions"] is not None or 0 in old:
        raise UnknownFieldError
    steps = [0] * len(new)
    for olds, news in _factors(old, new):
        if len(olds) == len(news) == 1:
            steps[news.start] = window.steps[olds.start]
            continue
        # Pixels per element of the flattened run, last axis fastest: one number if its axes agree on it.
        rates = {divmod(window.steps[axis], math.prod(old[axis + 1 : olds.stop])) for axis in olds if old[axis] > 1}
        rate, rest = rates.pop() if len(rates) == 1 else (0, 0)
        if rates or rest:
            window, rate = _whole(window, olds, old), 0
        for axis in news:
            steps[axis] = rate * math.prod(new[axis + 1 : news.stop]) if new[axis] > 1 else 0
    return dataclasses.replace(window, steps=tuple(steps))


def _factors(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """The shortest runs of axes that a reshape maps to each other: `[4, 6, 3] -> [4, 18]` has 4 -> 4 and 6, 3 -> 18."""
    runs, i, j = [], 0, 0
    while i < len(old) and j < len(new):  # What is left of either then has size 1.
        starts, sizes = (i, j), [old[i], new[j]]
        i, j = i + 1, j + 1
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                sizes[0] *= old[i]
                i += 1
            else:
                sizes[1] *= new[j]
                j += 1
        runs.append((range(starts[0], i), range(starts[1], j)))
    return runs


ELEMENTWISE = (
    *("abs", "add", "add_any", "and", "atan2", "ceil", "clamp", "convert_element_type", "copy", "cos", "div", "eq"),
    *("erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log"),
    *("log1p", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "not", "or", "pow", "reduce_precision"),
    *("rem", "round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tanh", "xor"),
)
REDUCTIONS = ("argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum")
POOLS = ("channels_last_max_pool", "reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")

RULES: dict[str, Callable[[jex.JaxprEqn, Sequence[Window | None]], Window]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(POOLS, _pool),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "channels_last_convolution": _convolution,
    "conv_general_dilated": _convolution,
    "dot_general": _matmul,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
"""By a primitive's name: from the windows of its operands along one axis of the image (None: does not depend on it) to
that of its outputs. A rule raises `UnknownFieldError` for what it cannot describe."""
