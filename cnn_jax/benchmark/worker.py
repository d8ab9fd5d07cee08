"""Our side of a benchmark, in a process of its own: `python -m cnn_jax.benchmark.worker`.

One JSON object a line comes in on the standard input and one goes out on the standard output. Requests: `describe`
(parameters, versions), `prepare` (compile and warm up) and `run` (so many steps, timed). Between them the process
waits for its input, so that the other side has the machine. `experiments/benchmarks/torch_worker.py` answers the same;
`matmul`, the rate of matrix products, is answered here alone.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.benchmark.cases import Case
from cnn_jax.data.sources import Source
from cnn_jax.errors import UserError
from cnn_jax.memory import keep_freed_memory
from cnn_jax.methods.summarize import summarize
from cnn_jax.train.config_file import override, plain
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.many_runs import Mode, many_runs
from cnn_jax.train.passport import versions
from cnn_jax.train.prediction import compiled_prediction
from cnn_jax.train.run import build
from cnn_jax.train.splits import Split

BATCHES, STEPS = 64, 4
RESIDENT = ("--config.data.resident=true", f"--config.train.steps_per_dispatch={STEPS}")
"""Many runs have their data on the device: an epoch of so many batches, and so many steps a dispatch."""


def make_experiment(
    case: Case, *, overrides: tuple[str, ...] = (), batches: int = 1, splits: Mapping[str, Split] | None = None
) -> Experiment:
    """The experiment of a case, on random pixels and labels.

    Args:
      case: what to time.
      overrides: `--config.key=value` assignments, to compare settings.
      batches: how many there are.
      splits: those of another experiment of the same case.
    """
    config = override(plain(case.config()), overrides)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batches * config["data"]["batch_size"], *case.image), np.uint8)
    labels = generator.integers(0, case.num_classes, len(images), np.int32)
    source = Source(
        name="random pixels",
        class_names=tuple(str(label) for label in range(case.num_classes)),
        sizes={"train": len(images)},
        load_range=lambda _, start, stop: (images[start:stop], labels[start:stop]),
    )
    return build(config, source=source, splits=splits)


def make_runs(case: Case, runs: int, *, overrides: tuple[str, ...]) -> list[Experiment]:
    """The experiments of so many seeds, on the same data."""
    made: list[Experiment] = []
    for seed in range(runs):
        assignments = (*RESIDENT, *overrides, f"--config.seed={seed}")
        splits = made[0].splits if made else None
        made.append(make_experiment(case, overrides=assignments, batches=BATCHES, splits=splits))
    return made


def make_runner(experiment: Experiment, mode: str) -> Callable[[int], None]:
    """A function that takes this many steps and waits until they are done.

    Args:
      experiment: whose compiled functions are called.
      mode: "train" (`Experiment.compiled_step`, state donated and metrics merged, as in a run) or "forward"
        (`prediction.compiled_prediction`).
    """
    if experiment.config.data.resident:
        raise UserError("config.data.resident is timed by `benchmark.py runs`, which dispatches as training does")
    state, batch = experiment.initial_state(), experiment.batch(0)
    if mode == "forward":
        predict = compiled_prediction(experiment)

        # On a CPU each is waited for: predictions that pile up would run side by side.
        at_once = jax.default_backend() == "cpu"

        def forward(steps: int) -> None:
            for step in range(1, steps + 1):
                logits = predict(state.params, state.model_state, batch)
                if at_once or step == steps:
                    jax.block_until_ready(logits)

        return forward

    step = experiment.compiled_step()
    held: dict[str, Any] = {"state": state, "pending": experiment.empty_metrics()}

    def train(steps: int) -> None:
        state, pending = held["state"], held["pending"]
        for _ in range(steps):
            state, pending = step(state, pending, batch)
        held.update(state=jax.block_until_ready(state), pending=pending)

    return train


def make_runs_runner(experiments: Sequence[Experiment], mode: Mode | None) -> Callable[[int], None]:
    """A function that makes this many dispatches, each of `steps_per_dispatch` steps, and waits until they are done.

    Args:
      experiments: one, or several that differ in their seeds; data resident.
      mode: how several become one program; None: one alone.
    """
    program = experiments[0].program() if mode is None else many_runs(experiments, mode=mode, devices=1)
    held: dict[str, Any] = {
        "done": 0,
        "state": program.stack([experiment.initial_state() for experiment in experiments]),
        "pending": program.stack([experiment.empty_metrics() for experiment in experiments]),
    }
    steps = experiments[0].plan.steps_per_dispatch

    def train(dispatches: int) -> None:
        done, state, pending = held["done"], held["state"], held["pending"]
        for _ in range(dispatches):
            state, pending = program.advance(state, pending, done, steps)
            done += steps
        held.update(done=done, state=jax.block_until_ready(state), pending=pending)

    return train


def describe(case: Case, experiment: Experiment, *, runs: int | None = None) -> dict[str, Any]:
    """What the parent must know of a case before it is timed.

    Args:
      case: what to time.
      experiment: its parts, or those of the first run.
      runs: see `table.our_side`.

    Returns:
      `parameters`, their number; `parameter_bytes` per array; `norm_bytes`, per BatchNorm layer the bytes of a mean and
      a mean square; `macs`, multiply-accumulates of a forward pass for one example; `runs`; `batch_size`;
      `examples`, of all runs in what is timed as one step; `variants`, `versions`, `device` and `platform`.
    """
    state = experiment.abstract_state()
    arrays = jax.tree.leaves(state.params)
    statistics = jax.tree_util.tree_leaves_with_path(state.model_state)
    means = [
        leaf for path, leaf in statistics if jax.tree_util.keystr(path, simple=True, separator="/").endswith("/mean")
    ]
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in arrays),
        "parameter_bytes": [math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in arrays],
        "norm_bytes": [2 * math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in means],
        "macs": summarize(experiment.model, case.image).totals.macs,
        "runs": runs or 1,
        "batch_size": experiment.plan.batch_size,
        "examples": experiment.plan.batch_size * (runs or 1) * experiment.plan.steps_per_dispatch,
        "variants": ["jit"] if runs is None else ["alone"] if runs == 1 else list(get_args(Mode)),
        "versions": versions(),
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
    }


def matmul_rate(size: int, *, repeats: int = 20) -> float:
    """Operations per second of a product of two square bfloat16 matrices, the best of some tries: the practical peak.

    Args:
      size: rows and columns.
      repeats: tries.
    """
    a = jnp.full((size, size), 0.5, jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times[1:])


def answer(request: Mapping[str, Any], runners: dict[str, Callable[[int], None]]) -> dict[str, Any]:
    """What one request asks for.

    Args:
      request: `do`, and what that needs.
      runners: variant to what was prepared; changed in place.
    """
    if request["do"] == "run":
        started = time.perf_counter()
        runners[request["variant"]](request["steps"])
        return {"seconds": time.perf_counter() - started}
    if request["do"] == "matmul":
        return {"flops_per_second": matmul_rate(request["size"])}
    case = Case(**plain(request["case"]))
    overrides, runs = tuple(request["overrides"]), request.get("runs")
    if request["do"] == "describe":
        first = (
            make_experiment(case, overrides=overrides) if runs is None else make_runs(case, 1, overrides=overrides)[0]
        )
        return describe(case, first, runs=runs)
    started, variant = time.perf_counter(), request["variant"]
    if runs is None:
        runners[variant] = make_runner(make_experiment(case, overrides=overrides), request["mode"])
    else:
        experiments = make_runs(case, runs, overrides=overrides)
        runners[variant] = make_runs_runner(experiments, variant if runs > 1 else None)
    runners[variant](request["warm_up"])
    return {"seconds": time.perf_counter() - started}


def main() -> None:
    """Answer requests until the standard input ends."""
    keep_freed_memory(os.environ)  # as every command does
    runners: dict[str, Callable[[int], None]] = {}
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), runners)), flush=True)


if __name__ == "__main__":
    main()
