"""Figures that are one picture of many images: each image is where its text says, and whole."""

import numpy as np
import pytest

from cnn_jax.train.figures import first_layer_filters, most_confidently_wrong

GENERATOR = np.random.default_rng(0)


def find(picture, tile):
    """(row, column) of the only place where a picture has this tile."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, tile.shape)
    equal = (windows == tile).all(axis=tuple(range(picture.ndim, 2 * picture.ndim)))
    [(row, column)] = np.argwhere(equal)[:, :2].tolist()
    return row, column


# Square, wide and tall, in grey and in colour, in less than a row and in more.
@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 9, 3), (9, 4, 1)])
@pytest.mark.parametrize("count", [1, 3, 11])
def test_every_wrong_example_is_under_its_text(shape, count):
    images = GENERATOR.integers(1, 255, (count + 1, *shape), np.uint8)
    labels, predicted = np.zeros(count + 1, int), np.ones(count + 1, int)
    predicted[0] = 0  # one is right
    probabilities = np.full((count + 1, 2), 0.1)
    probabilities[np.arange(count + 1), predicted] = 0.5 + GENERATOR.permutation(count + 1) / 100
    figure = most_confidently_wrong(images.__getitem__, labels, probabilities, ["zero", "one"], "a set")
    (axes,) = figure.axes
    picture = np.asarray(axes.images[0].get_array())
    told = [int(text.get_text()[1:].partition(":")[0]) for text in axes.texts]
    expected = 1 + np.argsort(-probabilities[1:, 1])
    assert told == list(expected)
    for index, text in zip(told, axes.texts, strict=True):
        row, column = find(picture, images[index] if shape[-1] == 3 else images[index][..., 0])
        x, y = text.get_position()
        assert x == column + (shape[1] - 1) / 2
        assert row - 2 * shape[1] / 5 - 1 < y < row


def test_nothing_wrong_is_drawn_too(tmp_path):
    images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.arange(2)
    figure = most_confidently_wrong(images.__getitem__, labels, np.eye(2), ["zero", "one"], "a set")
    figure.savefig(tmp_path / "figure.png")
    assert figure.get_suptitle() == "0 of 2 wrong on a set"


@pytest.mark.parametrize(
    ("shape", "drawn"), [((3, 3, 1, 5), 5), ((1, 1, 2, 1), 1), ((5, 3, 3, 20), 20), ((7, 7, 3, 100), 64)]
)
def test_every_filter_is_drawn_in_its_order_and_zero_is_the_middle(shape, drawn):
    kernel = GENERATOR.standard_normal(shape)
    shown = first_layer_filters(kernel).axes[0].images[0]
    assert shown.get_clim() == (0, 1)
    picture = np.asarray(shown.get_array())
    places = []
    for index in range(drawn):
        tile = 0.5 + 0.5 * kernel[..., index] / np.abs(kernel).max()
        places.append(find(picture, tile if shape[2] == 3 else tile[..., 0]))
    # One pixel lies above and beside each; sixteen are in a row.
    assert places == [(i // 16 * (shape[0] + 1) + 1, i % 16 * (shape[1] + 1) + 1) for i in range(drawn)]
