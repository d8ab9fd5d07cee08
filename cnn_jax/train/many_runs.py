"""Many runs in one program: seeds and numeric hyperparameters along a leading axis, divided over devices.

Each run has a directory of its own, the same as the one that it writes when it is trained alone.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import jax
import numpy as np
import pydantic
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key
from pydantic import Field

from cnn_jax.data.resident import epoch_orders
from cnn_jax.data.sources import LabelledImages
from cnn_jax.errors import UserError
from cnn_jax.train.config import sha256
from cnn_jax.train.config_file import Node, plain
from cnn_jax.train.config_node import STRICT, first_error
from cnn_jax.train.differences import assign
from cnn_jax.train.dispatch import Program, resident_advance, resident_steps
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.lift import NotLiftableError, lift
from cnn_jax.train.program_record import program_record
from cnn_jax.train.run import build
from cnn_jax.train.sharding import divided, make_mesh, replicated
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import StepMetrics
from cnn_jax.types import Batch, PyTree

Mode = Literal["vmap", "sequential"]
Context: TypeAlias = tuple[PyTree, Key[Array, "*R"]]
"""The constants and the key of a run, or of all."""
VARIABLE = ("seed", "model", "task", "optimizer", "schedule", "train")


class Runs(pydantic.BaseModel):
    """What differs between the runs of one program.

    Attributes:
      vary: the keys of a config that differ, each with a tuple of numbers, one for each run.
      mode: all runs at once (`vmap`), or one after the other on each device (`sequential`); the results are the same.
        By default one after the other on CPUs, where that is faster.
    """

    model_config = STRICT

    vary: Annotated[dict[str, Any], Field(min_length=1)]
    mode: Mode | None = None


def split_runs(config: Node) -> tuple[Runs, dict[str, Node]]:
    """The config of each run, by name.

    Args:
      config: plain values with the section `runs`.

    Raises:
      UserError: a key that cannot vary, values that are no numbers, or not as many of one key as of another.
    """
    config = plain(config)
    if config.get("data", {}).get("stream") is not None:
        raise UserError("config.runs trains many runs on a split that lies on the device; leave data.stream out")
    try:
        runs = Runs.model_validate(config.pop("runs"))
    except pydantic.ValidationError as error:
        raise first_error("config.runs", error, Runs) from error
    varied = dict(_leaves(runs.vary))
    counts = {path: len(values) for path, values in varied.items()}
    if len(set(counts.values())) != 1:
        raise UserError(f"config.runs.vary has different numbers of values: {counts}; give one of each key to each run")
    if config.get("train", {}).get("early_stopping") is not None:
        raise UserError("config.train.early_stopping ends runs at different steps; set it to none, or drop config.runs")
    found: dict[str, Node] = {}
    for values in zip(*varied.values(), strict=True):
        own = plain(config)
        for path, value in zip(varied, values, strict=True):
            assign(own, path, value)
        # Of this machine: a run alone on one device, with the split on it, is the same run.
        own = {**own, "data": {**own["data"], "resident": True}, "parallel": {"devices": 1}}
        name = ",".join(f"{path}={value}" for path, value in zip(varied, values, strict=True))
        if name in found:
            raise UserError(f"config.runs.vary has the run {name} twice; drop one")
        found[name] = own
    return runs, found


def _leaves(vary: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, tuple[int | float, ...]]]:
    """(path, values) of every key that varies."""
    for key, value in vary.items():
        path = f"{above}{key}"
        if path.partition(".")[0] not in VARIABLE:
            raise UserError(f"config.runs.vary.{path} cannot vary; what can lies below {', '.join(VARIABLE)}")
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
        elif isinstance(value, tuple) and value and all(type(item) in (int, float) for item in value):
            yield path, value
        else:
            raise UserError(f"config.runs.vary.{path} must be a tuple of numbers, one for each run, got {value!r}")


def build_runs(configs: Mapping[str, Node]) -> list[Experiment]:
    """The experiments of many runs, which share their data.

    Raises:
      UserError: as `build`, or the runs do not take the same steps.
    """
    experiments: list[Experiment] = []
    for config in configs.values():
        experiments.append(build(config, splits=experiments[0].splits if experiments else None))
    first = experiments[0]
    for name, experiment in zip(configs, experiments, strict=True):
        if experiment.plan != first.plan:
            raise UserError(f"config.runs.vary: the run {name} has other steps, log lines or saves than the first run")
        shapes = [jax.tree.map(lambda x: x.shape, e.abstract_state()) for e in (first, experiment)]
        if shapes[0] != shapes[1]:
            raise UserError(f"config.runs.vary: the state of the run {name} has other shapes; train it alone")
    return experiments


def many_runs(
    experiments: Sequence[Experiment],
    *,
    mode: Mode | None,
    devices: int | None,
    among: Sequence[Experiment] | None = None,
) -> Program:
    """All runs in one program, divided over as many devices as divide their number.

    Args:
      experiments: from `build_runs`.
      mode: see `Runs`.
      devices: how many at most; default is all.
      among: all runs that the program is made for, of which these are some: what of a group is left computes then what
        it would have computed in the whole group. Default is `experiments`.

    Raises:
      UserError: the runs differ in more than numbers.
    """
    first, count = experiments[0], len(experiments)
    step, constants = _lifted_step(experiments, among or experiments)
    limit = make_mesh(devices=devices).devices.size
    mesh = make_mesh(devices=max(size for size in range(1, limit + 1) if count % size == 0))
    mode = mode or ("sequential" if mesh.devices.flat[0].platform == "cpu" else "vmap")
    record = functools.partial(program_record, experiments, among or experiments, mode=mode, devices=mesh.devices.size)
    if mode == "sequential" and mesh.devices.size == 1:
        return dataclasses.replace(_in_turn(experiments, step, constants), record=record)
    over_runs, alone = divided(mesh), replicated(first.mesh)

    def orders(context: Context, first: Int[Array, ""], *, epochs: int, examples: int) -> Array:
        one = functools.partial(epoch_orders, epochs=epochs, examples=examples)
        return jax.vmap(one, in_axes=(0, None))(context[1], first)

    one_run = _one_run(first, step, sharding=None)

    def program(
        context: Context,
        state: TrainState,
        pending: StepMetrics,
        orders: Int[Array, "R E N"],
        data: Batch,
        first_epoch: Int[Array, ""],
        steps: int | Int[Array, ""],
    ) -> tuple[TrainState, StepMetrics]:
        shared = (data, first_epoch) if isinstance(steps, int) else (data, first_epoch, steps)

        def on_one_device(context, state, pending, orders, data, first_epoch, steps=steps):
            def one(run: tuple) -> tuple[TrainState, StepMetrics]:
                return one_run(*run, data, first_epoch, steps)

            stacked = (context, state, pending, orders)
            return jax.vmap(one)(stacked) if mode == "vmap" else jax.lax.map(one, stacked)

        divided_over_runs, everywhere = PartitionSpec("data"), PartitionSpec()
        specs = (divided_over_runs,) * 4 + (everywhere,) * len(shared)
        sharded = jax.shard_map(on_one_device, mesh=mesh, in_specs=specs, out_specs=divided_over_runs, check_vma=False)
        return sharded(context, state, pending, orders, *shared)

    def stack(trees: Sequence[PyTree]) -> PyTree:
        return jax.device_put(jax.tree.map(lambda *x: np.stack(x), *jax.device_get(list(trees))), over_runs)

    def split(tree: PyTree) -> Sequence[PyTree]:
        host = jax.device_get(tree)
        # Copies: the next step may reuse the memory that the host's view shows.
        return [jax.device_put(jax.tree.map(lambda x, i=i: np.array(x[i]), host), alone) for i in range(count)]

    keys = jax.random.wrap_key_data(stack([jax.random.key_data(experiment.key) for experiment in experiments]))
    with_context = _advance(first, program, orders, state_sharding=over_runs, sharding=over_runs, mesh=mesh)
    advance = with_context((jax.device_put(constants, over_runs), keys))
    return Program(advance=advance, stack=stack, split=split, record=record)


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    """The same experiment with another seed; what is known of its shapes is kept.

    Args:
      experiment: its splits are no streams, whose random transforms know the seed.
      seed: of the run.
    """
    other = copy.copy(experiment)
    object.__setattr__(other, "config", experiment.config.model_copy(update={"seed": seed}))
    return other


def can_share(experiments: Sequence[Experiment]) -> bool:
    """Whether runs differ in nothing but numbers, so that one program can train them."""
    try:
        _lifted_step(experiments, experiments)
    except UserError:
        return False
    return True


def _one_run(first: Experiment, step: Callable[..., PyTree], *, sharding: NamedSharding | None) -> Callable[..., Any]:
    """`resident_steps` of one run, whose context is its constants and its key."""

    def one_run(context: Context, *arguments: Any, **steps: Any) -> tuple[TrainState, StepMetrics]:
        constants, key = context
        own = functools.partial(step, constants)
        return resident_steps(key, *arguments, **steps, step=own, batch_size=first.plan.batch_size, sharding=sharding)

    return one_run


def _advance(first: Experiment, program: Callable[..., Any], orders: Callable[..., Array], **places: Any) -> Any:
    """`resident_advance` with the split and the plan that all runs share."""
    train = first.splits["train"]
    assert isinstance(train, LabelledImages), "many runs are refused on streams"
    return resident_advance(
        program,
        orders,
        train,
        batch_size=first.plan.batch_size,
        steps_per_dispatch=first.plan.steps_per_dispatch,
        compiler_options=first.compiler_options,
        **places,
    )


def _in_turn(
    experiments: Sequence[Experiment], step: Callable[..., PyTree], constants: Sequence[np.ndarray]
) -> Program:
    """One compiled program of one run, called for each: what a run computes does not depend on how many there are."""
    first = experiments[0]
    with_context = _advance(
        first,
        _one_run(first, step, sharding=divided(first.mesh)),
        lambda context, *rest, **sizes: epoch_orders(context[1], *rest, **sizes),
        state_sharding=first.state_sharding,
        sharding=replicated(first.mesh),
        mesh=first.mesh,
    )
    whole = replicated(first.mesh)
    advances = [
        with_context(jax.device_put(([values[index] for values in constants], experiment.key), whole))
        for index, experiment in enumerate(experiments)
    ]

    def advance(
        states: Sequence[TrainState], pending: Sequence[StepMetrics], done: int, steps: int
    ) -> tuple[list[TrainState], list[StepMetrics]]:
        after = [own(s, p, done, steps) for own, s, p in zip(advances, states, pending, strict=True)]
        return [state for state, _ in after], [metrics for _, metrics in after]

    def split(trees: Sequence[PyTree]) -> Sequence[PyTree]:
        # Copies: the next step may reuse the memory.
        return [jax.device_put(jax.tree.map(np.array, jax.device_get(tree)), whole) for tree in trees]

    return Program(advance=advance, stack=list, split=split)


def _lifted_step(
    experiments: Sequence[Experiment], among: Sequence[Experiment]
) -> tuple[Callable[..., PyTree], list[np.ndarray]]:
    """One step for all runs, `(constants, key, state, pending, batch)`, and the constants `[R, ...]` of each run."""
    digests, all_digests = (
        [sha256(experiment.config.model_copy(update={"seed": 0})) for experiment in some]
        for some in (experiments, among)
    )
    # Runs that differ in their seed share a trace. Sorted: the program does not depend on the order of the runs.
    distinct = dict(sorted(zip(all_digests, among, strict=True), key=lambda pair: pair[0]))
    if len(distinct) == 1:
        step = experiments[0].step()
        return lambda _, *arguments: step(*arguments), []
    try:
        step, constants = lift([experiment.traced_step for experiment in distinct.values()])
    except NotLiftableError as error:
        raise UserError(
            f"config.runs.vary: the runs differ in more than numbers ({error}), for example where only some have a"
            " value of 0; train them one by one"
        ) from None
    at = [list(distinct).index(digest) for digest in digests]
    return step, [values[at] for values in constants]
