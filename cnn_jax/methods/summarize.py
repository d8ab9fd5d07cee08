"""What a network consists of: layers with shapes, parameters, multiply-accumulates, receptive fields and strides.

Nothing is computed on arrays: the model is traced once, and the table is read off the trace.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from cnn_jax.methods.receptive_field import Field, receptive_fields
from cnn_jax.types import PyTree

OwnMacs = Mapping[type[nn.Module], Callable[[Any], int]]
"""Module class to the multiply-accumulates per example of such a module beyond those of its submodules."""


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
      path: names from the model to the layer, with slashes.
      kind: the name of its class.
      output_shape: without the batch, `[*space, C]`; None if the output is not one array.
      parameters: trainable numbers that the layer itself owns; 0 where a layer is called again.
      statistics: numbers that it owns and that are not trained, such as running means.
      macs: multiply-accumulates for one example.
      receptive_field: pixels per spatial axis of the image that one output element sees; None if it cannot be told.
      stride: pixels per spatial axis between neighbouring output elements; 0 where the output does not move over the
        image. None if it cannot be told.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    statistics: int
    macs: int
    receptive_field: tuple[int, ...] | None
    stride: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Totals:
    """Sums over a network.

    Attributes:
      parameters: trainable numbers.
      statistics: numbers that are not trained.
      macs: multiply-accumulates for one example.
    """

    parameters: int
    statistics: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a network in the order in which they are computed, and their sums."""

    rows: tuple[LayerRow, ...]
    totals: Totals


@dataclasses.dataclass
class _Call:
    """One call of a module, recorded while the model is traced; `mark` names its output in the trace."""

    module: nn.Module
    mark: str
    leaf: bool = True
    output: Any = None


def summarize(
    model: nn.Module, image_shape: Sequence[int], *, own_macs: OwnMacs | None = None, method: str = "__call__"
) -> Summary:
    """The layers of a model in evaluation: those without submodules, and all others that own parameters.

    A layer that returns its input as it came (dropout in evaluation, "none" as normalisation, an identity shortcut) has
    no row; functions that are no modules, such as ReLU, have none either. Multiply-accumulates are those of kernels: a
    layer with a parameter `kernel` uses each of its numbers once at every output position, as convolutions (also
    grouped ones) and dense layers do. Everything else counts 0, as in the usual tables, unless `own_macs` names it.

    Args:
      model: called as `model.apply(variables, images, train=False)`.
      image_shape: `[*space, C]`.
      own_macs: for layers that multiply without a kernel.
      method: what is called, for example "with_auxiliary", where more than the logits is of interest.

    Raises:
      UserError: the image does not fit the model.

    Example:
      >>> class Two(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x, *, train):
      ...         return nn.Conv(2, (3, 3), name="second")(nn.Conv(4, (3, 3), name="first")(x))
      >>> for row in summarize(Two(), (8, 8, 1)).rows:
      ...     print(row.path, row.output_shape, row.parameters, row.macs, row.receptive_field)
      first (8, 8, 4) 40 2304 (3, 3)
      second (8, 8, 2) 74 4608 (5, 5)
    """
    own_macs = own_macs or {}
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
    calls: list[_Call] = []

    def apply(image, variables):
        with nn.intercept_methods(_recorder(calls)):
            return model.apply(variables, image, train=False, method=method)

    traced = jax.make_jaxpr(apply)(image, variables)
    fields = receptive_fields(traced, 0, range(1, len(image_shape)))
    rows, seen = [], set()
    for call in calls:
        path = call.module.path
        own = {name: _own(tree, path) for name, tree in variables.items()}
        is_layer = call.leaf and isinstance(call.output, jax.Array)
        if is_layer or any(own.values()) or type(call.module) in own_macs:
            row = _row(call, own, fields.get(call.mark) or None, own_macs)
            rows.append(dataclasses.replace(row, parameters=0, statistics=0) if path in seen else row)
            seen.add(path)
    sizes = {name: _size(tree) for name, tree in variables.items()}
    parameters = sizes.pop("params", 0)
    return Summary(tuple(rows), Totals(parameters, sum(sizes.values()), sum(row.macs for row in rows)))


def _recorder(calls: list[_Call]) -> Callable[..., Any]:
    """An interceptor that appends each module call that changes its input, as it ends, and marks its output."""
    active: list[_Call] = []

    def record(function, arguments, keywords, context):
        module = context.module
        # A module that shares the scope of its parent (`nn.share_scope`) is a part of the same layer.
        if context.method_name != "__call__" or any(module.path == call.module.path for call in active):
            return function(*arguments, **keywords)
        if active:
            active[-1].leaf = False
        call = _Call(module, f"call {len(calls)} of {'/'.join(module.path)}")
        active.append(call)
        try:
            output = function(*arguments, **keywords)
        finally:
            active.pop()
        if any(output is argument for argument in arguments):
            return output
        # Only arrays: as a pytree, a dict of feature maps would lose its order.
        call.output = checkpoint_name(output, call.mark) if isinstance(output, jax.Array) else output
        calls.append(call)
        return call.output

    return record


def _row(call: _Call, own: Mapping[str, Mapping[str, Any]], field: Field | None, own_macs: OwnMacs) -> LayerRow:
    """The row of one call; `own` has the arrays that the module itself owns, by collection and name."""
    kind, shape = type(call.module), None
    sizes = {name: _size(arrays) for name, arrays in own.items()}
    macs = own_macs[kind](call.module) if kind in own_macs else 0
    if isinstance(call.output, jax.Array):
        shape = tuple(call.output.shape[1:])
        kernel = own.get("params", {}).get("kernel")
        macs += 0 if kernel is None else kernel.size * math.prod(shape[:-1])
    return LayerRow(
        path="/".join(call.module.path) or kind.__name__,
        kind=kind.__name__,
        output_shape=shape,
        parameters=sizes.pop("params", 0),
        statistics=sum(sizes.values()),
        macs=macs,
        receptive_field=None if field is None else tuple(window.size for window in field),
        stride=None if field is None else tuple(window.stride for window in field),
    )


def _own(tree: PyTree, path: Sequence[str]) -> dict[str, Any]:
    """The arrays directly at a path of nested dictionaries, by name; none if the path leads nowhere."""
    for name in path:
        tree = tree.get(name, {})
    return {name: leaf for name, leaf in tree.items() if not isinstance(leaf, Mapping)}


def _size(tree: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
