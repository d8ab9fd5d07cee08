"""Our side of the data benchmark, in a process of its own: `python -m cnn_jax.benchmark.data_worker`.

One JSON object a line comes in on the standard input and one goes out on the standard output. Requests: `describe`,
`prepare` (compile and warm up), `run` (so many steps, timed) and `sample` (what a batch of the host pipeline is like).
The scripts `*_data.py` and `pillow_decode.py` in `experiments/benchmarks` answer the same.
"""

import collections
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from cnn_jax.benchmark.cases import Case
from cnn_jax.benchmark.data_cases import DataRow
from cnn_jax.benchmark.store import cores
from cnn_jax.benchmark.worker import make_experiment, make_runs_runner
from cnn_jax.data.batches import training_batch
from cnn_jax.data.sources import LabelledImages, open_source
from cnn_jax.data.stream import open_stream
from cnn_jax.data.transform import training_transform
from cnn_jax.errors import UserError
from cnn_jax.memory import keep_freed_memory
from cnn_jax.train.config_file import plain
from cnn_jax.train.dispatch import several_steps
from cnn_jax.train.experiment import Experiment
from cnn_jax.types import Batch

CLASSES = 10
DISPATCHED = 8
"""Batches of small images that are being made while the one before them is used."""
MADE_AHEAD = 6
"""Batches that each thread or process of a stream has made before they are asked for, at most: twelve were counted with
two processes, in their buffers and on the way."""

Run = Callable[[int], float]
"""Takes so many steps; the seconds they took."""


def timed(take: Callable[[int], None]) -> Run:
    """The seconds of a function that takes so many steps and waits for them."""

    def run(steps: int) -> float:
        started = time.perf_counter()
        take(steps)
        return time.perf_counter() - started

    return run


def host_batches(row: DataRow) -> Iterator[Batch]:
    """Batches without end as a step gets them: order, gathering, crop, flip, normalisation; float32, on the CPU."""
    generator = np.random.default_rng(0)
    split = LabelledImages(
        images=generator.integers(0, 256, (row.examples, *row.image), np.uint8),
        labels=generator.integers(0, CLASSES, row.examples, np.int32),
        class_names=tuple(str(label) for label in range(CLASSES)),
        origin="random pixels",
        base=("train", np.arange(row.examples)),
    )
    nodes = ({"name": "random_crop", "padding": row.padding, "mode": "zero"}, {"name": "random_flip"})
    channels, key = row.image[-1], jax.random.key(0)
    transform = jax.jit(
        functools.partial(
            training_transform, augmentations=nodes, mean=(row.mean,) * channels, std=(row.std,) * channels
        )
    )
    ahead = collections.deque()
    for step in itertools.count():
        ahead.append(transform(key, training_batch(split, seed=0, step=step, batch_size=row.batch_size)))
        if len(ahead) > DISPATCHED:
            yield jax.block_until_ready(ahead.popleft())


def resident_runner(row: DataRow, *, dispatched: bool) -> Run:
    """Training with the split on the device, as `data.resident=true` has it.

    Args:
      row: of kind "resident".
      dispatched: each step by itself, or `row.steps_per_dispatch` in one program.
    """
    train = make_runs_runner([_experiment(row, steps_per_dispatch=1 if dispatched else row.steps_per_dispatch)], None)
    repeats = row.steps_per_dispatch if dispatched else 1
    return timed(lambda dispatches: train(dispatches * repeats))


def fixed_runner(row: DataRow, *, dispatched: bool) -> Run:
    """The same training on one batch that is on the device already.

    Args:
      row: of kind "resident".
      dispatched: each step by itself, or as many in one program as the split on the device has.
    """
    experiment = _experiment(row, steps_per_dispatch=row.steps_per_dispatch)
    held: dict[str, Any] = {"state": experiment.initial_state(), "pending": experiment.empty_metrics()}
    batch, per_dispatch = experiment.batch(0), row.steps_per_dispatch
    if dispatched:
        advance, repeats = experiment.compiled_step(), per_dispatch
    else:
        advance, repeats = _fixed_program(experiment, per_dispatch), 1

    def train(dispatches: int) -> None:
        state, pending = held["state"], held["pending"]
        for _ in range(dispatches * repeats):
            state, pending = advance(state, pending, batch)
        held.update(state=jax.block_until_ready(state), pending=pending)

    return timed(train)


