"""From a config to an experiment: the one place that sees every table and wires the parts."""

import functools
import importlib.util
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from cnn_jax.data.augment import AUGMENTATIONS, GIVEN
from cnn_jax.data.augment.mixing import MIXINGS
from cnn_jax.data.host_transforms import HOST_TRANSFORMS, RANDOM
from cnn_jax.data.resident import check_resident
from cnn_jax.data.sources import Source, check_labels, open_source
from cnn_jax.data.wrappers import WRAPPERS
from cnn_jax.errors import UserError, unknown_name
from cnn_jax.losses import DIVIDED_BY_WEIGHTS, LOSSES, ONE_OF_K_OR_SEVERAL
from cnn_jax.models import MODELS
from cnn_jax.tasks import TASKS
from cnn_jax.tasks.task import Task
from cnn_jax.train.config import Config, Data, InitCommon, OptimizerCommon, ParameterGroup, resolve
from cnn_jax.train.config_file import Node
from cnn_jax.train.config_node import check_node, look_up, options
from cnn_jax.train.divergence import FACTOR
from cnn_jax.train.duration import Duration
from cnn_jax.train.evaluate import scalars, summarize
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.initialise import INITIALISERS
from cnn_jax.train.optim import OPTIMIZERS, Branch, assign_groups, make_optimizer
from cnn_jax.train.plan import Plan, make_plan
from cnn_jax.train.schedule import SCHEDULES, ToSteps, zero_after
from cnn_jax.train.shapes import abstract_variables, check_augmentations
from cnn_jax.train.sharding import check_batch_size, make_mesh
from cnn_jax.train.splits import Split, normalisation, open_splits
from cnn_jax.types import PyTree

COMMON = tuple(OptimizerCommon.model_fields)


def build(
    config: Node,
    *,
    source: Source | None = None,
    splits: Mapping[str, Split] | None = None,
    reduced_at: tuple[int, ...] = (),
) -> Experiment:
    """Check a config and everything it names, load the data, and build the parts.

    Args:
      config: plain values, from `config_file.load` and `config_file.override`.
      source: the data set; default is to open the one that the config names.
      splits: those of another experiment on the same data, so that they need not be loaded again.
      reduced_at: steps at which training diverged: each halves all learning rates.

    Raises:
      UserError: whatever is wrong, in one line, before any training step.
    """
    checked = resolve(config)
    # What costs nothing to check comes first: data may take a while.
    mesh = _mesh(checked)
    check_batch_size(checked.data.batch_size, devices=mesh.devices.size, accumulate=checked.train.accumulate)
    optimizer_node, schedule_node, groups = _check_nodes(checked)
    checked = checked.model_copy(update={"data": check_data(checked.data)})
    source = source or open_data(checked)
    splits = splits or open_splits(source, checked.data, seed=checked.seed)
    train = splits["train"]
    model_node, model = build_model(checked.model, num_classes=len(source.class_names))
    for split in splits.values():
        check_labels(split, model_node["num_classes"])
    task_node, task = _build_task(checked.task, model, num_classes=model_node["num_classes"])
    abstract = abstract_variables(model, train.image_shape, name=f"{model_node['name']} on {train.origin}")
    mean, std = normalisation(checked.data, train)
    check_augmentations(checked.data, train.image_shape, num_classes=model_node["num_classes"])
    if checked.data.resident:
        check_resident(len(train))

    to_steps = functools.partial(_to_steps, examples_per_epoch=len(train), batch_size=checked.data.batch_size)
    plan = make_plan(checked, len(train), to_steps)
    _check_early_stopping(checked, task)
    optimizer, schedule = _build_optimizer(
        checked,
        groups,
        abstract["params"],
        optimizer=optimizer_node,
        schedule=schedule_node,
        plan=plan,
        to_steps=to_steps,
        rate_scale=FACTOR ** len(reduced_at),
    )
    init_node, values = _initial_values(checked.init, abstract["params"], train, mean=mean, std=std)
    data = checked.data.model_copy(update={"mean": mean, "std": std})
    nodes = {"model": model_node, "task": task_node, "optimizer": optimizer_node, "schedule": schedule_node}
    nodes |= {"init": init_node}
    assign_groups(abstract["params"], checked.parallel.sharding, where="config.parallel.sharding")
    parallel = checked.parallel
    if parallel.mode == "pmap":  # then the number of devices is part of the experiment
        parallel = parallel.model_copy(update={"devices": mesh.devices.size})
    return Experiment(
        config=checked.model_copy(update={**nodes, "data": data, "parallel": parallel, "parameter_groups": groups}),
        splits=splits,
        model=model,
        task=task,
        optimizer=optimizer,
        schedule=schedule,
        plan=plan,
        mesh=mesh,
        mean=mean,
        std=std,
        initial_values=values,
        reduced_at=reduced_at,
    )


