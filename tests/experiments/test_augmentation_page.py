"""The page of augmentations shows what the tables hold."""

import sys

from cnn_jax.data.augment import AUGMENTATIONS
from cnn_jax.data.augment.mixing import MIXINGS


def test_every_augmentation_has_its_figure_and_its_text(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "experiments")
    import draw_augmentations

    results = repository / "experiments" / "results"
    figures = {figure.stem for figure in (results / "augmentations").iterdir()}
    assert figures == set(AUGMENTATIONS | MIXINGS)
    # Otherwise: python experiments/draw_augmentations.py
    assert (results / "augmentations.md").read_text(encoding="utf-8") == draw_augmentations.page()
    sys.modules.pop("draw_augmentations")
