"""The peer of the study benchmark: one run of configs/quickstart.py's network in plain torch, with its recipe.

ResNet-8 (75,002 parameters), SGD with Nesterov's momentum 0.9 and decay 5e-4 of all parameters, one cycle of the rate,
label smoothing 0.1, crops from one pixel of zero padding, validation ten times, test accuracy at the end. Images are
uint8 arrays on disk, and lie on the device from the start.
"""

import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch_networks
from torch.nn import functional

PADDING = 1
EVALUATION_BATCH = 512


def main(known: argparse.Namespace) -> None:
    """Train and print the result as JSON.

    Args:
      known: `folder` with `{train,validation,test}_{images,labels}.npy`, and the options below.
    """
    started = time.perf_counter()
    torch.manual_seed(known.seed)
    memory_format = torch.channels_last if known.layout == "channels_last" else torch.contiguous_format
    splits = {}
    for split in ("train", "validation", "test"):
        images, labels = (np.load(known.folder / f"{split}_{kind}.npy") for kind in ("images", "labels"))
        # [N, H, W, C] -> [N, C, H, W]
        images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        splits[split] = images.to(known.device), torch.from_numpy(labels).long().to(known.device)
    images, labels = splits["train"]
    shares = images.double() / 255.0
    mean, std = shares.mean().float(), shares.std(correction=0).float()
    network = torch_networks.build("resnet8", seed=known.seed, num_classes=10, in_channels=1)
    network = network.to(device=known.device, memory_format=memory_format)
    rate = known.learning_rate
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    total = max(1, round(known.epochs * len(labels) / known.batch_size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=total, cycle_momentum=False)

    def normalise(images: torch.Tensor) -> torch.Tensor:
        return ((images.float() / 255.0 - mean) / std).contiguous(memory_format=memory_format)

    def accuracy(split: str) -> float:
        images, labels = splits[split]
        network.eval()
        with torch.inference_mode():
            parts = zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True)
            right = sum(int((network(normalise(x)).argmax(1) == y).sum()) for x, y in parts)
        network.train()
        return right / len(labels)

    order = torch.cat([torch.randperm(len(labels)) for _ in range(math.ceil(known.epochs) + 1)]).to(known.device)
    evaluate_every, validation = math.ceil(total / 10), math.nan
    for step in range(total):
        index = order[step * known.batch_size : (step + 1) * known.batch_size]
        optimizer.zero_grad(set_to_none=True)
        logits = network(normalise(crop(images[index])))
        functional.cross_entropy(logits, labels[index], label_smoothing=0.1).backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % evaluate_every == 0 or step + 1 == total:
            validation = accuracy("validation")
    result = {
        "validation": validation,
        "accuracy": accuracy("test"),
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": time.perf_counter() - started,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


def crop(images: torch.Tensor) -> torch.Tensor:
    """A window of each image, `[B, C, H, W]`, at a random place of the image with its padding."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (PADDING,) * 4)
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count, 1, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)[:, None]  # [B, H, 1]
    columns = left + torch.arange(width, device=images.device)  # [B, 1, W]
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, :, rows, columns].permute(0, 3, 1, 2)  # [B, H, W, C] -> [B, C, H, W]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--epochs", type=float, default=30.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--layout", choices=("eager", "channels_last"), default="eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    main(known)
