"""A cell of a study: which run it is, the key of its result, and where it is stored."""

import pathlib
from typing import Any

import pydantic

from cnn_jax.errors import UserError
from cnn_jax.train.config import to_plain
from cnn_jax.train.config_file import plain
from cnn_jax.train.config_node import STRICT, first_error
from cnn_jax.train.many_runs import Mode
from cnn_jax.train.run_directory import read_json, write_json

CELLS, PLAN = "cells", "plan.json"
KEY_DIGITS = 16


class Cell(pydantic.BaseModel):
    """One run of a study.

    Attributes:
      variant: its name.
      seed: the study's.
      chosen: by tuning, or the trial itself: dotted path to value.
      trial: the number of the trial of a tuning; None for a run that counts.
      data: split to its checksum.
      key: the hash of resolved config, data checksum, probes and code version.
    """

    model_config = pydantic.ConfigDict(**STRICT, frozen=True)

    variant: str
    seed: int
    chosen: dict[str, Any]
    trial: int | None
    data: dict[str, str]
    key: str

    @pydantic.field_validator("variant", "key")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if any(mark in value for mark in "/\\\0") or value.startswith(".") or not value.isprintable():
            raise ValueError(f"{value[:100]!r} is no part of a folder's name")
        return value

    @property
    def name(self) -> str:
        """Of its folder: which run it is, for people, and the key."""
        which = "" if self.trial is None else f",trial={self.trial}"
        return f"{self.variant.replace(' ', '_')}{which},seed={self.seed},{self.key}"

    def folder(self, directory: pathlib.Path) -> pathlib.Path:
        """Its run directory, in the study's."""
        return directory / CELLS / self.name


class Plan(pydantic.BaseModel):
    """Which runs a study consists of, and the file that says so.

    Attributes:
      cells: those of trials first.
      reference: the study's file as it was given, with its scale; relative to the repository where it lies there.
      sha256: of the file.
      mode: how the runs of a program are trained, as it was decided when the study was begun: "vmap" or "sequential".
      arguments: of the command that began it or went on with it, but for the study's file and directory.
    """

    model_config = STRICT

    cells: tuple[Cell, ...]
    reference: str = ""
    sha256: str = ""
    mode: Mode | None = None
    arguments: tuple[str, ...] = ()


def write_plan(directory: pathlib.Path, plan: Plan) -> None:
    """Keep a plan, so that reports need neither data nor code of the runs."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / PLAN, to_plain(plan))


def read_plan(directory: pathlib.Path) -> Plan:
    """The plan of a study's directory.

    Raises:
      UserError: it has no plan, or a damaged one.
    """
    path = directory / PLAN
    if not path.exists():
        raise UserError(f"{str(directory)!r} holds no {PLAN}; is it the directory of a study that was begun?")
    try:
        return Plan.model_validate(plain(read_json(path)))
    except pydantic.ValidationError as error:
        raise first_error(str(path), error, Plan) from error
