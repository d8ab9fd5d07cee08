"""Test-time augmentation against averages written with NumPy: airbench94_muon.py's, crops as torchvision cuts them."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from cnn_jax.errors import UserError
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


def centre_of_gravity(images, backend):
    """Features that tell where things are and do not depend on the size: `[B, 2 C]`."""
    rows, columns = (backend.linspace(0, 1, n) for n in images.shape[1:3])
    along = (
        backend.mean(images * rows[None, :, None, None], (1, 2)),
        backend.mean(images**2 * columns[None, None, :, None], (1, 2)),
    )
    return backend.concatenate(along, axis=-1)


def crops_of_torchvision(image, height, width):
    """FiveCrop of torchvision.transforms.functional, line by line."""
    image_height, image_width = image.shape[:2]

    def crop(top, left):
        return image[top : top + height, left : left + width]

    return [
        crop(0, 0),
        crop(0, image_width - width),
        crop(image_height - height, 0),
        crop(image_height - height, image_width - width),
        crop(round((image_height - height) / 2.0), round((image_width - width) / 2.0)),
    ]


@pytest.mark.parametrize("views", ["five_crop", "ten_crop"])
@pytest.mark.parametrize(
    ("share", "height", "width"),
    [(0.875, 12, 15), (0.5, 7, 8), (0.3, 4, 5), (1.0, 14, 17)],  # of 14 x 17
)
def test_crops_are_those_of_torchvision(views, share, height, width):
    images = np.random.default_rng(0).random((2, 14, 17, 3), np.float32)
    expected = []
    for image in images.astype(np.float64):
        shown = crops_of_torchvision(image, height, width)
        if views == "ten_crop":
            shown += crops_of_torchvision(image[:, ::-1], height, width)
        expected.append(np.mean([centre_of_gravity(view[None], np)[0] for view in shown], axis=0))
    found = average_over_views(lambda x: centre_of_gravity(x, jnp), jnp.asarray(images), views=views, crop_share=share)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_scales_are_the_mean_over_resized_images():
    images = np.random.default_rng(0).random((2, 12, 16, 3), np.float32)
    shapes = []

    def logits(x):
        shapes.append(x.shape)
        return centre_of_gravity(x, jnp)

    found = average_over_views(logits, jnp.asarray(images), views="scales", scales=(0.5, 1.0, 1.25))
    assert shapes == [(2, 6, 8, 3), (2, 12, 16, 3), (2, 15, 20, 3)]
    expected = np.zeros((2, 6))
    for scale in (0.5, 1.0, 1.25):
        height, width = round(12 * scale), round(16 * scale)
        for i, channel in np.ndindex(2, 3):
            plane = PIL.Image.fromarray(images[i, :, :, channel])
            resized = np.asarray(plane.resize((width, height), PIL.Image.Resampling.BILINEAR), np.float64)
            expected[i, [channel, 3 + channel]] += centre_of_gravity(resized[None, :, :, None], np)[0] / 3
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_views_of_one_size_alone_and_views_without_a_pixel_are_refused():
    with pytest.raises(UserError, match="not of 1 axes of space; choose 'mirror'"):
        average_over_views(lambda x: x[:, 0], jnp.zeros((2, 8, 3)), views="five_crop")
    with pytest.raises(UserError, match=r"crop_share 0\.1 leaves no pixel of images of \(4, 4\)"):
        average_over_views(lambda x: x[:, 0, 0], jnp.zeros((2, 4, 4, 3)), views="ten_crop", crop_share=0.1)


@pytest.mark.parametrize("views", ["ten_crop", "scales"])
def test_a_network_that_takes_one_size_alone_is_refused_when_it_is_made(views):
    def make(model):
        task = Classification(
            model=model, loss_function=softmax_cross_entropy, num_classes=3, divide_by_weights=False, views=views
        )
        jax.eval_shape(task.init, jax.random.key(0), {"image": jnp.zeros((1, 16, 16, 1))})

    with pytest.raises(UserError, match=f"config.task.views '{views}' shows the network images of other sizes"):
        make(create("mlp", num_classes=3, in_channels=1, hidden=()))
    make(create("resnet_cifar", depth=8, width=4, num_classes=3, in_channels=1))


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
