"""Test-time augmentation against the average that airbench94_muon.py takes, written with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.losses import softmax_cross_entropy
from cnn_jax.models import create
from cnn_jax.tasks import Classification
from cnn_jax.tasks.views import average_over_views


@pytest.mark.parametrize("views", ["one", "mirror", "mirror_translate"])
def test_the_average_is_that_of_airbench(views):
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, 5, 6, 3)).astype(np.float32)
    weights = generator.standard_normal((5 * 6 * 3, 4)).astype(np.float32)

    def logits(images):
        return np.tanh(images.reshape(len(images), -1) @ weights)

    def mirrored(images):
        return 0.5 * logits(images) + 0.5 * logits(images[:, :, ::-1])

    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    translated = [mirrored(padded[:, :5, :6]), mirrored(padded[:, 2:, 2:])]
    expected = {
        "one": logits(images),
        "mirror": mirrored(images),
        "mirror_translate": 0.5 * mirrored(images) + 0.5 * np.mean(translated, axis=0),
    }
    found = average_over_views(
        lambda x: jnp.tanh(x.reshape(len(x), -1) @ weights),  # [B, 5, 6, 3] -> [B, 90]
        jnp.asarray(images),
        views=views,
    )
    np.testing.assert_allclose(found, expected[views], rtol=1e-4, atol=1e-5)


def test_evaluation_and_prediction_average_and_training_does_not():
    model = create("mlp", num_classes=3, in_channels=1, hidden=())
    one, averaged = (
        Classification(
            model=model, loss_function=softmax_cross_entropy, num_classes=3, divide_by_weights=False, views=views
        )
        for views in ("one", "mirror")
    )
    image = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    batch = {"image": image, "label": jnp.array([0, 1]), "mask": jnp.ones(2)}
    params, state = one.init(jax.random.key(1), batch)
    key = jax.random.key(2)

    def logits(task, image, *, train):
        return task.loss(params, state, {**batch, "image": image}, key, train=train)[1].values["logits"]

    expected = 0.5 * (logits(one, image, train=False) + logits(one, image[:, :, ::-1], train=False))
    np.testing.assert_allclose(logits(averaged, image, train=False), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(averaged.predict(params, state, batch)["logits"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(logits(averaged, image, train=True), logits(one, image, train=True))
