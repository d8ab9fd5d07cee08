"""Learning-rate schedules: step number to rate, with every duration given as steps, epochs or examples."""

from collections.abc import Callable
from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from cnn_jax.errors import UserError
from cnn_jax.train.duration import Duration

ToSteps: TypeAlias = Callable[[Duration], int]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]


def constant(peak: float, total_steps: int, to_steps: ToSteps, *, warmup: Duration | None = None) -> optax.Schedule:
    """`peak` throughout, after a linear warm-up from zero."""
    _rest(total_steps, warmup, to_steps)
    return _with_warmup(optax.constant_schedule(peak), peak, warmup, to_steps)


def step(
    peak: float,
    total_steps: int,
    to_steps: ToSteps,
    *,
    boundaries: tuple[Duration, ...],
    factor: Annotated[float, Field(gt=0)] = 0.1,
    warmup: Duration | None = None,
) -> optax.Schedule:
    """Multiply the rate by `factor` at each boundary; boundaries count from the first step (He et al. 2016, 4.2)."""
    _rest(total_steps, warmup, to_steps)
    at = [to_steps(boundary) for boundary in boundaries]
    if at != sorted(set(at)):
        raise UserError(f"config.schedule.boundaries must increase; in steps they are {at}")
    offset = to_steps(warmup) if warmup else 0
    if at and at[0] <= offset:
        raise UserError(
            f"config.schedule.boundaries: the first, step {at[0]}, must come after the {offset} steps of warm-up"
        )
    after = optax.piecewise_constant_schedule(peak, {boundary - offset: factor for boundary in at})
    return _with_warmup(after, peak, warmup, to_steps)


def exponential(
    peak: float,
    total_steps: int,
    to_steps: ToSteps,
    *,
    every: Duration,
    factor: Annotated[float, Field(gt=0)],
    staircase: bool = False,
    warmup: Duration | None = None,
) -> optax.Schedule:
    """`peak * factor ** (steps since warm-up / every)`."""
    _rest(total_steps, warmup, to_steps)
    after = optax.exponential_decay(peak, to_steps(every), factor, staircase=staircase)
    return _with_warmup(after, peak, warmup, to_steps)


def cosine(
    peak: float, total_steps: int, to_steps: ToSteps, *, final: Fraction = 0.0, warmup: Duration | None = None
) -> optax.Schedule:
    """From `peak` to `final * peak` along half a cosine, over what the warm-up leaves (Loshchilov & Hutter 2017)."""
    rest = _rest(total_steps, warmup, to_steps)
    return _with_warmup(optax.cosine_decay_schedule(peak, rest, final), peak, warmup, to_steps)


def one_cycle(
    peak: float,
    total_steps: int,
    to_steps: ToSteps,
    *,
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3,
    start: Annotated[float, Field(gt=0, le=1)] = 0.04,
    final: Annotated[float, Field(gt=0, le=1)] = 4e-6,
) -> optax.Schedule:
    """Cosine from `start * peak` up to `peak` over the share `rise` of training, then down to `final * peak`.

    Smith & Topin 2018, with the annealing and the defaults of torch's OneCycleLR.
    """
    del to_steps
    # The peak and the end are at these steps, counted from 0, and need not be whole.
    top, last = max(rise * total_steps - 1, 1e-6), max(total_steps - 1, 1)

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        count = jnp.asarray(count)
        rising = _cosine_between(start * peak, peak, count / top)
        falling = _cosine_between(peak, final * peak, (count - top) / (last - top))
        return jnp.where(count <= top, rising, falling)

    return rate


def polynomial(
    peak: float,
    total_steps: int,
    to_steps: ToSteps,
    *,
    power: Annotated[float, Field(gt=0)] = 1.0,
    final: Fraction = 0.0,
    warmup: Duration | None = None,
) -> optax.Schedule:
    """From `peak` to `final * peak` as `(1 - progress) ** power`, over what the warm-up leaves; power 1 is linear."""
    rest = _rest(total_steps, warmup, to_steps)
    return _with_warmup(optax.polynomial_schedule(peak, final * peak, power, rest), peak, warmup, to_steps)


def zero_after(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """A schedule whose rate is 0 from a step on.

    Args:
      schedule: step to rate.
      steps: the first step with rate 0, counted from 0.
    """
    return lambda count: jnp.where(jnp.asarray(count) < steps, schedule(count), 0.0)


def _rest(total_steps: int, warmup: Duration | None, to_steps: ToSteps) -> int:
    """Steps after the warm-up."""
    rest = total_steps - (to_steps(warmup) if warmup else 0)
    if rest < 1:
        raise UserError(
            f"config.schedule.warmup of {total_steps - rest} steps must be shorter than the {total_steps} steps of"
            " training"
        )
    return rest


def _with_warmup(after: optax.Schedule, peak: float, warmup: Duration | None, to_steps: ToSteps) -> optax.Schedule:
    """A linear rise before another schedule: step s of w has the rate `peak * (s + 1) / w`, so none has rate zero."""
    if warmup is None:
        return after
    steps = to_steps(warmup)

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        count = jnp.asarray(count)
        return jnp.where(count < steps, peak * (count + 1) / steps, after(jnp.maximum(count - steps, 0)))

    return rate


def _cosine_between(first: float, last: float, progress: jax.Array) -> jax.Array:
    progress = jnp.clip(progress, 0.0, 1.0)
    return last + (first - last) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "polynomial": polynomial,
}
"""Each takes (peak rate, total steps, duration to steps) and its own keyword arguments, which the config gives."""
