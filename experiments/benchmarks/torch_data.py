"""The peer of the data benchmark: PyTorch's DataLoader, which augments each image by itself, in its own environment.

Images are uint8 tensors in memory; batches are float32 `[B, C, H, W]`. One JSON object a line comes in and one goes
out, see `cnn_jax/benchmark/data_worker.py`.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

try:
    from torchvision.transforms import v2
except (ImportError, RuntimeError):  # not there, or of another torch
    v2 = None

PREFETCH = 2
"""DataLoader's default: batches of each process that are made before they are asked for."""


class Images(Dataset):
    """Labelled images with an augmentation."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, augment: Callable[[torch.Tensor], torch.Tensor]):
        self._images, self._labels, self._augment = images, labels, augment

    def __len__(self) -> int:
        """How many there are."""
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Float32 `[C, H, W]`, and the class."""
        return self._augment(self._images[index]), self._labels[index]


def plain(row: dict) -> Callable[[torch.Tensor], torch.Tensor]:
    """Crop of the padded image, flip and normalisation in as few operations as torch allows."""
    padding, size = row["padding"], row["image"][0]
    scale, shift = 1 / (255 * row["std"]), -row["mean"] / row["std"]

    def augment(image: torch.Tensor) -> torch.Tensor:
        top, left = random.randint(0, 2 * padding), random.randint(0, 2 * padding)
        padded = functional.pad(image, (padding, padding, padding, padding))
        crop = padded[:, top : top + size, left : left + size]
        return (crop.flip(2) if random.random() < 0.5 else crop).float().mul_(scale).add_(shift)

    return augment


def torchvision(row: dict) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same by torchvision's transforms."""
    channels = row["image"][-1]
    return v2.Compose(
        [
            v2.RandomCrop(row["image"][0], padding=row["padding"]),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([row["mean"]] * channels, [row["std"]] * channels),
        ]
    )


AUGMENTATIONS = {"torch": plain} if v2 is None else {"torch": plain, "torchvision": torchvision}
WORKERS = (0, 2)
VARIANTS = {f"{name}, {workers} workers": (name, workers) for name in AUGMENTATIONS for workers in WORKERS}


def make_batches(row: dict, variant: str) -> Iterator[list[torch.Tensor]]:
    """Batches without end, each epoch in another order."""
    name, workers = VARIANTS[variant]
    height, width, channels = row["image"]
    images = torch.randint(0, 256, (row["examples"], channels, height, width), dtype=torch.uint8)
    labels = torch.randint(0, 10, (row["examples"],))
    loader = DataLoader(
        Images(images, labels, AUGMENTATIONS[name](row)),
        batch_size=row["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
    )
    while True:
        yield from loader


def main() -> None:
    """Answer requests until the standard input ends."""
    prepared: dict[str, Iterator[list[torch.Tensor]]] = {}
    torch.set_num_threads(int(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict = {}
        started = time.perf_counter()
        if request["do"] == "describe":
            answer["examples"] = request["row"]["batch_size"]
            answer["versions"] = {"torch": torch.__version__}
            answer["variants"] = list(VARIANTS)
        elif request["do"] == "prepare":
            batches = prepared[request["variant"]] = make_batches(request["row"], request["variant"])
            for _ in range(request["warm_up"]):
                next(batches)
            answer["seconds"] = time.perf_counter() - started
        elif request["do"] == "sample":
            sample, labels = next(prepared[request["variant"]])
            answer = {"shape": [*sample.permute(0, 2, 3, 1).shape], "type": str(sample.dtype).removeprefix("torch.")}
            answer |= {"mean": float(sample.mean()), "std": float(sample.std()), "labels": len(labels)}
        else:
            batches = prepared[request["variant"]]
            for _ in range(PREFETCH * VARIANTS[request["variant"]][1]):
                next(batches)  # made in the other side's time, so not counted
            started = time.perf_counter()
            for _ in range(request["steps"]):
                next(batches)
            answer["seconds"] = time.perf_counter() - started
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
