"""Probes against slow NumPy computations of the same number, and against truths that need none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data.labelled import LabelledImages
from cnn_jax.errors import UserError
from cnn_jax.study.probes import PROBES, check_probes, run_probes
from cnn_jax.study.probes.answers import NO_CLASS, agreement, predicted_classes
from cnn_jax.study.probes.equivariance import equivariance_error
from cnn_jax.study.probes.kernels import gradient_norms, kernel_paths, sparsity
from cnn_jax.study.probes.robustness import (
    accuracy_by_position,
    corruption_accuracy,
    occlusion_accuracy,
    shift_consistency,
)
from cnn_jax.study.probes.units import dead_units, spread_over_examples
from cnn_jax.train.run import build
from cnn_jax.train.state import evaluation_variables

STACK = {"name": "classic_stack", "in_channels": 1, "channels": (4, 6), "dense": (8,), "padding": "same"}
STEPS = 150
ALL = check_probes(
    [
        {"name": "shift_consistency", "shifts": (1, 3)},
        {"name": "accuracy_by_position", "offsets": (0, 2)},
        {"name": "corruption_accuracy", "severities": (1, 5)},
        {"name": "occlusion_accuracy", "sizes": (2, 4)},
        {"name": "equivariance_error"},
        {"name": "dead_units"},
        {"name": "gradient_norms", "examples": 50},
        {"name": "sparsity"},
    ]
)


def plain(config, *, model=None, **data):
    """The tiny config with plain training of another model."""
    return {
        **config,
        "model": {**STACK, **(model or {})},
        "data": {**config["data"], "augment": (), "batch_size": 32, **data},
        "optimizer": {"name": "adam", "learning_rate": 0.02},
        "schedule": {"name": "constant"},
        "train": {"duration": {"steps": STEPS}},
    }


@pytest.fixture
def started(tiny_config):
    """Builds a small network on digits, as it starts."""

    def start(*, model=None, **data):
        if model and "name" in model:
            experiment = build({**plain(tiny_config, **data), "model": {"in_channels": 1, **model}})
        else:
            experiment = build(plain(tiny_config, model=model, **data))
        return experiment, experiment.initial_state()

    return start


@pytest.fixture(scope="module")
def trained(session_tiny_config):
    """A network that knows digits well enough to be confused by what is done to them."""
    config = plain(session_tiny_config)
    config["data"]["splits"] = {"train": "train[:400]", "validation": "train[400:420]", "test": "test[:75]"}
    experiment = build(config)
    state, pending, step = experiment.initial_state(), experiment.empty_metrics(), experiment.compiled_step()
    for index in range(STEPS):
        state, pending = step(state, pending, experiment.batch(index))
    assert accuracy(experiment, state) > 0.6
    return experiment, state


def accuracy(experiment, state):
    """What an ordinary evaluation on the test split gives."""
    return experiment.evaluate(experiment.compiled_evaluation(), state, "test")["accuracy"]


def pixels(experiment):
    """The test images in [0, 1], and their labels."""
    data = experiment.splits["test"]
    return np.float32(data.images) / np.float32(255), data.labels


def classes(experiment, state, images):
    """The network's answers, without the probes' own code."""
    params, model_state = evaluation_variables(state)
    normalised = (images - np.float32(experiment.mean)) / np.float32(experiment.std)
    logits = experiment.model.apply({"params": params, **model_state}, jnp.asarray(normalised), train=False)
    return np.argmax(np.asarray(logits), axis=1)


def cut(images, axis, sign, amount):
    """(what stays in the window when images move, where it was before), the rest black."""
    n = images.shape[axis]
    rest = [slice(None)] * images.ndim
    near, far = list(rest), list(rest)
    near[axis], far[axis] = slice(0, n - amount), slice(amount, n)
    source, target = (near, far) if sign > 0 else (far, near)
    after, before = np.zeros_like(images), np.zeros_like(images)
    after[tuple(target)] = images[tuple(source)]
    before[tuple(source)] = images[tuple(source)]
    return after, before


SIDES = [(axis, sign) for axis in (1, 2) for sign in (1, -1)]


def changed_biases(state, layer, change):
    """The state with `change(biases)` as the biases of a layer."""
    params = jax.tree.map(np.array, jax.device_get(state.params))
    node = params
    for name in layer.split("/"):
        node = node[name]
    node["bias"] = np.asarray(change(node["bias"]), np.float32)
    return state.replace(params=params)


# Answers to changed images.


def test_shift_consistency_is_the_share_of_equal_answers_to_both_views(trained):
    images, _ = pixels(trained[0])
    found = shift_consistency(*trained, shifts=(1, 2))
    for shift in (1, 2):
        views = [cut(images, axis, sign, shift) for axis, sign in SIDES]
        expected = np.mean([classes(*trained, after) == classes(*trained, before) for after, before in views])
        assert found[str(shift)] == pytest.approx(expected, abs=1e-9)
        assert 0.1 < expected < 1
    assert found[""] == pytest.approx((found["1"] + found["2"]) / 2)


def test_accuracy_by_position_moves_images_over_black(trained):
    images, labels = pixels(trained[0])
    found = accuracy_by_position(*trained, offsets=(0, 2, 5))
    assert found["0"] == pytest.approx(accuracy(*trained), abs=1e-9)
    for offset in (2, 5):
        expected = np.mean([classes(*trained, cut(images, *side, offset)[0]) == labels for side in SIDES])
        assert found[str(offset)] == pytest.approx(expected, abs=1e-9)
    assert found["5"] < found["0"]


def test_a_constant_network_is_consistent_and_right_as_often_as_its_class_occurs(trained):
    experiment, state = trained
    state = changed_biases(state, "head/output", lambda bias: 1000 * (np.arange(len(bias)) == 7))
    share = np.mean(experiment.splits["test"].labels == 7)
    assert 0 < share < 0.5
    assert set(shift_consistency(experiment, state, shifts=(1, 2)).values()) == {1.0}
    for probe in (accuracy_by_position, corruption_accuracy):
        assert probe(experiment, state) == pytest.approx(dict.fromkeys(probe(experiment, state), share))


def test_severity_0_is_the_clean_accuracy_and_means_are_means(trained):
    found = corruption_accuracy(*trained, severities=(0, 5))
    clean, kinds = accuracy(*trained), ("gaussian_noise", "salt_and_pepper", "blur", "contrast")
    assert [found[f"{kind}/0"] for kind in kinds] == pytest.approx([clean] * 4, abs=1e-9)
    for kind in kinds:
        assert found[kind] == pytest.approx((found[f"{kind}/0"] + found[f"{kind}/5"]) / 2)
    assert found[""] == pytest.approx(np.mean([found[kind] for kind in kinds]))
    assert len(found) == 13


def test_contrast_and_blur_are_hendrycks_and_dietterichs(trained):
    ndimage = pytest.importorskip("scipy.ndimage")
    images, labels = pixels(trained[0])
    found = corruption_accuracy(*trained, kinds=("contrast", "blur"), severities=(4, 5))
    for severity, factor, deviation in ((4, 0.3, 0.8), (5, 0.15, 1.0)):
        mean = images.mean(axis=(1, 2), keepdims=True)
        flat = np.clip((images - mean) * factor + mean, 0, 1)
        blurred = ndimage.gaussian_filter(images, (0, deviation, deviation, 0), mode="mirror", truncate=4.0)
        for kind, changed in (("contrast", flat), ("blur", blurred)):
            assert found[f"{kind}/{severity}"] == pytest.approx(np.mean(classes(*trained, changed) == labels), abs=1e-9)


def test_a_square_as_large_as_the_image_leaves_its_mean_colour(trained):
    experiment, state = trained
    blank = np.broadcast_to(np.float32(experiment.mean), (1, 8, 8, 1))
    found = occlusion_accuracy(experiment, state, sizes=(1, 8))
    assert found["8"] == pytest.approx(np.mean(experiment.splits["test"].labels == classes(experiment, state, blank)))
    assert found["8"] < found["1"] <= 1


def test_an_answer_that_is_no_number_is_no_class_and_agrees_with_nothing():
    found = np.asarray(predicted_classes(jnp.array([[0.0, 2.0, 2.0], [jnp.nan, 1.0, 0.0], [3.0, 1.0, 0.0]])))
    np.testing.assert_array_equal(found, [1, NO_CLASS, 0])
    np.testing.assert_array_equal(agreement(found, found), [True, False, True])


# Equivariance.


def test_convolution_without_padding_is_equivariant(started):
    found = equivariance_error(*started(model={"padding": "valid", "pool": "none"}), shift=2)
    assert set(found) == {
        f"stage{i}/{region}{suffix}"
        for i in (1, 2)
        for region in ("interior", "whole")
        for suffix in ("", "_by_stride")
    }
    assert max(found.values()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["same", "full", "reflect"])
def test_padding_breaks_equivariance_at_the_border_alone(started, padding):
    experiment, state = started(model={"padding": padding, "pool": "none"})
    # Without biases, black that is 0 after normalisation would be no border at all.
    state = changed_biases(state, "backbone/stage1/conv", lambda bias: bias + 0.5)
    found = equivariance_error(experiment, state)
    for stage in ("stage1", "stage2"):
        assert found[f"{stage}/interior"] < 1e-5
        assert found[f"{stage}/whole"] > 0.01


def test_a_strided_network_is_equivariant_to_multiples_of_its_stride_alone(started):
    found = equivariance_error(*started(model={"padding": "valid", "pool": "none", "stride": 2, "channels": (4,)}))
    assert found["stage1/whole_by_stride"] < 1e-5
    assert found["stage1/interior_by_stride"] < 1e-5
    assert found["stage1/interior"] > 0.05


@pytest.mark.slow
def test_the_errors_of_a_strided_map_are_those_of_interpolated_maps(trained):
    experiment, state = trained
    images, _ = pixels(experiment)
    variables = {"params": state.params, **state.model_state}

    def stage1(images):
        normalised = (images - np.float32(experiment.mean)) / np.float32(experiment.std)
        return np.asarray(
            experiment.model.apply(variables, jnp.asarray(normalised), train=False, method="features")["stage1"],
            np.float64,
        )

    # A 3×3 convolution with one pixel of padding, and a pool of 2: element i sees the pixels 2i - 1 to 2i + 2.
    still, sums = stage1(images), {"whole": np.zeros(2), "interior": np.zeros(2)}
    for axis in (1, 2):
        shifted = stage1(cut(images, axis, 1, 1)[0])
        for i in range(1, 4):  # element 0 has no counterpart
            middle = (still.take(i - 1, axis) + still.take(i, axis)) / 2
            target = shifted.take(i, axis)
            both = np.array([np.square(target - middle), np.square(target)])
            sums["whole"] += both.sum(axis=(1, 2, 3, 4) if both.ndim == 5 else (1, 2, 3))
            # Along this axis 2i - 1 >= 1, 2(i - 1) - 1 >= 0 and 2i + 2 <= 7; along the other one 2j - 1 >= 0 too.
            if i == 2:
                sums["interior"] += both[:, :, 1:3].sum(axis=(1, 2, 3))
    found = equivariance_error(experiment, state, maps=("stage1",))
    for region, (difference, size) in sums.items():
        assert found[f"stage1/{region}"] == pytest.approx(np.sqrt(difference / size), rel=1e-4)


@pytest.mark.slow
def test_what_cannot_be_compared_is_left_out(started):
    found = equivariance_error(*started(model={"name": "resnet_cifar", "depth": 8, "width": 4}), shift=3)
    assert "stage1/whole" in found
    assert "stage3/interior" not in found  # sees more than 8 pixels
    assert "stage3/whole_by_stride" not in found  # 3 strides of 4 pixels
    assert equivariance_error(*started(model={"name": "mlp", "hidden": (4,)}))["input/whole"] < 1e-6


# Units.


def test_units_are_what_layers_read_and_the_last_map(started):
    assert set(dead_units(*started())) == {"", "backbone/stage2/conv", "head", "head/output"}
    assert set(dead_units(*started(model={"name": "mlp", "hidden": (8, 4)}))) == {"", "head/dense2", "head/output"}
    found = dead_units(*started(model={"name": "resnet_cifar", "depth": 8, "width": 4}))
    blocks = [f"backbone/stage{i}/block1/conv{j}" for i in (1, 2, 3) for j in (1, 2)]
    assert set(found) == {"", *blocks, "head"}


def test_channels_without_activity_are_counted(started):
    experiment, state = started(model={"remat": ("stage1",)})
    before = dead_units(experiment, state)
    assert before["backbone/stage2/conv"] == 0
    state = changed_biases(state, "backbone/stage2/conv", lambda bias: np.where(np.arange(6) < 2, -1e3, bias + 10))
    state = changed_biases(state, "head/dense1", lambda bias: np.where(np.arange(8) < 3, -1e4, bias + 100))
    found = dead_units(experiment, state)
    assert found["backbone/stage2/conv"] == 0
    assert found["head"] == pytest.approx(2 / 6)
    assert found["head/output"] == pytest.approx(3 / 8)
    assert found[""] == pytest.approx((0 + 2 + 3) / (4 + 6 + 8))


def test_a_network_whose_first_layer_is_off_is_dead_throughout(started):
    experiment, state = started()
    state = changed_biases(state, "backbone/stage1/conv", lambda bias: bias - 1e3)
    assert set(dead_units(experiment, state).values()) == {1.0}


@pytest.mark.parametrize(
    ("activation", "dead"),
    [("relu", True), ("elu", True), ("gelu", True), ("sigmoid", True), ("tanh", True), ("leaky_relu", False)],
)
def test_saturated_units_are_dead_and_leaky_ones_are_not(started, activation, dead):
    experiment, state = started(model={"name": "mlp", "hidden": (8,), "activation": activation})
    assert dead_units(experiment, state)[""] == 0
    state = changed_biases(state, "head/dense1", lambda bias: np.where(np.arange(8) < 6, -60, bias))
    assert dead_units(experiment, state)[""] == (0.75 if dead else 0)


@pytest.mark.slow
def test_a_unit_that_is_active_for_one_image_lives(started):
    experiment, state = started(model={"name": "mlp", "hidden": (2,)}, evaluation_batch_size=7)
    images, _ = pixels(experiment)
    normalised = ((images - np.float32(experiment.mean)) / np.float32(experiment.std)).reshape(len(images), -1)
    before = normalised @ np.asarray(state.params["head"]["dense1"]["kernel"])
    best = np.sort(before, axis=0)
    # One unit is on for the image that it likes most, the other one is off for that one too.
    bias = np.array([-(best[-1, 0] + best[-2, 0]) / 2, -(best[-1, 1] + 0.01)], np.float32)
    found = dead_units(experiment, changed_biases(state, "head/dense1", lambda _: bias))
    assert found == {"": 0.5, "head/output": 0.5}


def test_examples_that_fill_up_a_batch_have_no_part_in_the_spread():
    values = jnp.array([[1.0, -2.0], [3.0, -5.0], [9.0, -9.0], [jnp.nan, 0.0]])
    low, high = spread_over_examples(values, jnp.array([1.0, 1.0, 0.0, 0.0]))
    assert (low.tolist(), high.tolist()) == ([1, -5], [3, -2])


# Kernels.


def test_gradients_of_a_perceptron_are_those_of_the_chain_rule(started):
    model = {"name": "mlp", "hidden": (5,), "activation": "tanh", "dropout_rate": 0.5}
    experiment, state = started(model=model)
    train = experiment.splits["train"]
    count, smoothing = 40, 0.1
    x = ((np.float64(train.images[:count]) / 255 - experiment.mean) / experiment.std).reshape(count, -1)
    head = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(state.params)["head"])
    hidden = np.tanh(x @ head["dense1"]["kernel"] + head["dense1"]["bias"])
    logits = hidden @ head["output"]["kernel"] + head["output"]["bias"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = (1 - smoothing) * np.eye(10)[train.labels[:count]] + smoothing / 10
    slope = (shares - target) / count
    last = hidden.T @ slope
    first = x.T @ (slope @ head["output"]["kernel"].T * (1 - hidden**2))
    expected = [
        np.linalg.norm(gradient) / np.linalg.norm(head[layer]["kernel"])
        for gradient, layer in ((first, "dense1"), (last, "output"))
    ]
    found = gradient_norms(experiment, state, examples=count)
    assert [found["layer/1"], found["layer/2"]] == pytest.approx(expected, rel=1e-4)
    assert found["ratio"] == pytest.approx(expected[0] / expected[1], rel=1e-4)
    assert found["ratio_at_start"] == pytest.approx(found["ratio"], rel=1e-6)


def test_gradients_are_those_of_the_state_and_of_the_start(trained):
    found = gradient_norms(*trained, examples=100_000)
    assert found["ratio"] == pytest.approx(found["layer/1"] / found[f"layer/{len(kernel_paths(trained[0]))}"])
    assert abs(found["ratio"] - found["ratio_at_start"]) > 1e-3
    start = gradient_norms(trained[0], trained[0].initial_state(), examples=100_000)
    assert start["ratio"] == pytest.approx(found["ratio_at_start"], rel=1e-6)


def test_a_quotient_by_0_is_left_out(started):
    experiment, state = started(model={"name": "mlp", "hidden": (5,)})
    params = jax.tree.map(np.zeros_like, jax.device_get(state.params))
    assert set(gradient_norms(experiment, state.replace(params=params))) == {
        "ratio_at_start",
        "layer_at_start/1",
        "layer_at_start/2",
    }


def test_kernels_come_in_the_order_of_computation(started):
    experiment, _ = started(model={"name": "resnet_cifar", "depth": 8, "width": 4})
    paths = kernel_paths(experiment)
    assert (paths[0], paths[1]) == ("backbone/stem/conv/kernel", "backbone/stage1/block1/conv1/kernel")
    assert paths[-1] == "head/output/kernel"
    assert len(paths) == 8


def test_sparsity_counts_the_small_weights_of_kernels(started):
    experiment, state = started(model={"name": "mlp", "hidden": (5,)})
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), jax.device_get(state.params))
    params["head"]["dense1"]["kernel"].flat[:100] = [0.5, -0.5] * 50
    params["head"]["output"]["kernel"].flat[:10] = 2e-3
    state = state.replace(params=params)
    weights = 64 * 5 + 5 * 10
    assert sparsity(experiment, state) == {"": pytest.approx(1 - 110 / weights)}
    assert sparsity(experiment, state, threshold=0.01) == {"": pytest.approx(1 - 100 / weights)}
    assert sparsity(experiment, state, threshold=0.0) == {"": 0.0}


# All of them.


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_batch_size_or_the_devices(trained):
    experiment, state = trained
    config = experiment.config.model_dump()
    small, large = (
        build({**config, "data": {**config["data"], "evaluation_batch_size": size}, "parallel": {"devices": devices}})
        for size, devices in ((7, 1), (64, 2))
    )
    one = run_probes(ALL, small, state)
    other = run_probes(ALL, large, jax.device_put(jax.device_get(state), large.state_sharding))
    assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert {name.split("/")[0] for name in one} == set(PROBES)
    assert all(isinstance(value, float) for value in one.values())


@pytest.mark.slow
def test_the_same_questions_whatever_the_seed_of_the_run(trained):
    experiment, state = trained
    other = dataclasses.replace(experiment, config=experiment.config.model_copy(update={"seed": 99}))
    nodes = check_probes(
        [{"name": "corruption_accuracy", "severities": (5,)}, {"name": "occlusion_accuracy", "sizes": (4,)}]
    )
    assert run_probes(nodes, experiment, state) == run_probes(nodes, other, state)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "channels"), [(8, 3), (20, 1), (32, 3)])
def test_images_of_other_sizes_and_channels(tiny_config, side, channels):
    config = plain(tiny_config, model={"in_channels": channels})
    config["data"]["splits"] = {"train": "train[:60]", "test": "test[:20]"}
    tint = np.linspace(1, 0.5, channels)
    splits = {}
    for name, split in build(plain(tiny_config)).splits.items():
        if name != "validation":
            rows = np.arange(side) * 8 // side
            images = split.images[:20][:, rows][:, :, rows] * tint
            splits[name] = LabelledImages(
                images.astype(np.uint8), split.labels[:20], split.class_names, split.origin, (name, np.arange(20))
            )
    experiment = build(config, splits=splits)
    found = run_probes(ALL, experiment, experiment.initial_state())
    assert {name.split("/")[0] for name in found} == set(PROBES)
    assert all(np.isfinite(value) for value in found.values())
    assert found["equivariance_error/stage1/interior_by_stride"] < 1e-5


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([{"name": "shift_consistancy"}], "did you mean 'shift_consistency'"),
        (
            [{"name": "sparsity", "treshold": 0.1}],
            r"study\.probes\.0\.treshold: unknown key 'treshold'; did you mean 'threshold'",
        ),
        ([{"name": "sparsity"}, {"name": "occlusion_accuracy", "sizes": (0,)}], r"study\.probes\.1\.sizes"),
        ([{"name": "corruption_accuracy", "severities": (6,)}], r"study\.probes\.0\.severities"),
        ([{"name": "corruption_accuracy", "kinds": ("fog",)}], r"study\.probes\.0\.kinds"),
        ([{"name": "sparsity"}, {"name": "sparsity", "threshold": 0.1}], "there twice"),
    ],
)
def test_wrong_nodes_are_refused(nodes, message):
    with pytest.raises(UserError, match=message):
        check_probes(nodes)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "shift_consistency", "shifts": (1, 8)}, "the largest shift is 7"),
        ({"name": "accuracy_by_position", "offsets": (8,)}, "the largest offset is 7"),
        ({"name": "occlusion_accuracy", "sizes": (9,)}, "the largest square is 8"),
        ({"name": "equivariance_error", "shift": 8}, "the largest shift is 7"),
        ({"name": "equivariance_error", "maps": ("stage9",)}, "Known: stage1, stage2"),
    ],
)
def test_options_that_do_not_suit_the_images_are_refused(trained, node, message):
    with pytest.raises(UserError, match=message):
        run_probes(check_probes([node]), *trained)


def test_a_network_without_hidden_units_has_none_that_are_dead(started):
    with pytest.raises(UserError, match="no hidden units"):
        dead_units(*started(model={"name": "mlp", "hidden": ()}))
