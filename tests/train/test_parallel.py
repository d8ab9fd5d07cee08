"""Ways to use several devices, each against one: data parallel, fully sharded, and BatchNorm per device."""

import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.train import sharding
from cnn_jax.train.checkpoint import Checkpoints, Progress
from cnn_jax.train.config import identity, sha256, to_plain
from cnn_jax.train.prediction import predict
from cnn_jax.train.run import build
from cnn_jax.train.step import merge_metrics, train_step

KERNELS = ({"pattern": ".*", "minimum": 100},)  # all three but the first layer's, which has 72 numbers
ONE = {"devices": 1}
DATA = {"devices": 8}
SHARDED = {"devices": 8, "model": 8, "sharding": KERNELS}
MIXED = {"devices": 8, "model": 2, "sharding": KERNELS}
PER_DEVICE = {"devices": 8, "mode": "pmap"}
MODES = {"data": DATA, "sharded": SHARDED, "mixed": MIXED, "per device": PER_DEVICE}
NORM_CHANNELS = (8, 16)  # of the two BatchNorms of `config`
COLLECTIVE = re.compile(r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def config(parallel, *, norm="batch", dropout_rate=0.0, clip_norm=1.0, accumulate=1, ema=True):
    model = {"name": "classic_stack", "in_channels": 1, "channels": (8, 16), "dense": (16,), "padding": "same"}
    return {
        "seed": 3,
        "task": {"name": "classification"},
        "model": {**model, "norm": norm, "dropout_rate": dropout_rate},
        "data": {
            "source": "sklearn",
            "name": "digits",
            "splits": {"train": "train[:100]", "validation": "train[100:150]", "test": "test[:45]"},
            "batch_size": 32,
            "evaluation_batch_size": 16,
            "mean": (0.3,),
            "std": (0.4,),
            "augment": ({"name": "random_crop", "padding": 1},),
        },
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "l2": 1e-4},
        "train": {
            "duration": {"steps": 8},
            "clip_norm": clip_norm,
            "accumulate": accumulate,
            "ema": {"decay": 0.9} if ema else None,
        },
        "parallel": parallel,
    }


class Trained:
    """Three steps of a config, and what was compiled for them."""

    def __init__(self, values):
        self.experiment = build(values)
        self.state, self.pending = self.experiment.initial_state(), self.experiment.empty_metrics()
        step = self.experiment.compiled_step()
        compiled = step.func.lower(*step.args, self.state, self.pending, self.experiment.batch(0)).compile()
        self.collectives = collectives(compiled.as_text())
        self.aliased = compiled.memory_analysis().alias_size_in_bytes
        self.donated = bytes_per_device(self.state), bytes_per_device((self.state, self.pending))
        for index in range(3):
            self.state, self.pending = step(self.state, self.pending, self.experiment.batch(index))

    @property
    def parameter_bytes(self):
        return sum(x.nbytes for x in jax.tree.leaves(self.state.params))

    def sizes(self, kind, of="f32"):
        """Bytes of every collective of a kind that has arrays of a type."""
        return [sizes[of] for name, sizes in self.collectives if name == kind and of in sizes]


@functools.cache
def _trained(text):
    return Trained(json.loads(text, object_hook=lambda node: {k: _tuples(v) for k, v in node.items()}))


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def trained(parallel, **options):
    return _trained(json.dumps(config(parallel, **options)))


def collectives(text):
    """(kind, {type: bytes of the results}) of every message between devices in compiled HLO."""
    found = []
    for shapes, kind in COLLECTIVE.findall(text):
        sizes = {}
        for name, width, shape in re.findall(r"([a-z]+)(\d+)\[([\d,]*)\]", shapes):
            elements = math.prod(int(n) for n in shape.split(",") if n)
            sizes[name + width] = sizes.get(name + width, 0) + elements * int(width) // 8
        found.append((kind, sizes))
    return found


def bytes_per_device(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def difference(a, b):
    """The largest absolute difference between two pytrees of numbers."""
    pairs = zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True)
    return max(float(np.abs(np.asarray(x, np.float64) - y).max()) for x, y in pairs)


