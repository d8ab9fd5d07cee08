"""Video networks: strides of time and space, factorised convolutions, and the one rank that they take."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import UserError

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

SPACE = {"stem": 2, "stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16}
TIME = {"stem": 1, "stage1": 1, "stage2": 2, "stage3": 4, "stage4": 8}
STRIDES = {"r3d_18": TIME, "mc3_18": dict.fromkeys(TIME, 1), "r2plus1d_18": TIME}


def shapes(model, video):
    x = jax.ShapeDtypeStruct((1, *video, 3), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    return variables, jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)


@pytest.mark.parametrize("video", [(16, 64, 48), (11, 49, 35), (1, 1, 1)])
@pytest.mark.parametrize("name", STRIDES)
def test_documented_strides(name, video):
    frames, height, width = video
    _, maps = shapes(models.create(name, num_classes=5, width=4), video)
    expected = {
        key: (1, -(-frames // time), -(-height // SPACE[key]), -(-width // SPACE[key]))
        for key, time in STRIDES[name].items()
    }
    assert {key: leaf.shape[:-1] for key, leaf in maps.items()} == expected
    channels = {"stem": 4, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
    assert {key: leaf.shape[-1] for key, leaf in maps.items()} == channels


def test_a_factorised_block_has_as_many_parameters_as_a_whole_one():
    whole, factorised = (
        shapes(models.create(name, num_classes=5), (1, 1, 1))[0]["params"]["backbone"]["stage2"]["block2"]["conv1"]
        for name in ("r3d_18", "r2plus1d_18")
    )
    parts = [factorised[part]["conv"]["kernel"] for part in ("space", "time")]
    assert [part.shape[:3] for part in parts] == [(1, 3, 3), (3, 1, 1)]
    # Section 3.5: as many as the rounding of the channels in the middle allows, here exactly as many.
    assert sum(part.size for part in parts) == whole["conv"]["kernel"].size


@pytest.mark.parametrize(
    ("convolutions", "sees"), [(("3d",) * 5, True), (("2plus1d",) * 5, True), (("2d",) * 5, False)]
)
def test_only_convolutions_of_time_see_other_frames(convolutions, sees, random_variables):
    model = models.create("video_resnet", num_classes=5, width=4, convolutions=convolutions)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 8, 8, 3), dtype=np.float32))
    variables = random_variables(model, x)
    run = jax.jit(lambda x: model.apply(variables, x, train=False, method="features")["stem"])
    changed = np.abs(run(x.at[:, 0].add(1.0)) - run(x)).max(axis=(0, 2, 3, 4)) > 0
    assert changed.tolist() == [True, sees, False]


@pytest.mark.parametrize("space", [(16,), (16, 16)])
def test_an_image_is_no_video(space):
    model = models.create("r3d_18", num_classes=5, width=4)
    with pytest.raises(UserError, match=r"videos have the shape \(1, 16.* takes \[B, frames, height, width, C\]"):
        jax.eval_shape(
            functools.partial(model.init, train=False),
            jax.random.key(0),
            jax.ShapeDtypeStruct((1, *space, 3), jnp.float32),
        )