def _check_nodes(config: Config) -> tuple[Node, Node, tuple[ParameterGroup, ...]]:
    """Optimizer, schedule and parameter groups, defaults filled in; checks all that needs no data."""
    if config.train.steps_per_dispatch > 1 and not config.data.resident:
        raise UserError(
            f"config.train.steps_per_dispatch {config.train.steps_per_dispatch} needs the training split on the"
            " device; set data.resident=true"
        )
    if config.train.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise UserError("config.train.tensorboard needs an extra: `pip install -e '.[tensorboard]'` in the checkout")
    for path in ("model", "task"):
        look_up(f"config.{path}", getattr(config, path), {"model": MODELS, "task": TASKS}[path])
    schedule = check_node("config.schedule", config.schedule, SCHEDULES, given=("peak", "total_steps", "to_steps"))
    optimizer = check_node("config.optimizer", config.optimizer, OPTIMIZERS, common=OptimizerCommon)
    groups = _check_groups(config)
    return optimizer, schedule, groups


def check_data(data: Data) -> Data:
    """The data section of a resolved config with its wrappers, transforms and augmentations checked and completed.

    Raises:
      UserError: an unknown name or option, or a random transform where nothing random belongs.
    """
    if data.resident and data.stream is not None:
        raise UserError("config.data.resident puts the split on the device, config.data.stream reads it: drop one")
    wrappers = {
        name: tuple(
            check_node(f"config.data.wrappers.{name}.{index}", node, WRAPPERS, given=("indices", "labels"))
            for index, node in enumerate(nodes)
        )
        for name, nodes in data.wrappers
    }
    transforms: dict[str, tuple[Node, ...]] = {}
    for name, nodes in data.transforms:
        for index, node in enumerate(nodes):
            path = f"config.data.transforms.{name}.{index}"
            checked = check_node(path, node, HOST_TRANSFORMS, given=("image", "generator"))
            if checked["name"] in RANDOM and (name != "train" or data.stream is None):
                why = "evaluation is not random" if name != "train" else "images in memory are transformed once"
                raise UserError(f"{path}: {checked['name']} is random, and {why}; use it for data.stream's training")
            transforms[name] = (*transforms.get(name, ()), checked)
    augment = tuple(
        check_node(f"config.data.augment.{index}", node, AUGMENTATIONS | MIXINGS, given=GIVEN)
        for index, node in enumerate(data.augment)
    )
    return data.model_copy(
        update={
            "augment": augment,
            "wrappers": data.wrappers.model_copy(update=wrappers),
            "transforms": data.transforms.model_copy(update=transforms),
        }
    )