@pytest.mark.parametrize(
    "mode", ["mixed", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("data", "sharded"))]
)
def test_jit_over_a_mesh_gives_the_state_and_the_metrics_of_one_device(mode):
    one, many = trained(ONE), trained(MODES[mode])
    assert difference(one.state, many.state) < 2e-6
    assert difference(one.pending, many.pending) < 1e-4  # float32 sums over 96 examples, near 220
    assert int(many.pending.states["accuracy"]["count"]) == 96


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_without_batch_norm_every_mode_and_accumulation_give_the_state_of_one_device(mode):
    one = trained(ONE, norm="none")
    for accumulate in (1, 2):
        assert difference(one.state, trained(MODES[mode], norm="none", accumulate=accumulate).state) < 2e-6


@pytest.mark.parametrize(
    "mode", ["mixed", *(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES if mode != "mixed")]
)
def test_state_and_pending_metrics_are_donated_whole(mode):
    run = trained(MODES[mode])
    state, both = run.donated
    # Two numbers of the pending metrics, norm and rate of the step before, are not read and so not passed.
    assert state < run.aliased == both - 2 * 4


def part_steps(experiment, batch, parts):
    """`train_step` on one device for every part of a batch on its own."""
    step = jax.jit(functools.partial(plain_step, experiment))
    state = jax.device_get(experiment.initial_state())
    size = len(batch["mask"]) // parts
    cut = [{k: np.asarray(v)[i * size : (i + 1) * size] for k, v in batch.items()} for i in range(parts)]
    return [step(state, one) for one in cut]


def plain_step(experiment, state, batch, *, axis_name=None):
    """The experiment's training step without augmentation, as a free function."""
    return train_step(
        state,
        batch,
        key=jax.random.key(3),
        task=experiment.task,
        optimizer=experiment.optimizer,
        learning_rate=experiment.schedule,
        batch_transform=lambda _, batch: {**batch, "image": batch["image"].astype(jnp.float32) / 255.0},
        axis_name=axis_name,
    )


@pytest.fixture(scope="module")
def per_device():
    """An experiment without what is not linear in the gradient, and one batch with a ragged mask, on the host."""
    experiment = build(config(PER_DEVICE, clip_norm=None, ema=False))
    mask = np.ones(32, np.float32)
    mask[[1, 2, 3, 9]] = 0.0
    return experiment, {**jax.device_get(experiment.batch(0)), "mask": mask}


@pytest.mark.slow
def test_per_device_is_the_weighted_mean_of_steps_that_see_one_part_each(per_device):
    experiment, batch = per_device
    parts = part_steps(experiment, batch, 8)
    weights = batch["mask"].reshape(8, 4).sum(axis=1)  # [B] -> [devices, B / devices]
    pmapped = jax.pmap(
        functools.partial(plain_step, experiment, axis_name="data"),
        axis_name="data",
        in_axes=(None, 0),
        out_axes=None,
    )
    shaped = {name: x.reshape(8, 4, *x.shape[1:]) for name, x in batch.items()}
    state, metrics = pmapped(jax.device_get(experiment.initial_state()), shaped)
    # SGD's first step is linear in the gradient, so the parameters are those of the mean gradient.
    mean = jax.tree.map(lambda *x: np.average(np.stack(x), axis=0, weights=weights), *[s.params for s, _ in parts])
    assert difference(state.params, mean) < 1e-6
    # Running statistics: each part's own, averaged.
    mean = jax.tree.map(lambda *x: np.mean(np.stack(x), axis=0), *[s.model_state for s, _ in parts])
    assert difference(state.model_state, mean) < 1e-6
    merge = functools.partial(merge_metrics, experiment.task.training_metrics())
    assert difference(metrics.states, functools.reduce(merge, [m for _, m in parts]).states) < 1e-5
    assert int(metrics.states["accuracy"]["count"]) == 28


@pytest.mark.slow
def test_our_mode_pmap_is_jax_pmap_bit_for_bit():
    experiment = trained(PER_DEVICE, dropout_rate=0.3).experiment
    state, batch = jax.device_get((experiment.initial_state(), experiment.batch(0)))
    step = functools.partial(experiment.bare_step(), key=experiment.key)
    pmapped = jax.pmap(step, axis_name="data", in_axes=(None, 0), out_axes=None)
    expected = pmapped(state, {name: x.reshape(8, 4, *x.shape[1:]) for name, x in batch.items()})[0]
    ours = jax.jit(sharding.per_device(experiment.bare_step(), experiment.mesh))
    found = ours(state, batch, key=experiment.key)[0]
    assert difference(found, expected) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("dropout_rate", "low", "high"), [(0.0, 0.0, 1e-6), (0.5, 1e-4, 10.0)])
