"""Options for XLA that hold for every compiled program of a run."""

import functools

import jax

# What YNNPACK may take over on a CPU: all that it does by default but single convolutions, which lose in training. With
# XLA_FLAGS one would subtract that one; an option of a program has to name the others.
YNNPACK_FUSIONS = ("DOT", "REDUCE", "INDIVIDUAL_DOT", "ELTWISE")


@functools.cache
def compiler_options() -> dict[str, str]:
    """For `jax.jit(..., compiler_options=...)`: what makes convolutional networks faster on this backend.

    Empty on anything but a CPU, and where this version of XLA does not know the option.
    """
    if jax.default_backend() != "cpu":
        return {}
    names = ",".join(f"LIBRARY_FUSION_TYPE_{name}" for name in YNNPACK_FUSIONS)
    options = {"xla_cpu_experimental_ynn_fusion_type": names}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
