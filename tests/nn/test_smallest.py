"""A network that gets too small an image says which size works."""

import functools

import jax
import jax.numpy as jnp
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.nn.smallest import smallest_image

# name, pixels: torchvision's `min_size` in zoo.json where its own network has a limit
SMALLEST = [("alexnet", 63), ("vgg11", 32), ("inception_v3", 75), ("resnet18", 1), ("lenet5_1998", 28)]


@pytest.mark.parametrize(
    ("name", "size"),
    [pytest.param(*row, marks=[pytest.mark.slow] if row[0] == "inception_v3" else []) for row in SMALLEST],
)
def test_the_smallest_image_and_no_smaller_one(name, size):
    channels = 1 if name.startswith("lenet") else 3
    model = models.create(name, num_classes=3, in_channels=channels)
    init = functools.partial(jax.eval_shape, functools.partial(model.init, train=False), jax.random.key(0))
    assert smallest_image(model) == size
    init(jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32))
    if size > 1:
        shown = rf"images of {size - 1}×{size - 1} are too small .* at least {size}×{size} \(|takes images of 28×28 or"
        with pytest.raises(ImageTooSmallError, match=shown) as caught:
            init(jax.ShapeDtypeStruct((1, size - 1, size - 1, channels), jnp.float32))
        assert "\n" not in str(caught.value)


def test_the_same_with_variables_and_for_one_axis():
    model = models.create("classic_stack", num_classes=3, dense=(), final_pool="average")
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 3)), train=False)
    with pytest.raises(ImageTooSmallError, match="images of 4 are too small for this network; it takes at least 10 "):
        model.apply(variables, jnp.zeros((1, 4, 3)), train=False)