def test_dropout_differs_between_devices(dropout_rate, low, high):
    # Eight devices with the same four examples: only what is random on each can tell them from one.
    experiment = build(config(PER_DEVICE, clip_norm=None, ema=False, dropout_rate=dropout_rate))
    part = {name: x[:4] for name, x in jax.device_get(experiment.batch(0)).items()}
    own = functools.partial(plain_step, experiment, axis_name="data")
    step = jax.jit(jax.vmap(own, in_axes=(None, 0), axis_name="data"))
    state = jax.device_get(experiment.initial_state())
    one, eight = (
        jax.tree.map(lambda x: x[0], step(state, {k: np.stack([v] * n) for k, v in part.items()})[0].params)
        for n in (1, 8)
    )
    assert low <= difference(one, eight) < high


# The counts of examples, two int32, cannot travel with floats; the sums of three losses can.
def test_data_parallel_sends_gradients_once_and_the_sums_of_batch_norm():
    run = trained(DATA)
    assert {kind for kind, _ in run.collectives} == {"all-reduce"}
    floats = run.sizes("all-reduce")
    # Each BatchNorm sends its mean and, because the variance is taken in a second pass, the distance from it. Backward
    # it waits for the gradients of its scale and bias, which are the sums that it needs; the last message has the rest.
    assert len(floats) == 1 + 3 * len(NORM_CHANNELS)
    scalars = sum(floats) - run.parameter_bytes - 2 * 4 * sum(NORM_CHANNELS)
    assert 0 < scalars <= 8 * 4
    assert run.sizes("all-reduce", "s32") == [8]


def test_data_parallel_without_batch_norm_sends_one_message_of_the_size_of_the_gradients():
    run = trained(DATA, norm="none")
    # The number of examples that count comes first: the loss, and so every gradient, is divided by it.
    count, gradients = sorted(run.sizes("all-reduce"))
    assert count == 4
    assert 0 < gradients - run.parameter_bytes <= 8 * 4
    assert run.sizes("all-reduce", "s32") == [8]
    assert {kind for kind, _ in run.collectives} == {"all-reduce"}


def test_fully_sharded_gathers_each_divided_parameter_once():
    run = trained(SHARDED)
    divided = [x.nbytes for x in jax.tree.leaves(run.state.params) if not x.is_fully_replicated]
    assert sum(divided) > 0.9 * run.parameter_bytes
    assert sorted(run.sizes("all-gather")) == sorted(divided)
    # Gradients are reduced as in data parallel, if not in one message; norms of what is divided take scalars more.
    reduced, data = run.sizes("all-reduce"), trained(DATA).sizes("all-reduce")
    assert len(data) <= len(reduced) <= len(data) + len(divided) + 1
    assert 0 <= sum(reduced) - sum(data) <= 16 * 4
    assert {kind for kind, _ in run.collectives} == {"all-reduce", "all-gather"}


def test_per_device_sends_one_message_of_gradients_statistics_and_sums():
    run = trained(PER_DEVICE)
    (floats,) = run.sizes("all-reduce")
    statistics = 2 * 4 * sum(NORM_CHANNELS)
    assert 0 < floats - run.parameter_bytes - statistics <= 8 * 4
    assert run.sizes("all-reduce", "s32") == [8]
    assert {kind for kind, _ in run.collectives} == {"all-reduce"}


def test_fully_sharded_divides_parameters_momentum_and_averages_alike_and_keeps_statistics_whole():
    state = trained(SHARDED).state
    params = jax.tree.map(lambda x: x.sharding.spec, state.params)
    for tree in (state.opt_state, state.ema["params"]):
        found = {
            jax.tree_util.keystr(path[-3:]): x.sharding.spec
            for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]
        }
        for path, spec in jax.tree_util.tree_flatten_with_path(params)[0]:
            assert found[jax.tree_util.keystr(path[-3:])] == spec, path
    kernel = state.params["backbone"]["stage2"]["conv"]["kernel"]
    assert kernel.shape == (3, 3, 8, 16)
    assert kernel.addressable_shards[0].data.shape == (3, 3, 8, 2)  # the largest axis
    assert all(x.is_fully_replicated for x in jax.tree.leaves((state.model_state, state.ema["model_state"])))


