"""Functions that differ only in numbers, as one function of those numbers: what lets many runs share a program.

Each function is traced; their jaxprs are walked side by side, and a constant that is not the same in all of them
becomes an argument. Whatever a hyperparameter is turned into before the device sees it (1 - beta, a schedule's slope,
the probability to keep a unit) is thus found without the optimizer, the schedule or the model knowing of it, with the
very value that the function has alone.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from cnn_jax.types import Array, PyTree

# Calls that may be written out where they stand. In a loop or a branch a constant cannot be replaced that way.
INLINED = {"jit": "jaxpr"} | dict.fromkeys(("closed_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr")


class NotLiftableError(Exception):
    """The functions differ in more than numbers."""


Traced: TypeAlias = tuple[ClosedJaxpr, PyTree]
"""What a function computes, and the shapes that it returns."""


def trace(function: Callable[..., PyTree], *arguments: PyTree) -> Traced:
    """What `lift` takes.

    Args:
      function: pure.
      *arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    return jax.make_jaxpr(function, return_shape=True)(*arguments)


def lift(traced: Sequence[Traced]) -> tuple[Callable[..., PyTree], list[np.ndarray]]:
    """One function for many that compute the same with different constants.

    Args:
      traced: functions that took the same arguments.

    Returns:
      `function(constants, *arguments)`, and for each constant its values `[N, ...]`, one for each of the N functions;
      function i is `function([value[i] for value in values], *arguments)`.

    Raises:
      NotLiftableError: the functions differ in more than numbers.

    Example:
      >>> some = [lambda x: 2 * x + 1, lambda x: 3 * x + 1]
      >>> function, values = lift([trace(one, jnp.float32(0)) for one in some])
      >>> values
      [array([2., 3.], dtype=float32)]
      >>> float(function([jnp.float32(5)], jnp.float32(1)))
      6.0
    """
    jaxprs, structure = [jaxpr for jaxpr, _ in traced], jax.tree.structure(traced[0][1])
    if any(jax.tree.structure(shapes) != structure for _, shapes in traced):
        raise NotLiftableError("they return different structures")
    values: list[np.ndarray] = []

    def collect(constants: Sequence[Array]) -> Array:
        values.append(np.stack([np.asarray(constant) for constant in constants]))
        return constants[0]

    inputs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in jaxprs[0].in_avals]
    jax.eval_shape(lambda *flat: _evaluate(jaxprs, flat, collect), *inputs)

    def function(constants: Sequence[Array], *arguments: PyTree) -> PyTree:
        rest = iter(constants)
        outputs = _evaluate(jaxprs, jax.tree.leaves(arguments), lambda _: jnp.asarray(next(rest)))
        return jax.tree.unflatten(structure, outputs)

    return function, values


def _evaluate(
    jaxprs: Sequence[ClosedJaxpr], arguments: Sequence[Any], choose: Callable[[Sequence[Array]], Any]
) -> list[Any]:
    """Run the first jaxpr; `choose` gives the value of a constant that differs, and is called in a fixed order."""
    # Variables of different jaxprs are the same if they have the same number.
    numbers: list[dict[Any, int]] = [{} for _ in jaxprs]
    values: list[Any] = []

    def bind(variables: Sequence[Any], value: Any) -> None:
        for number, variable in zip(numbers, variables, strict=True):
            number[variable] = len(values)
        if len({(variable.aval.shape, variable.aval.dtype) for variable in variables}) != 1:
            raise NotLiftableError(f"arrays of the shapes {sorted({str(v.aval.shape) for v in variables})}")
        values.append(value)

    def read(atoms: Sequence[Any]) -> Any:
        if all(isinstance(atom, Literal) for atom in atoms):
            # Typed: the value of a literal may be a Python number.
            return _constant([np.asarray(atom.val, atom.aval.dtype) for atom in atoms], choose)
        if any(isinstance(atom, Literal) for atom in atoms):
            raise NotLiftableError("a number in one is computed in another")
        places = {number[atom] for number, atom in zip(numbers, atoms, strict=True)}
        if len(places) != 1:
            raise NotLiftableError("operations have other operands")
        return values[places.pop()]

    inner = [closed.jaxpr for closed in jaxprs]
    if len({(len(jaxpr.eqns), len(jaxpr.constvars), len(jaxpr.outvars)) for jaxpr in inner}) != 1:
        raise NotLiftableError("one computes more than another")
    for variables, constants in zip(
        _across(jaxpr.constvars for jaxpr in inner), _across(closed.consts for closed in jaxprs), strict=True
    ):
        bind(variables, _constant(constants, choose))
    for variables, argument in zip(_across(jaxpr.invars for jaxpr in inner), arguments, strict=True):
        bind(variables, argument)
    for equations in _across(jaxpr.eqns for jaxpr in inner):
        name = str(equations[0].primitive)
        if len({(str(e.primitive), len(e.invars), len(e.outvars)) for e in equations}) != 1:
            raise NotLiftableError(f"one does {name} where another does not")
        inputs = [read(atoms) for atoms in _across(e.invars for e in equations)]
        if name in INLINED:
            outputs = _evaluate([_closed(e.params[INLINED[name]]) for e in equations], inputs, choose)
        else:
            if len({_description(e.params) for e in equations}) != 1:
                raise NotLiftableError(f"{name} differs")
            primitive = equations[0].primitive
            with equations[0].ctx.manager:
                outputs = primitive.bind(*inputs, **primitive.get_bind_params(equations[0].params))
            outputs = outputs if primitive.multiple_results else [outputs]
        for variables, output in zip(_across(e.outvars for e in equations), outputs, strict=True):
            bind(variables, output)
    return [read(atoms) for atoms in _across(jaxpr.outvars for jaxpr in inner)]


def _across(lists: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The first elements of all lists, the second elements, and so on."""
    return list(zip(*lists, strict=True))


def _closed(jaxpr: Any) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def _constant(constants: Sequence[Array], choose: Callable[[Sequence[Array]], Any]) -> Any:
    """The constant if it is the same in all, else what `choose` makes of them."""
    if len({_content(constant) for constant in constants}) == 1:
        return constants[0]
    if len({(np.shape(constant), str(jnp.result_type(constant))) for constant in constants}) != 1:
        raise NotLiftableError("constants have other shapes or types")
    return choose(constants)


def _content(constant: Any) -> tuple[Any, ...]:
    if isinstance(constant, jax.Array) and jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
        constant = jax.random.key_data(constant)
    array = np.asarray(constant)
    return array.shape, str(array.dtype), array.tobytes()


def _description(params: dict[str, Any]) -> str:
    """The parameters of an operation as text; bodies of loops and branches with their constants."""
    closed = [value for value in jax.tree.leaves(list(params.values())) if isinstance(value, ClosedJaxpr)]
    return f"{params} {[_content(constant) for jaxpr in closed for constant in jaxpr.consts]}"