def _fixed_program(experiment: Experiment, steps: int) -> Callable[..., Any]:
    """`(state, pending, batch)` to state and metrics after so many steps on the batch."""
    step, key = experiment.step(), experiment.key

    def program(state: Any, pending: Any, batch: Batch) -> Any:
        # Tied to the step's number: what depends on the batch alone would be computed once for all steps.
        def again(number: jax.Array) -> Batch:
            return jax.lax.optimization_barrier((batch, number))[0]

        return several_steps(state, pending, functools.partial(step, key), again, steps=steps)

    return jax.jit(program, donate_argnums=(0, 1), compiler_options=experiment.compiler_options)


def _experiment(row: DataRow, *, steps_per_dispatch: int) -> Experiment:
    if row.case is None:
        raise UserError(f"{row.name} has no network")
    overrides = ("--config.data.resident=true", f"--config.train.steps_per_dispatch={steps_per_dispatch}")
    return make_experiment(row.case, overrides=overrides, batches=row.examples // row.batch_size)


def stream_runner(row: DataRow) -> Run:
    """Batches of a folder of JPEG files: read, decoded, cropped, flipped; uint8."""
    source = open_source("folder", str(row.folder))
    crop = {"name": "random_resized_crop" if row.resized else "random_crop", "size": row.image[:2]}
    transforms = (crop, {"name": "random_flip"})
    split = open_stream(source, "train", training_transforms=transforms, workers=row.workers)
    batches = split.training_batches(seed=0, start=0, batch_size=row.batch_size)
    ahead = MADE_AHEAD * (row.workers or cores())

    def run(steps: int) -> float:
        # Batches that were made in the other side's time are not counted; those that are made ahead now must not be
        # made in the other's.
        for _ in range(ahead):
            next(batches)
        started = time.perf_counter()
        for _ in range(steps):
            next(batches)
        seconds = time.perf_counter() - started
        time.sleep(ahead * seconds / steps)
        return seconds

    return run


def host_runner(row: DataRow) -> Run:
    """Batches of the host pipeline; those that were made in the other side's time are not counted."""
    batches = host_batches(row)

    def run(steps: int) -> float:
        _take(batches, DISPATCHED)
        started = time.perf_counter()
        _take(batches, steps)
        return time.perf_counter() - started

    return run


def sample(row: DataRow) -> dict[str, Any]:
    """Shape, type and moments of a batch of the host pipeline: the sides must make the same."""
    batch = next(host_batches(row))
    image = np.asarray(batch["image"])
    return {
        "shape": list(image.shape),
        "type": str(image.dtype),
        "mean": float(image.mean()),
        "std": float(image.std()),
        "labels": len(batch["label"]),
    }


def runners(row: DataRow, side: str) -> dict[str, Callable[[], Run]]:
    """Variant to how it is made.

    Args:
      row: what to time.
      side: "ours" or "peer"; only the peer "fixed" is played here.
    """
    if side == "peer":
        return {
            "many steps a dispatch": lambda: fixed_runner(row, dispatched=False),
            "one step a dispatch": lambda: fixed_runner(row, dispatched=True),
        }
    if row.kind == "host":
        return {"jit": lambda: host_runner(row)}
    if row.kind == "resident":
        return {
            "many steps a dispatch": lambda: resident_runner(row, dispatched=False),
            "one step a dispatch": lambda: resident_runner(row, dispatched=True),
        }
    return {"stream": lambda: stream_runner(row)}


def _take(batches: Iterator[Batch], steps: int) -> None:
    for _ in range(steps):
        next(batches)


def answer(request: Mapping[str, Any], prepared: dict[str, Run]) -> dict[str, Any]:
    """What one request asks for.

    Args:
      request: `do`, and what that needs.
      prepared: variant to what was prepared; changed in place.
    """
    if request["do"] == "run":
        return {"seconds": prepared[request["variant"]](request["steps"])}
    given: dict[str, Any] = plain(request["row"])
    given["case"] = given["case"] and Case(**given["case"])
    row = DataRow(**given)
    made = runners(row, request["side"])
    if request["do"] == "describe":
        examples = row.batch_size * row.steps_per_dispatch
        return {"variants": list(made), "examples": examples, "versions": {}, "device": jax.devices()[0].device_kind}
    if request["do"] == "sample":
        return sample(row)
    started = time.perf_counter()
    prepared[request["variant"]] = made[request["variant"]]()
    prepared[request["variant"]](request["warm_up"])
    return {"seconds": time.perf_counter() - started}


def main() -> None:
    """Answer requests until the standard input ends."""
    keep_freed_memory(os.environ)  # as every command does
    prepared: dict[str, Run] = {}
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), prepared)), flush=True)


if __name__ == "__main__":
    main()
