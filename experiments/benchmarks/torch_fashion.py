"""The peer of the command benchmark: Fashion-MNIST from start to finish in plain torch, with the recipe of our config.

The classic stack (34,826 parameters), Adam at 2e-3 with half an epoch of linear warm-up and a cosine to zero, random
flips, batch 128, validation ten times, test accuracy at the end. Images are uint8 arrays on disk and stay in memory.
"""

import json
import math
import pathlib
import sys

import numpy as np
import torch
import torch_networks
from torch.nn import functional


def main(folder: pathlib.Path, epochs: int, layout: str) -> None:
    """Train and print the result as JSON.

    Args:
      folder: has `{train,validation,test}_{images,labels}.npy`.
      epochs: how many.
      layout: "eager" or "channels_last".
    """
    torch.manual_seed(0)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    splits = {}
    for split in ("train", "validation", "test"):
        images, labels = (np.load(folder / f"{split}_{kind}.npy") for kind in ("images", "labels"))
        # [N, H, W, C] -> [N, C, H, W]
        splits[split] = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels).long()
    images, labels = splits["train"]
    counts = torch.bincount(images.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64) / 255.0
    mean = (counts @ levels / counts.sum()).float()
    std = ((counts @ levels**2 / counts.sum()) - mean**2).sqrt().float()
    network = torch_networks.build("classic_stack", num_classes=10, in_channels=1, image=(28, 28), dense=())
    network = network.to(memory_format=memory_format)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    total = math.ceil(epochs * len(labels) / 128)
    warm_up = len(labels) // 256

    def rate(step: int) -> float:
        if step < warm_up:
            return step / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    def normalise(images: torch.Tensor) -> torch.Tensor:
        return ((images.float() / 255.0 - mean) / std).contiguous(memory_format=memory_format)

    def accuracy(split: str) -> float:
        images, labels = splits[split]
        network.eval()
        with torch.inference_mode():
            parts = zip(images.split(512), labels.split(512), strict=True)
            right = sum(int((network(normalise(x)).argmax(1) == y).sum()) for x, y in parts)
        network.train()
        return right / len(labels)

    order = torch.cat([torch.randperm(len(labels)) for _ in range(epochs + 1)])
    for step in range(total):
        index = order[step * 128 : (step + 1) * 128]
        batch = images[index]
        flip = torch.rand(len(index)) < 0.5
        batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)  # [B] -> [B, 1, 1, 1]
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(normalise(batch)), labels[index]).backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % math.ceil(total / 10) == 0:
            accuracy("validation")
    parameters = sum(p.numel() for p in network.parameters())
    print(json.dumps({"accuracy": accuracy("test"), "parameters": parameters, "torch": torch.__version__}))


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
