"""Wrote `pth/` and `preprocess.npz` with torch 2.13 and torchvision 0.28: `python make_weight_files.py` in their environment.

The tests need neither: they compare with what is stored. Tensors of many types, views of shared storages and a module's
state dict, each as torch's archive, as the format before 1.6 and with pickle protocol 4; their values are in .npz files
(bfloat16 as its bits). Images, and what torchvision's ImageClassification preset makes of them, as integers.
"""

import collections
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent
TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
IMAGES = [  # (height, width), shortest side, crop, interpolation
    ((37, 53), 29, 24, "bilinear"),
    ((37, 53), 29, 24, "bicubic"),
    ((50, 31), 29, 23, "bicubic"),
    ((20, 33), 20, 20, "bilinear"),
    ((21, 40), 25, 32, "bilinear"),
    ((9, 11), 12, 12, "bicubic"),
]


def write_pth(out):
    import torch

    torch.manual_seed(0)
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = collections.OrderedDict((n, (torch.arange(6) * 3 % 5).to(getattr(torch, n)).reshape(2, 3)) for n in TYPES)
    state["transposed"] = base.permute(2, 0, 1)
    state["strided"] = base[:, 1:, ::2]
    state["shared_whole"] = base
    state["shared_row"] = base[1, 2]
    state["scalar"] = torch.tensor(7)
    state["empty"] = torch.zeros(0, 3)
    state["parameter"] = torch.nn.Parameter(torch.full((2,), 0.5))
    values = {}
    for key, value in state.items():
        value = value.detach()
        bits = value.dtype == torch.bfloat16
        values[key] = value.view(torch.int16).numpy().astype(np.uint16) if bits else value.contiguous().numpy()
    np.savez_compressed(out / "values.npz", **values)
    torch.save(state, out / "many_types.pth")
    torch.save(state, out / "many_types_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state, out / "many_types_protocol4.pth", pickle_protocol=4)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    weights = net.state_dict()
    torch.save(weights, out / "module.pth")
    torch.save(weights, out / "module_legacy.pth", _use_new_zipfile_serialization=False)
    np.savez_compressed(out / "module.npz", **{key: value.numpy() for key, value in weights.items()})
    optimizer = {"state": {}, "param_groups": [{"params": [0, 1], "betas": (0.9, 0.999)}]}
    parallel = {f"module.{key}": value for key, value in weights.items()}
    checkpoint = {"epoch": 3, "lr": 0.1, "note": None, "state_dict": parallel, "optimizer": optimizer}
    torch.save(checkpoint, out / "checkpoint.pth")
    torch.save(net, out / "whole_module.pth")


def write_images(path):
    from PIL import Image
    from torchvision.transforms._presets import ImageClassification
    from torchvision.transforms.functional import InterpolationMode

    rng, out = np.random.default_rng(0), {}
    for index, ((height, width), resize, crop, mode) in enumerate(IMAGES):
        y, x = np.mgrid[:height, :width]
        waves = [127 + 100 * np.sin(x / 3.1) * np.cos(y / 5), y * 255 / height, x * 255 / width]
        image = (np.stack(waves, -1) + rng.normal(0, 8, (height, width, 3))).clip(0, 255).astype(np.uint8)
        preset = ImageClassification(crop_size=crop, resize_size=resize, interpolation=InterpolationMode(mode))
        value = preset(Image.fromarray(image)).permute(1, 2, 0).numpy()
        out[f"image{index}"] = image
        # Back to integers, exactly, so that the file is small.
        pixels = (value * np.float32(preset.std) + np.float32(preset.mean)) * 255
        out[f"expected{index}"] = np.rint(pixels).astype(np.uint8)
        if index == 0:
            out["normalised0"] = value[:4, :4]
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    write_pth(FOLDER / "pth")
    write_images(FOLDER / "preprocess.npz")