def test_rules_keep_whole_what_they_name_and_what_is_small():
    rules = ({"pattern": "head/.*", "divided": False}, {"pattern": ".*", "minimum": 100})
    state = build(config({"devices": 8, "model": 8, "sharding": rules})).abstract_state()
    backbone, head = state.params["backbone"], state.params["head"]
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(head))  # named
    assert backbone["stage2"]["norm"]["scale"].sharding.is_fully_replicated  # 16 elements
    assert backbone["stage1"]["conv"]["kernel"].sharding.is_fully_replicated  # 72 elements
    assert not backbone["stage2"]["conv"]["kernel"].sharding.is_fully_replicated  # 1,152 elements


@pytest.mark.parametrize(
    "saved", ["sharded", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("data", "per device"))]
)
def test_a_checkpoint_of_any_mode_is_restored_by_every_other(saved, tmp_path):
    run = trained(MODES[saved])
    writer = Checkpoints(tmp_path, keep=1)
    writer.save(3, run.state, run.pending, Progress())
    writer.close()
    for parallel in (ONE, *MODES.values()):
        experiment = build(config(parallel))
        reader = Checkpoints(tmp_path, keep=None)
        state, pending, _ = reader.restore(3, experiment.abstract_state(), experiment.empty_metrics())
        reader.close()
        assert difference((state, pending), (run.state, run.pending)) == 0
        for x, where in zip(jax.tree.leaves(state), jax.tree.leaves(experiment.state_sharding), strict=True):
            assert x.sharding.is_equivalent_to(where, x.ndim)
    step = experiment.compiled_step()
    assert int(step(state, pending, experiment.batch(3))[0].step) == 4


@pytest.mark.parametrize("mode", MODES)
def test_evaluation_and_prediction_are_those_of_one_device(mode):
    one, many = trained(ONE), trained(MODES[mode])
    state = jax.tree.map(jax.device_put, jax.device_get(one.state), many.experiment.state_sharding)
    values = [
        experiment.evaluate(experiment.compiled_evaluation(), state, "test")
        for experiment, state in ((one.experiment, one.state), (many.experiment, state))
    ]
    assert np.array_equal(values[0]["confusion_matrix"], values[1]["confusion_matrix"])
    assert values[0]["loss"] == pytest.approx(values[1]["loss"], rel=1e-6)
    logits = [predict(one.experiment, one.state, "test"), predict(many.experiment, state, "test")]
    assert difference(*logits) < 1e-5
    assert logits[1]["logits"].shape == (45, 10)


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"devices": 8, "model": 3}, "parallel.model is 3, which does not divide 8 .* use 1, 2, 4, 8"),
        ({"model": 0}, "greater than or equal to 1, got 0"),
        ({"devices": 8, "model": 2, "mode": "pmap"}, 'parallel.model is 2; mode "pmap" keeps parameters whole'),
        ({"mode": "pmaps"}, "config.parallel.mode: .*'pmaps'"),
        ({"sharding": ({"pattern": "bias"}, {"pattern": ".*"})}, "parallel.sharding: pattern 'bias' matches no param"),
        ({"sharding": ({"pattern": ".*kernel"},)}, "config.parallel.sharding: no pattern matches 'backbone/.*'"),
        ({"sharding": ({"pattern": "(", "divided": True},)}, r"parallel.sharding: '\(' is no regular expression"),
        ({"sharding": ({"pattern": ".*", "divide": True},)}, "did you mean 'divided'"),
    ],
)
def test_a_bad_parallel_section_is_one_line(parallel, message):
    with pytest.raises(UserError, match=message) as caught:
        build(config(parallel))
    assert "\n" not in str(caught.value)


def test_devices_are_part_of_the_experiment_only_where_batch_norm_sees_them():
    digests = {name: sha256(build(config(parallel)).config) for name, parallel in {"one": ONE, **MODES}.items()}
    assert digests["one"] == digests["data"] == digests["sharded"] == digests["mixed"]
    assert digests["per device"] != digests["one"]
    all_devices = build(config({"mode": "pmap"})).config
    assert all_devices.parallel.devices == 8  # stated, so that another machine is another experiment
    assert sha256(all_devices) == digests["per device"]
    assert sha256(build(config({"mode": "pmap", "devices": 4})).config) != digests["per device"]
    # A config.json of before there were modes is the same experiment.
    old = to_plain(build(config(ONE)).config)
    assert identity({**old, "parallel": {"devices": 2}}) == identity(old)
