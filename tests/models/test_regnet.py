"""RegNet: the published stages, documented strides at every rank, the gates of Y, and the smallest image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.models.regnet import DESIGNS, stages_of

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow

NARROW = {"depth": 4, "initial_width": 8, "slope": 8.0, "step": 2.0, "group_width": 4}

# Radosavovic et al. 2020, Fig. 15 and 16: blocks d_i, widths w_i and group width g.
PUBLISHED = {
    "x_3_2gf": ((2, 6, 15, 2), (96, 192, 432, 1008), 48),
    "x_32gf": ((2, 7, 13, 1), (336, 672, 1344, 2520), 168),
    "y_400mf": ((1, 3, 6, 6), (48, 104, 208, 440), 8),
    "y_3_2gf": ((2, 5, 13, 1), (72, 216, 576, 1512), 24),
    "y_32gf": ((2, 5, 12, 1), (232, 696, 1392, 3712), 232),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_stages_are_the_published_ones(name):
    blocks, widths, group_width = PUBLISHED[name]
    design = DESIGNS[name]._asdict()
    assert design.pop("squeeze_ratio") == (0.25 if name.startswith("y") else 0)
    assert stages_of(**design) == tuple(
        (width, count, group_width) for width, count in zip(widths, blocks, strict=True)
    )


def test_a_width_between_two_multiples_of_the_group_width_becomes_the_larger():
    # 24 · 2.54³ = 393.3, so 392: 24.5 groups of 16. torchvision makes 25, the authors 24, hence 384 in Fig. 15.
    design = DESIGNS["x_400mf"]._asdict()
    del design["squeeze_ratio"]
    assert stages_of(**design) == ((32, 1, 16), (64, 2, 16), (160, 7, 16), (400, 12, 16))


def test_a_stage_narrower_than_a_group_has_one_group():
    # Widths 8, 16 and 32; rounded down to 24, the last would lose more than a tenth.
    stages = stages_of(depth=3, initial_width=8, slope=8.0, step=2.0, group_width=24)
    assert stages == ((8, 1, 8), (16, 1, 16), (48, 1, 24))


@pytest.mark.parametrize("space", [(49,), (64, 49), (49, 33, 64)])
def test_documented_strides_at_every_rank(space):
    model = models.create("regnet", num_classes=5, in_channels=2, **NARROW)
    x = jax.ShapeDtypeStruct((1, *space, 2), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    strides_and_widths = {"stem": (2, 32), "stage1": (4, 8), "stage2": (8, 16), "stage3": (16, 32)}
    assert {name: leaf.shape for name, leaf in maps.items()} == {
        name: (1, *(-(-size // stride) for size in space), width)
        for name, (stride, width) in strides_and_widths.items()
    }


def test_gates_are_a_quarter_of_the_blocks_input():
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)

    def parameters(ratio):
        model = models.create("regnet", num_classes=5, squeeze_ratio=ratio, **NARROW)
        variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
        return variables["params"]["backbone"]

    params = parameters(0.25)
    reduced = {
        (stage, block): layers["squeeze_excite"]["reduce"]["bias"].shape[0]
        for stage, blocks in params.items()
        if stage != "stem"
        for block, layers in blocks.items()
    }
    assert reduced == {
        ("stage1", "block1"): 8,
        ("stage2", "block1"): 2,
        ("stage3", "block1"): 4,
        ("stage3", "block2"): 8,
    }
    assert "squeeze_excite" not in parameters(0.0)["stage3"]["block2"]


def test_the_smallest_image_has_one_pixel(random_variables):
    model = models.create("regnet", num_classes=5, **NARROW)
    x = jnp.ones((1, 1, 1, 3))
    assert np.isfinite(jax.jit(functools.partial(model.apply, train=False))(random_variables(model, x), x)).all()
    with pytest.raises(ImageTooSmallError, match="'backbone/stem/conv' gets an image of 0×8 pixels"):
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), jnp.ones((1, 0, 8, 3)))
