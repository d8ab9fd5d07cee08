"""What `benchmark.py data` times: rows as plain data, and the photographs of the streaming rows."""

import dataclasses
import pathlib
from typing import Literal

import numpy as np

from cnn_jax.benchmark.cases import CPU_CASES, Case
from cnn_jax.errors import UserError, unknown_name

Kind = Literal["host", "resident", "stream"]
CASES = {case.model: case for case in CPU_CASES}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRow:
    """One row; it crosses the pipe to a worker as JSON.

    Attributes:
      name: in `--rows` and in the table.
      mode: what is timed, against what.
      kind: "host" makes augmented batches of small images on the CPU; "resident" trains with the split on the device;
        "stream" reads, decodes, crops and flips a folder of JPEG files.
      peer: "tensorflow", "torch", "fixed" (training on one batch again and again) or "pillow" (decoding alone).
      image: `[H, W, C]` of the batches.
      batch_size: B.
      examples: of the split.
      goal: the ratio that must be reached.
      padding: of the crop, in pixels ("host").
      mean: of the normalisation, in units of [0, 1] ("host").
      std: as `mean`.
      case: the network ("resident").
      steps_per_dispatch: training steps in one program ("resident").
      workers: processes that decode; with 0 as many threads as cores ("stream").
      resized: whether the crops are resized, which costs three quarters of what decoding does ("stream").
      folder: of the JPEG files ("stream"); filled in when they are there.
    """

    name: str
    mode: str
    kind: Kind
    peer: str
    image: tuple[int, ...]
    batch_size: int
    examples: int
    goal: float
    padding: int = 4
    mean: float = 0.45
    std: float = 0.25
    case: Case | None = None
    steps_per_dispatch: int = 1
    workers: int = 0
    resized: bool = False
    folder: str | None = None


def _host(name: str, peer: str, shown: str) -> DataRow:
    mode = f"host pipeline, against {shown}"
    return DataRow(
        name=name, mode=mode, kind="host", peer=peer, image=(32, 32, 3), batch_size=128, examples=50_000, goal=1.0
    )


def _resident(model: str, *, examples: int, steps_per_dispatch: int) -> DataRow:
    case = CASES[model]
    return DataRow(
        name=f"resident_{model}",
        mode="training, split on the device, against one batch held there",
        kind="resident",
        peer="fixed",
        image=case.image,
        batch_size=case.batch_size,
        examples=examples,
        goal=0.97,
        case=case,
        steps_per_dispatch=steps_per_dispatch,
    )


def _stream(name: str, shown: str, *, workers: int, resized: bool = False) -> DataRow:
    crop = "crop, resize and flip" if resized else "crop and flip"
    return DataRow(
        name=name,
        mode=f"JPEG folder, {crop} by {shown}, against Pillow's decoding alone",
        kind="stream",
        peer="pillow",
        image=(224, 224, 3),
        batch_size=32,
        examples=480,
        goal=0.8,
        workers=workers,
        resized=resized,
    )


DATA_ROWS = (
    _host("tf_data", "tensorflow", "tf.data"),
    _host("dataloader", "torch", "DataLoader"),
    _resident("lenet5", examples=60_000, steps_per_dispatch=16),
    _resident("resnet20", examples=50_000, steps_per_dispatch=4),
    _stream("stream_threads", "threads", workers=0),
    _stream("stream_processes", "2 processes", workers=2),
    _stream("stream_resized", "threads", workers=0, resized=True),
)
"""The rows of the table."""


def select_rows(rows: str) -> list[DataRow]:
    """The rows of a list such as `tf_data,stream_threads`; an empty text is all.

    Raises:
      UserError: an unknown row, or none.
    """
    known = {row.name: row for row in DATA_ROWS}
    names = list(dict.fromkeys(filter(None, rows.split(",")))) if rows else list(known)
    for name in names:
        if name not in known:
            raise unknown_name("row of --rows", name, known)
    if not names:
        raise UserError(f"--rows={rows} names no row; known: {', '.join(known)}")
    return [known[name] for name in names]


PHOTOGRAPH = (375, 500)
"""Height and width of the usual image of ImageNet."""
QUALITY = 95
"""Of the JPEG files, which makes them a little smaller than ImageNet's 110 kB: smaller files decode faster."""


def write_photographs(folder: pathlib.Path, *, count: int) -> None:
    """Write JPEG files of random parts of scikit-learn's two photographs into `folder/train/CLASS`.

    Args:
      folder: is made.
      count: of files.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_image

    generator = np.random.default_rng(0)
    height, width = PHOTOGRAPH
    for name in ("china", "flower"):
        photograph, place = load_sample_image(f"{name}.jpg"), folder / "train" / name
        place.mkdir(parents=True)
        for number in range(count // 2):
            top = generator.integers(photograph.shape[0] - height + 1)
            left = generator.integers(photograph.shape[1] - width + 1)
            part = np.ascontiguousarray(photograph[top : top + height, left : left + width])
            Image.fromarray(part).save(place / f"{number}.jpg", quality=QUALITY)
