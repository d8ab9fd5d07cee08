"""Muon: momentum whose matrices are orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.types import PyTree

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a x + b x³ + c x⁵: the slope at 0 is large, so that few steps take small singular values near 1."""


def orthogonalise(matrix: Float[Array, "M N"], *, steps: int, epsilon: float = 1e-7) -> Float[Array, "M N"]:
    """Move all singular values towards 1, roughly into [0.7, 1.2] after five steps, and keep the singular vectors.

    X₀ = G / (|G| + ε) in the Frobenius norm; then, `steps` times, X ← a X + (b A + c A²) X with A = X Xᵀ.

    Args:
      matrix: G.
      steps: Newton-Schulz steps.
      epsilon: ε.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T  # the smaller of the two Gram matrices
    x = x / (jnp.linalg.norm(x) + epsilon)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


def scale_by_muon(*, momentum: float, nesterov: bool, steps: int) -> optax.GradientTransformation:
    """Momentum, then `orthogonalise` of every kernel as a matrix `[window * C, F]`.

    Raises:
      UserError: at `init`, if a parameter is no kernel.
    """
    trace = optax.trace(decay=momentum, nesterov=nesterov)

    def init(params: PyTree) -> PyTree:
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
            if leaf.ndim < 2:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise UserError(
                    f"optimizer 'muon' takes kernels only, and {name!r} has the shape {leaf.shape}; give it a parameter"
                    " group with an optimizer of its own"
                )
        return trace.init(params)

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        updates, state = trace.update(updates, state, params)

        def whole(x: Array) -> Array:
            # [*window, C, F] -> [window * C, F] -> [*window, C, F]
            return orthogonalise(x.reshape(-1, x.shape[-1]), steps=steps).reshape(x.shape)

        return jax.tree.map(whole, updates), state

    return optax.GradientTransformation(init, update)


def keep_norm() -> optax.GradientTransformation:
    """Before the update is added, scale every kernel `[*window, C, F]` to the Frobenius norm √F."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(lambda u, p: u + (jnp.sqrt(p.shape[-1]) / jnp.linalg.norm(p) - 1.0) * p, updates, params)

    return optax.stateless(update)
