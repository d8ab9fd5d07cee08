"""Rematerialisation by stage: what the backward pass needs is computed again instead of being kept."""

import flax.linen as nn
from jaxtyping import Array, Float


def run_stage(
    stage: nn.Module, x: Float[Array, "B *space C"], *then: nn.Module, train: bool, remat: bool
) -> Float[Array, "B *out D"]:
    """The output of a stage; with `remat`, its backward pass keeps nothing but `x` and computes the rest again.

    Parameters, their initial values, statistics and dropout masks are the same either way: the transformation is of the
    call, not of the class, whose name Flax would change and with it the paths. Call it inside a module's compact
    method, with modules that have names.

    XLA's CPU backend removes the barrier between the two computations and then merges them again, so that no memory is
    saved there unless its compiler option `xla_disable_hlo_passes` is "cse_barrier_expander".

    Args:
      stage: called as `stage(x, train=train)`.
      x: its input.
      *then: modules without a `train` that belong to the stage, such as its pool, called one after the other.
      train: as in every model.
      remat: whether to compute again (Chen et al. 2016, "Training deep nets with sublinear memory cost").
    """

    def run(stage: nn.Module, then: tuple[nn.Module, ...], x: Array) -> Array:
        x = stage(x, train=train)
        for module in then:
            x = module(x)
        return x

    return nn.remat(run)(stage, then, x) if remat else run(stage, then, x)
