"""Draw what every augmentation does to two photographs: a figure each, and the page that shows them.

Written are experiments/results/augmentations/NAME.jpg and experiments/results/augmentations.md. The photographs come
with scikit-learn; options are the defaults, but for those that shapes or a first look ask for.

Example:
  python experiments/draw_augmentations.py
"""

import inspect
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cnn_jax import command
from cnn_jax.data.augment import AUGMENTATIONS
from cnn_jax.data.augment.mixing import MIXINGS
from cnn_jax.data.transform import training_transform
from cnn_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "experiments" / "results" / "augmentations.md"
SIDE, EPOCHS = 96, 7
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "random_crop": {"padding": 12},
    "cutout": {"length": 32},
    "mixup": {"alpha": 1.0},
}
"""Where the defaults are for images of 32 pixels, or too gentle to see."""
DOTS_PER_INCH = 64


def main(arguments: Sequence[str]) -> int:
    """Write all figures and the page."""
    parser = command.Parser("Draw what every augmentation does.")
    parser.add_argument("--only", metavar="NAME", help="draw one augmentation, and leave the page as it is")
    known = parser.parse_args(arguments)
    table = AUGMENTATIONS | MIXINGS
    if known.only is not None and known.only not in table:
        raise UserError(f"--only={known.only} is no augmentation; known: {', '.join(sorted(table))}")
    images = photographs()
    folder = PAGE.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for name in [known.only] if known.only else table:
        draw(name, images).savefig(folder / f"{name}.jpg", dpi=DOTS_PER_INCH, pil_kwargs={"quality": 80})
        print(f"wrote {(folder / name).relative_to(ROOT)}.jpg")
    if known.only is None:
        PAGE.write_text(page(), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def photographs() -> np.ndarray:
    """Two photographs of 96×96 pixels, uint8 `[2, 96, 96, 3]`: a palace and a flower."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    # The upper left corner and the side of a square that shows the motif.
    corners = {"china.jpg": (40, 150, 340), "flower.jpg": (20, 130, 380)}
    found = []
    for file, (top, left, side) in corners.items():
        square = load_sample_image(file)[top : top + side, left : left + side]
        found.append(np.asarray(Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
    return np.stack(found)


def draw(name: str, images: np.ndarray) -> Figure:
    """The images as they are and in seven epochs of one augmentation.

    Args:
      name: of the augmentation.
      images: uint8 `[N, H, W, 3]`; each is a class of its own.
    """
    count = len(images)
    nodes = ({"name": name, **OPTIONS.get(name, {})},)

    @jax.jit
    def augmented(epoch):
        batch = {
            "image": jnp.asarray(images),
            "label": jnp.arange(count, dtype=jnp.int32),
            "mask": jnp.ones(count, jnp.float32),
            "id": jnp.arange(count, dtype=jnp.int32),
            "epoch": jnp.full(count, epoch, jnp.int32),
        }
        zero, one = (0.0,) * 3, (1.0,) * 3
        return training_transform(jax.random.key(0), batch, augmentations=nodes, num_classes=count, mean=zero, std=one)

    batches = [jax.device_get(augmented(epoch)) for epoch in range(EPOCHS)]
    figure = Figure(figsize=(1.3 * (EPOCHS + 1), 1.5 * count), layout="constrained")
    for row, line in enumerate(figure.subplots(count, EPOCHS + 1, squeeze=False)):
        line[0].imshow(images[row])
        for axes, batch in zip(line[1:], batches, strict=True):
            axes.imshow(np.clip(batch["image"][row], 0, 1))
            if "target" in batch:
                share = float(batch["target"][row, row])
                axes.set_title(f"{share:.2f} + {1 - share:.2f}", fontsize=9)
        for axes in line:
            axes.axis("off")
    return figure


def page() -> str:
    """Every augmentation with the first paragraph of its documentation and its figure."""
    lines = ["# Augmentations", "", "Written by `python experiments/draw_augmentations.py`."]
    lines += [
        "The photograph on the left as it is, then as it is in seven epochs; over mixed images the shares of both"
    ]
    lines += [
        "classes. The photographs are by the Flickr users danielbuechele and vultilion (CC BY 2.0), and come with"
    ]
    lines += ["scikit-learn.", ""]
    for name, function in (AUGMENTATIONS | MIXINGS).items():
        text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
        options = OPTIONS.get(name)
        drawn = (
            "" if options is None else f" Drawn with {', '.join(f'`{key}={value}`' for key, value in options.items())}."
        )
        lines += [f"## {name}", "", f"{text}{drawn}", "", f"![{name}](augmentations/{name}.jpg)", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main)
