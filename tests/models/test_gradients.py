"""Every feature map changes the logits and every parameter gets a gradient: at an odd size, some at an even one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from small_builds import COMPILED_FAST, SMALL

from cnn_jax import models

CASES = [
    pytest.param(
        *row, grow, id=f"{row[0]}-{row[2][0] + grow}", marks=[pytest.mark.slow] * (grow or row[0] not in COMPILED_FAST)
    )
    for row in SMALL
    for grow in (0, 1)
    # lenet5_1998 takes images of two sizes only, both even.
    if (grow or row[0] in COMPILED_FAST or row[0] == "lenet5_1998") and (row[0], grow) != ("lenet5_1998", 1)
]

FROZEN = {
    "airbench94": ("backbone/whiten/kernel",),
    # The reconstruction's, on which logits do not depend: test_capsule_network.py.
    "capsule_network": tuple(
        f"decoder/{layer}/{leaf}" for layer in ("dense1", "dense2", "output") for leaf in ("kernel", "bias")
    ),
}
"""Parameters that the network itself does not train."""


def perturbed(function, *arguments):
    """`(function's value, deltas -> first output)`: a delta is added to each of the named outputs where it is made.

    The trace of the function is run again with the sums in it, so that whatever follows an output sees its delta.

    Args:
      function: `arguments -> (output, {name: intermediate})`.
      *arguments: shapes are enough.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    jaxpr = closed.jaxpr
    names = sorted(shapes[1])  # The order of a dict's leaves.
    places = dict(zip(jaxpr.outvars[1:], names, strict=True))

    def run(deltas, *arguments):
        values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values |= dict(zip(jaxpr.invars, jax.tree.leaves(arguments), strict=True))

        def read(atom):
            return atom.val if isinstance(atom, jax.extend.core.Literal) else values[atom]

        for variable in places.keys() & values.keys():  # The image itself is a map.
            values[variable] += deltas[places[variable]]
        for equation in jaxpr.eqns:
            primitive = equation.primitive
            outputs = primitive.bind(*map(read, equation.invars), **primitive.get_bind_params(equation.params))
            outputs = outputs if primitive.multiple_results else [outputs]
            for variable, value in zip(equation.outvars, outputs, strict=True):
                values[variable] = value + deltas[places[variable]] if variable in places else value
        return read(jaxpr.outvars[0])

    return shapes[1], run


@pytest.mark.parametrize(("name", "arguments", "image", "grow"), CASES)
def test_every_map_and_every_parameter_counts(name, arguments, image, grow, random_variables):
    space = tuple(size + grow for size in image[:-1])
    model = models.create(name, num_classes=5, in_channels=image[-1], **arguments)
    generator = np.random.default_rng(1)
    x = jnp.asarray(generator.standard_normal((2, *space, image[-1]), dtype=np.float32))
    variables = random_variables(model, x)
    state = {key: value for key, value in variables.items() if key != "params"}

    def outputs(params, x):
        with_state = {"params": params, **state}
        maps = model.apply(with_state, x, train=False, method="features")
        last = tuple(maps.values())[-1]
        return model.apply(with_state, last, method=lambda module, last: module.head(last, train=False)), maps

    params = variables.get("params", {})
    shapes, run = perturbed(outputs, params, x)
    expected = jax.jit(functools.partial(model.apply, train=False))(variables, x)
    weights = jnp.asarray(generator.standard_normal(expected.shape, dtype=np.float32))

    @jax.jit
    def gradients(deltas, params, x):
        def loss(deltas, params):
            logits = run(deltas, params, x)
            return jnp.sum(logits * weights), logits

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(deltas, params)

    deltas = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
    (by_map, by_parameter), logits = gradients(deltas, params, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    for key, gradient in by_map.items():
        channels = np.abs(gradient).max(axis=tuple(range(gradient.ndim - 1)))
        # Some lead to units that are off for both images, most where each channel has one filter of its own and no
        # shortcut passes it, as in MobileNetV1; a map that nothing reads has none.
        assert np.mean(channels > 0) >= 0.5, f"channels {np.flatnonzero(channels == 0)} of {key} change nothing"
    for path, gradient in traverse_util.flatten_dict(by_parameter, sep="/").items():
        assert np.isfinite(gradient).all(), path
        assert (np.abs(gradient).max() > 0) == (path not in FROZEN.get(name, ())), path
