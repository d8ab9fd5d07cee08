"""Receptive fields and strides of the arrays in a network, exactly, from its jaxpr: nothing is computed.

Element i of an array sees, along one axis of the image, the pixels `[steps·i + first, steps·i + last]`. Every primitive
maps such windows to windows: a convolution or a pool widens them and multiplies the step, a strided slice multiplies
the step, the sum of two branches takes the union, a sum over space or a flattening sees all of it. These are the
recurrences of Araujo et al. 2019, "Computing receptive fields of convolutional neural networks" (Distill), for
primitives instead of layers.

This is the theoretical field of that paper: padding counts as more image, so a field can be larger than the image.
Where an array that moves over the image meets one that is about the whole of it (statistics of a GroupNorm, a gate
from global pooling), the moving one counts. A matrix product over space (also one that resizes) and a reshape that
interleaves positions count as seeing all of it; a transposed convolution is not followed.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax.extend.core as jex

from cnn_jax.methods.receptive_rules import RULES, UnknownFieldError, Window, shape_of

Field: TypeAlias = tuple[Window, ...]
"""One window per spatial axis of the image."""

UNKNOWN: Field = ()
"""The field of an array behind a primitive that is not understood, or of branches that do not line up."""

CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that call another jaxpr, and the parameter that holds it."""


def receptive_fields(jaxpr: jex.ClosedJaxpr, image: int, space: Sequence[int]) -> dict[str, Field | None]:
    """The fields of the arrays that a traced function has marked with `jax.ad_checkpoint.checkpoint_name`.

    Args:
      jaxpr: from `jax.make_jaxpr`.
      image: which of the jaxpr's inputs is the image.
      space: the image's spatial axes, as axes of that input.

    Returns:
      The field by name; `UNKNOWN` where it cannot be told, None for an array that does not depend on the image.

    Example:
      >>> import jax
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> traced = jax.make_jaxpr(lambda x: checkpoint_name(x[::2] + x[1::2], "pairs"))(jax.numpy.zeros(8))
      >>> receptive_fields(traced, 0, [0])
      {'pairs': (Window(steps=(2,), first=0, last=1),)}
    """
    rank = len(shape_of(jaxpr.jaxpr.invars[image]))
    field = tuple(Window(tuple(int(axis == at) for at in range(rank)), 0, 0) for axis in space)
    marks: dict[str, Field | None] = {}
    inputs: list[Field | None] = [None] * len(jaxpr.in_avals)
    inputs[image] = field
    _walk(jaxpr.jaxpr, inputs, marks)
    return marks


def _walk(jaxpr: jex.Jaxpr, inputs: Sequence[Field | None], marks: dict[str, Field | None]) -> list[Field | None]:
    """The fields of a jaxpr's outputs, from those of its inputs."""
    fields = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom) -> Field | None:
        return None if isinstance(atom, jex.Literal) else fields.get(atom)

    for eqn in jaxpr.eqns:
        kind, operands = eqn.primitive.name, [read(atom) for atom in eqn.invars]
        if kind == "name":
            marks[eqn.params["name"]] = operands[0]
        if kind in CALLS:
            body = eqn.params[CALLS[kind]]
            outputs = _walk(body.jaxpr if isinstance(body, jex.ClosedJaxpr) else body, operands, marks)
        elif all(operand is None for operand in operands):
            outputs = [None] * len(eqn.outvars)
        else:
            outputs = [_output(eqn, operands)] * len(eqn.outvars)
        for var, output in zip(eqn.outvars, outputs, strict=True):
            fields[var] = None if 0 in shape_of(var) else output  # Padding by nothing concatenates empty arrays.
    return [read(atom) for atom in jaxpr.outvars]


def _output(eqn: jex.JaxprEqn, operands: Sequence[Field | None]) -> Field:
    """The field of a primitive's output, of which at least one operand has a field."""
    rule = RULES.get(eqn.primitive.name)
    if rule is None or any(operand == UNKNOWN for operand in operands):
        return UNKNOWN
    axes = len(next(operand for operand in operands if operand is not None))
    try:
        return tuple(
            rule(eqn, [None if operand is None else operand[axis] for operand in operands]) for axis in range(axes)
        )
    except UnknownFieldError:
        return UNKNOWN
