"""Options of the compiler follow from the network's kernels, and reach the compiled step."""

import jax
import pytest

from cnn_jax import models
from cnn_jax.train.compiler import compiler_options


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


def test_a_backend_that_is_no_cpu_gets_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options({}, gradients=True) == compiler_options({}, gradients=False) == {}
