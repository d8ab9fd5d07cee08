"""The capsule network against Eq. 1, Eq. 2 and Procedure 1 of Sabour et al. 2017, in float64 loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ImageTooSmallError
from cnn_jax.losses import margin_loss
from cnn_jax.methods.summarize import summarize
from cnn_jax.models.capsules import RoutedCapsules, keep_one, lengths, route, routed_macs, squash

# What every family shares is tested in the fast suite: counts, logits, the table of names.
pytestmark = pytest.mark.slow


def squashed(s):
    """Eq. 1: v = |s|² / (1 + |s|²) · s / |s|."""
    norm = np.sqrt(sum(x * x for x in s))
    return norm**2 / (1 + norm**2) * np.asarray(s) / norm


def routed(predictions, iterations):
    """Procedure 1 for one example, `[N, K, D]`, line by line."""
    capsules, above, size = predictions.shape
    b = np.zeros((capsules, above))  # 2: for all capsule i in layer l and capsule j in layer (l + 1): b_ij <- 0
    for _ in range(iterations):  # 3
        c = np.zeros_like(b)
        for i in range(capsules):  # 4: c_i <- softmax(b_i)
            c[i] = np.exp(b[i]) / np.exp(b[i]).sum()
        v = np.zeros((above, size))
        for j in range(above):
            s = sum(c[i, j] * predictions[i, j] for i in range(capsules))  # 5: s_j <- sum over i of c_ij û_j|i
            v[j] = squashed(s)  # 6: v_j <- squash(s_j)
        for i in range(capsules):
            for j in range(above):
                b[i, j] += predictions[i, j] @ v[j]  # 7: b_ij <- b_ij + û_j|i . v_j
    return v


def test_squash_is_eq_1():
    s = np.random.default_rng(0).standard_normal((20, 5)) * np.logspace(-4, 3, 20)[:, None]
    expected = np.stack([squashed(row) for row in s])
    np.testing.assert_allclose(squash(jnp.asarray(s, jnp.float32)), expected, rtol=1e-5)
    assert float(lengths(squash(jnp.float32([[1e3, 0.0]])))[0]) < 1


def test_nothing_has_no_length_and_finite_gradients():
    zero = jnp.zeros((2, 4))
    np.testing.assert_array_equal(squash(zero), zero)
    np.testing.assert_allclose(lengths(zero), 0, atol=1e-9)
    for function in (squash, lengths):
        assert np.isfinite(jax.grad(lambda s, function=function: function(s).sum())(zero)).all()


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_routing_is_procedure_1(iterations):
    predictions = np.random.default_rng(0).standard_normal((2, 7, 4, 3))
    expected = np.stack([routed(example, iterations) for example in predictions])
    got = jax.jit(functools.partial(route, iterations=iterations))(jnp.asarray(predictions, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    if iterations > 1:
        assert np.abs(got - np.stack([routed(example, 1) for example in predictions])).max() > 0.01


def test_predictions_are_eq_2():
    generator = np.random.default_rng(0)
    u, transform = generator.standard_normal((2, 5, 3)), generator.standard_normal((5, 4, 3, 2))
    predictions = np.zeros((2, 5, 4, 2))
    for example, i, j in np.ndindex(2, 5, 4):
        predictions[example, i, j] = u[example, i] @ transform[i, j]  # û_j|i = W_ij u_i
    expected = np.stack([routed(example, 3) for example in predictions])
    layer = RoutedCapsules(4, 2, iterations=3)
    got = layer.apply({"params": {"transform": jnp.asarray(transform, jnp.float32)}}, jnp.asarray(u, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def small(random_variables):
    model = models.create("capsule_network", num_classes=4, width_multiplier=0.05, capsule_size=6)
    x = jax.random.uniform(jax.random.key(0), (3, 20, 19, 1))
    return model, random_variables(model, x), x


def test_logits_are_lengths_of_capsules(small):
    model, variables, x = small
    vectors = model.apply(variables, x, method="capsules")
    assert vectors.shape == (3, 4, 6)
    logits = model.apply(variables, x, train=False)
    np.testing.assert_allclose(logits, np.linalg.norm(vectors, axis=-1), rtol=1e-5)
    assert 0 < logits.min() <= logits.max() < 1


def test_primary_capsules_are_squashed_convolutions(small):
    model, variables, x = small
    maps = model.apply(variables, x, train=False, method="features")
    plain = models.create("capsule_network", num_classes=4, width_multiplier=0.05, primary_size=1)
    assert {name: leaf.shape[1:] for name, leaf in maps.items()} == {"stem": (12, 11, 16), "primary": (2, 2, 16)}
    layer = variables["params"]["backbone"]["primary"]
    y = jax.lax.conv_general_dilated(
        maps["stem"], layer["kernel"], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = np.asarray(y + layer["bias"][None, None, None], np.float64)
    # Capsules of eight neighbouring channels: [B, *space, 16] -> [capsules, 8]
    expected = np.stack([squashed(capsule) for capsule in y.reshape(-1, 8)]).reshape(y.shape)
    np.testing.assert_allclose(maps["primary"], expected, rtol=1e-4, atol=1e-5)
    assert plain.backbone.size == 1


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [28, 27, 17])
def test_documented_sizes_at_every_rank(rank, size):
    model = models.create("capsule_network", num_classes=4, in_channels=2, width_multiplier=0.05)
    x = jax.ShapeDtypeStruct((1, *(size,) * rank, 2), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    maps = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    assert maps["stem"].shape[1:-1] == (size - 8,) * rank
    assert maps["primary"].shape[1:-1] == ((size - 17) // 2 + 1,) * rank


def test_the_smallest_image():
    model = models.create("capsule_network", num_classes=4, width_multiplier=0.05)
    x = jax.ShapeDtypeStruct((1, 16, 17, 1), jnp.float32)
    with pytest.raises(ImageTooSmallError):
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)


def test_one_capsule_is_kept():
    capsules = jnp.float32([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 2.0]]])
    np.testing.assert_array_equal(keep_one(capsules), [[[0, 0], [0, 2]], [[3, 0], [0, 0]]])
    np.testing.assert_array_equal(keep_one(capsules, labels=jnp.array([0, 1])), [[[1, 0], [0, 0]], [[0, 0], [0, 2]]])


def test_the_reconstruction_is_drawn_from_the_labels_capsule_alone(small):
    model, variables, x = small
    vectors = model.apply(variables, x, method="capsules")
    draw = functools.partial(model.apply, variables, image_shape=x.shape[1:], method="reconstruct")
    labels = jnp.array([1, 3, 0])
    drawn = draw(vectors, labels=labels)
    assert drawn.shape == x.shape
    assert 0 < drawn.min() < drawn.max() < 1
    sensitivity = jax.grad(lambda v: jnp.sum(draw(v, labels=labels) ** 2))(vectors)
    seen = np.abs(sensitivity).max(axis=-1) > 0
    np.testing.assert_array_equal(seen, jax.nn.one_hot(labels, 4) > 0)
    np.testing.assert_array_equal(draw(vectors), draw(vectors, labels=jnp.argmax(lengths(vectors), axis=-1)))


def test_the_papers_loss_trains_every_parameter(small):
    model, variables, x = small
    labels = jnp.array([1, 3, 0])

    @jax.jit
    def gradients(params):
        def loss(params):
            vectors = model.apply({"params": params}, x, method="capsules")
            drawn = model.apply(
                {"params": params}, vectors, image_shape=x.shape[1:], labels=labels, method="reconstruct"
            )
            squares = jnp.sum(jnp.square(drawn - x), axis=(1, 2, 3))
            return jnp.mean(margin_loss(lengths(vectors), labels) + 0.0005 * squares)

        return jax.grad(loss)(params)

    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients(variables["params"])):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


def test_parameters_and_macs_of_the_papers_network():
    summary = summarize(
        models.create("capsule_network", num_classes=10), (28, 28, 1), own_macs={RoutedCapsules: routed_macs}
    )
    assert summary.totals.parameters == 8_215_568  # numbers.md, Others
    rows = {row.path: row for row in summary.rows}
    assert rows["backbone/stem"].parameters == 81 * 256 + 256
    assert rows["backbone/primary"].parameters == 81 * 256 * 256 + 256
    assert rows["head/output"].parameters == 1152 * 10 * 8 * 16
    # 1,152 capsules and ten above: predictions, three weighted sums, two agreements.
    assert rows["head/output"].macs == 1152 * 10 * (8 * 16 + 3 * 16 + 2 * 16)
