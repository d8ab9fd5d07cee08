"""Options for XLA that hold for every compiled program of a run."""

import functools
import math
from collections.abc import Sequence

import jax

from cnn_jax.types import PyTree

# What YNNPACK may take over on a CPU. In training it is all that it does by default but single convolutions, which lose
# there. With XLA_FLAGS one would subtract that one; an option of a program has to name the others.
YNNPACK_FUSIONS = ("DOT", "INDIVIDUAL_DOT", "REDUCE")
# Without gradients: see `compiler_options`.
PRODUCTS = ("INDIVIDUAL_DOT",)


def compiler_options(params: PyTree, *, gradients: bool) -> dict[str, str]:
    """For `jax.jit(..., compiler_options=...)`: what makes convolutional networks faster on this backend.

    Without gradients YNNPACK gets matrix products alone: what else it takes from XLA grows from a product over the
    convolutions before it, which are slower there.

    With gradients elementwise operations are left to XLA where most convolutions see one pixel, such as in ResNet-50
    and MobileNetV2. Elsewhere YNNPACK takes them too, because XLA would compute them again, slowly, inside the
    transposes that gradients of larger kernels need. Each was the faster one on two AVX2 cores.

    Args:
      params: of the model; shapes are enough.
      gradients: whether the program computes any.

    Returns:
      Empty on anything but a CPU, and where this version of XLA does not know the option.
    """
    if jax.default_backend() != "cpu":
        return {}
    if not gradients:
        return _of_ynnpack(PRODUCTS)
    windows = [math.prod(leaf.shape[:-2]) for leaf in jax.tree.leaves(params) if len(leaf.shape) > 2]
    mostly_pointwise = 2 * sum(window == 1 for window in windows) > len(windows)
    names = YNNPACK_FUSIONS if mostly_pointwise else (*YNNPACK_FUSIONS, "ELTWISE")
    return _of_ynnpack(names)


def creation_options() -> dict[str, str]:
    """For the program that creates a state, which runs once: few of LLVM's passes on a CPU.

    Random numbers are very many instructions, on which all passes together spend several times as long as level 1. With
    that the program runs as fast and gives the same values to the bit.

    Returns:
      Empty on anything but a CPU, and where this version of XLA does not know the option.
    """
    options = {"xla_backend_optimization_level": "1"}
    return options if jax.default_backend() == "cpu" and _are_known(tuple(options.items())) else {}


def _of_ynnpack(names: Sequence[str]) -> dict[str, str]:
    """The option that gives YNNPACK these fusions, if it is known."""
    options = {"xla_cpu_experimental_ynn_fusion_type": ",".join(f"LIBRARY_FUSION_TYPE_{name}" for name in names)}
    return options if _are_known(tuple(options.items())) else {}


@functools.cache
def _are_known(options: tuple[tuple[str, str], ...]) -> bool:
    """Whether this version of XLA takes the options; it refuses unknown ones when it compiles."""
    try:
        jax.jit(lambda x: x, compiler_options=dict(options)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
