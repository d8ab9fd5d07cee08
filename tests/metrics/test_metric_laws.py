"""What every metric promises: any split, padding and merge order gives the same, under every transformation of JAX."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from metric_cases import make_values, on_host, pad_values

from cnn_jax.metrics import ConfusionMatrix, ExpectedCalibrationError, TopKAccuracy, WeightedMean

NUM_CLASSES, BATCH, MOST = 4, 8, 40
METRICS = [WeightedMean(), TopKAccuracy(1), TopKAccuracy(2), ConfusionMatrix(NUM_CLASSES), ExpectedCalibrationError(5)]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=repr)


@functools.cache
def jitted(metric):
    """The update, compiled once for all examples of a property."""
    return jax.jit(metric.update)


def random_values(seed, size, dyadic):
    """Examples with small integer logits, so that ties occur; dyadic losses have sums that are exact in float32."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, NUM_CLASSES, size)
    weight = generator.integers(1, 9, NUM_CLASSES)[label] / 4
    loss = generator.integers(0, 1024, size) / 64 if dyadic else generator.exponential(size=size)
    return make_values(generator.integers(-2, 3, (size, NUM_CLASSES)), label, loss=loss, weight=weight)


def host_state(metric, values, size=BATCH):
    return on_host(jitted(metric)(metric.empty(), pad_values(values, size)))


def merge_in_random_order(metric, states, generator):
    """Merges two random states until one is left: every order and every grouping can come up."""
    states = list(states)
    while len(states) > 1:
        a, b = (states.pop(generator.integers(len(states))) for _ in range(2))
        states.append(metric.merge(a, b))
    return states[0]


def random_split(values, generator):
    """The examples shuffled and cut into batches of 0 to BATCH examples."""
    order = generator.permutation(len(values["label"]))
    while len(order):
        size = generator.integers(0, BATCH + 1)
        yield {name: value[order[:size]] for name, value in values.items()}
        order = order[size:]


@every_metric
@hypothesis.given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, MOST), dyadic=st.booleans())
@hypothesis.settings(deadline=None, max_examples=25)
def test_any_split_padding_and_merge_order_gives_the_same(metric, seed, size, dyadic):
    values, generator = random_values(seed, size, dyadic), np.random.default_rng(seed)
    whole = host_state(metric, values, MOST)
    states = [host_state(metric, batch) for batch in random_split(values, generator)]
    merged, again = (merge_in_random_order(metric, states, generator) for _ in range(2))
    for name in whole:
        if whole[name].dtype == np.int64 or (dyadic and isinstance(metric, WeightedMean)):
            # Counts, and sums without rounding: to the bit.
            np.testing.assert_array_equal(merged[name], whole[name], err_msg=name)
        # Each batch is summed in float32.
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-6, err_msg=name)
        # The same batches, merged in float64 in another order.
        np.testing.assert_allclose(again[name], merged[name], rtol=1e-12, err_msg=name)
    results, expected = metric.compute(merged), metric.compute(whole)
    for name in expected:
        assert np.isfinite(expected[name]).all()
        np.testing.assert_allclose(results[name], expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


@every_metric
def test_empty_is_neutral_and_merge_commutes(metric):
    a, b = (host_state(metric, random_values(seed, 5, dyadic=False)) for seed in (0, 1))
    empty = on_host(metric.empty())
    for left, right in ((metric.merge(a, b), metric.merge(b, a)), (metric.merge(a, empty), a)):
        jax.tree.map(np.testing.assert_array_equal, left, right)


@every_metric
@pytest.mark.parametrize("wide", [True, False], ids=["host", "device"])
def test_no_examples_compute_to_nan_without_a_warning(metric, wide):
    nothing = jitted(metric)(metric.empty(), pad_values(random_values(0, 0, dyadic=False), BATCH))
    for state in (metric.empty(), nothing):
        results = metric.compute(on_host(state) if wide else state)
        matrix = results.pop("confusion_matrix", np.zeros(()))
        assert not matrix.any()
        assert results
        assert all(np.isnan(value).all() for value in results.values()), results


@every_metric
def test_results_are_python_floats_or_float64_and_int64_arrays(metric):
    for value in metric.compute(host_state(metric, random_values(0, 5, dyadic=False))).values():
        assert type(value) is float or value.dtype in (np.float64, np.int64)


@every_metric
def test_update_keeps_the_types_of_the_state_so_a_second_step_does_not_compile(metric):
    after = jax.eval_shape(metric.update, metric.empty(), random_values(0, BATCH, dyadic=False))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), metric.empty()
    )


@every_metric
def test_update_and_merge_under_scan_strict_promotion_and_jit(metric):
    batches = [pad_values(random_values(seed, 5, dyadic=True), BATCH) for seed in range(3)]
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

    @jax.jit
    def run(stacked):
        state, _ = jax.lax.scan(lambda s, v: (metric.update(s, v), None), metric.empty(), stacked)
        return metric.merge(state, metric.empty())

    with jax.numpy_dtype_promotion("strict"):
        got = run(stacked)
    expected = functools.reduce(metric.update, batches, metric.empty())
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, expected)


@every_metric
def test_vmapped_over_models_equals_each_alone(metric):
    batches = [random_values(seed, BATCH, dyadic=True) for seed in range(3)]
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    together = jax.vmap(lambda values: metric.update(metric.empty(), values))(stacked)
    for i, batch in enumerate(batches):
        alone = metric.update(metric.empty(), batch)
        one = jax.tree.map(lambda x, i=i: x[i], together)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), one, alone)


@every_metric
def test_sharded_over_eight_devices_equals_one(metric):
    values = pad_values(random_values(0, 13, dyadic=True), 16)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(values, jax.NamedSharding(mesh, jax.P("data")))
    got, expected = (jitted(metric)(metric.empty(), v) for v in (sharded, values))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, expected)


@every_metric
def test_metrics_are_values(metric):
    assert hash(metric) == hash(type(metric)(**vars(metric)))
    assert metric == type(metric)(**vars(metric))


def test_half_precision_logits_are_accepted():
    values = random_values(0, BATCH, dyadic=True)
    half = {**values, "logits": jnp.asarray(values["logits"], jnp.bfloat16)}
    for metric in METRICS:
        got, expected = (metric.update(metric.empty(), v) for v in (half, values))
        jax.tree.map(np.testing.assert_array_equal, got, expected)
