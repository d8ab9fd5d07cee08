"""Options of the compiler follow from the network's kernels and from what a program computes."""

import jax
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.train.compiler import compiler_options, creation_options
from cnn_jax.train.prediction import compiled_prediction
from cnn_jax.train.run import build


@pytest.mark.parametrize(
    ("name", "elementwise"), [("resnet20", True), ("classic_stack", True), ("resnet50", False), ("mobilenet_v2", False)]
)
def test_networks_of_mostly_one_pixel_kernels_leave_elementwise_operations_to_xla(name, elementwise):
    model = models.create(name, num_classes=10)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
    variables = jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), image)
    (value,) = compiler_options(variables["params"], gradients=True).values()
    assert ("ELTWISE" in value) == elementwise
    assert "CONVOLUTION" not in value


def test_without_gradients_convolutions_are_in_no_fusion():
    (value,) = compiler_options({}, gradients=False).values()
    assert value == "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def test_programs_that_train_and_those_that_predict_get_their_own(tiny_config, monkeypatch):
    given, jit = [], jax.jit

    def record(*arguments, **options):
        given.append(options.get("compiler_options"))
        return jit(*arguments, **options)

    experiment = build(tiny_config)
    monkeypatch.setattr(jax, "jit", record)
    experiment.compiled_step()
    experiment.compiled_evaluation()
    compiled_prediction(experiment)
    train, evaluation, prediction = (options["xla_cpu_experimental_ynn_fusion_type"] for options in given)
    assert "REDUCE" in train
    assert evaluation == prediction == "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def test_a_backend_that_is_no_cpu_gets_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options({}, gradients=True) == compiler_options({}, gradients=False) == creation_options() == {}


@pytest.mark.slow
def test_fewer_passes_give_the_same_initial_values_to_the_bit(tiny_config, monkeypatch):
    assert creation_options()
    few = build(tiny_config).initial_state()
    monkeypatch.setattr("cnn_jax.train.experiment.creation_options", dict)
    jax.tree.map(np.testing.assert_array_equal, few, build(tiny_config).initial_state())
