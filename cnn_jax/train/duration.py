"""Durations: a number of steps, epochs or examples, converted to steps once, at the edge."""

from typing import Annotated

import pydantic

UNITS = ("steps", "epochs", "examples")


class Duration(pydantic.BaseModel):
    """A length of training in exactly one unit.

    Attributes:
      steps: optimizer steps.
      epochs: passes over the training split; a fraction is allowed.
      examples: training examples seen.

    Raises:
      pydantic.ValidationError: no unit is given, or two are, or the value is not positive and finite.

    Example:
      >>> Duration(epochs=2).to_steps(examples_per_epoch=1000, batch_size=128)
      16
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    epochs: Annotated[float, pydantic.Field(gt=0)] | None = None
    examples: Annotated[int, pydantic.Field(ge=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _exactly_one(self) -> "Duration":
        given = {unit: getattr(self, unit) for unit in UNITS if getattr(self, unit) is not None}
        if len(given) != 1:
            raise ValueError(f"a duration has exactly one of {', '.join(UNITS)}; this one has {given or 'none'}")
        return self

    def to_steps(self, *, examples_per_epoch: int, batch_size: int) -> int:
        """The nearest whole number of optimizer steps, at least 1.

        Args:
          examples_per_epoch: size of the training split.
          batch_size: examples per optimizer step, over all devices and microbatches.
        """
        if self.steps is not None:
            return self.steps
        examples = self.examples if self.examples is not None else (self.epochs or 0.0) * examples_per_epoch
        return max(1, round(examples / batch_size))