def _build_optimizer(
    config: Config,
    groups: Sequence[ParameterGroup],
    params: PyTree,
    *,
    optimizer: Node,
    schedule: Node,
    plan: Plan,
    to_steps: ToSteps,
    rate_scale: float,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of checked nodes, with the branches of parameter groups that have their own, and its schedule."""
    make_schedule = SCHEDULES[schedule["name"]]

    def branch(node: Node, until: Duration | None) -> Branch:
        steps = plan.total if until is None else to_steps(until)
        rate = make_schedule(rate_scale * node["learning_rate"], steps, to_steps, **options(schedule))
        rule = OPTIMIZERS[node["name"]](**options(node, without=COMMON))
        return Branch(rule, rate if until is None else zero_after(rate, steps), node["l1"], node["l2"])

    shared = branch(optimizer, None)
    chain = make_optimizer(
        shared.rule,
        shared.learning_rate,
        assign_groups(params, groups),
        l1=shared.l1,
        l2=shared.l2,
        clip_norm=config.train.clip_norm,
        own={g.pattern: branch(g.optimizer or optimizer, g.until) for g in groups if g.optimizer or g.until},
    )
    return chain, shared.learning_rate


def _check_groups(config: Config) -> tuple[ParameterGroup, ...]:
    """The parameter groups, with the defaults of their own optimizers filled in."""
    checked = []
    for index, group in enumerate(config.parameter_groups):
        node = group.optimizer
        if node is not None:
            path = f"config.parameter_groups.{index}.optimizer"
            node = check_node(path, node, OPTIMIZERS, common=OptimizerCommon)
        checked.append(group.model_copy(update={"optimizer": node}))
    return tuple(checked)


def _initial_values(
    node: Node | None, params: PyTree, train: Split, *, mean: Sequence[float], std: Sequence[float]
) -> tuple[Node | None, Mapping[str, np.ndarray]]:
    """The checked `init` node, and what it makes of the first training images."""
    if node is None:
        return None, {}
    node = check_node("config.init", node, INITIALISERS, given=("params", "images"), common=InitCommon)
    images = np.float32(train.read(np.arange(min(node["examples"], len(train))))) / 255
    images = (images - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return node, INITIALISERS[node["name"]](params, images, **options(node, without=tuple(InitCommon.model_fields)))


def _mesh(config: Config) -> Mesh:
    """The devices of a config."""
    parallel = config.parallel
    if parallel.mode == "pmap" and parallel.model > 1:
        raise UserError(f'config.parallel.model is {parallel.model}; mode "pmap" keeps parameters whole, use model 1')
    return make_mesh(devices=parallel.devices, model=parallel.model)


def open_data(config: Config) -> Source:
    """The data set of a config; its splits are loaded on demand."""
    data = config.data
    return open_source(data.source, data.name, directory=data.directory, split_seed=data.split_seed)


def build_model(node: Node, *, num_classes: int) -> tuple[Node, nn.Module]:
    """The model of a `{name, **kwargs}` node, and the node with its defaults.

    Args:
      node: from the config.
      num_classes: of the data; a config may give another.
    """
    node = check_node("config.model", node, MODELS, defaults={"num_classes": num_classes})
    try:
        return node, MODELS[node["name"]](**options(node))
    except UserError as error:
        raise UserError(f"config.model: {error}") from None


def _build_task(node: Node, model: nn.Module, *, num_classes: int) -> tuple[Node, Task]:
    """The task of a node; its `loss` is a node of its own, looked up in LOSSES."""
    loss_node = node.get("loss", {"name": "softmax_cross_entropy"})
    if not isinstance(loss_node, dict):
        raise UserError(
            f"config.task.loss: must be a node such as {{'name': 'softmax_cross_entropy'}}, got {loss_node!r}"
        )
    # A classifier's targets are of one class, also where mixing has made probabilities of them.
    fixed = {"one_of_k": True} if str(loss_node.get("name")) in ONE_OF_K_OR_SEVERAL else {}
    loss_node = check_node("config.task.loss", loss_node, LOSSES, given=("logits", "labels", "class_weights", *fixed))
    rest = {key: value for key, value in node.items() if key != "loss"}
    parts = {
        "model": model,
        "loss_function": functools.partial(LOSSES[loss_node["name"]], **options(loss_node), **fixed),
        "divide_by_weights": loss_node["name"] in DIVIDED_BY_WEIGHTS,
        "num_classes": num_classes,
    }
    checked = check_node("config.task", rest, TASKS, given=tuple(parts))
    task = TASKS[checked["name"]](**parts, **options(checked))
    return {**checked, "loss": loss_node}, task


def _to_steps(duration: Duration, *, examples_per_epoch: int, batch_size: int) -> int:
    return duration.to_steps(examples_per_epoch=examples_per_epoch, batch_size=batch_size)


def _check_early_stopping(config: Config, task: Task) -> None:
    rule = config.train.early_stopping
    if rule is None:
        return
    if config.data.splits.validation is None:
        raise UserError("config.train.early_stopping needs a validation split; set data.splits.validation")
    nothing = jax.device_get({name: metric.empty() for name, metric in task.metrics().items()})
    known = scalars(summarize(task.metrics(), [nothing]), "validation")
    if rule.metric not in known:
        raise unknown_name("config.train.early_stopping.metric", rule.metric, known)
