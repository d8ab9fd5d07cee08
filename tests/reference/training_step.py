"""One training step of torchvision's networks in float64: training_step/*.json, and how to rebuild what is not stored.

Each JSON holds, for one network in training mode on a seeded batch: every state_dict key with its shape, the loss
(softmax cross-entropy, mean over the batch), the gradient of every parameter and the running mean and variance of every
norm after the step, each as mean, standard deviation, largest absolute value and values at seeded places. Torch
computed them in float64; "float32_vs_float64" says how far its own float32 is from that. Weights, images and labels are
rebuilt here bit for bit with numpy alone, from torch's keys, and are float32 values in both computations.

    state, x, y, meta = load("resnet18")   # {torch key: array, torch layout}, float32 [B, *space, C], int64 [B]
    worst, key = compare(gradients, meta["gradients"], floor=1e-6)   # {torch key: array, torch layout}

A bias that a convolution without padding and a norm follow has a gradient of 0 but for rounding. Differences are
therefore relative to the largest value of their own array, or to a floor where that is more.

To write the files anew, with a python that has torch and torchvision: python tests/reference/training_step.py
"""

import json
import math
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "training_step"
SEED, BATCH, SIZE, CLASSES, SAMPLES = 0, 4, 64, 10, 32
NETWORKS = {"resnet18": {}, "densenet121": {}, "mobilenet_v2": {"dropout": 0.0}}
"""torchvision's names and the arguments that differ from its defaults."""

ROUGH_FLOOR = 0.1
"""The floor of "float32_vs_float64": in float32, gradients of 0 have noise of 3e-5 of the largest gradient."""


def names():
    """Every network that has a reference."""
    return sorted(p.stem for p in FOLDER.glob("*.json"))


def load(name):
    """(state dict in torch layout, channel-last images, labels, the whole JSON) of one reference."""
    meta = json.loads((FOLDER / f"{name}.json").read_text())
    state = {key: tensor(key, tuple(shape)) for key, shape in meta["tensors"].items()}
    return state, images(), labels(), meta


def tensor(key, shape):
    """A float32 value for a torch key: kernels of He scale, scales and variances in [0.5, 1.5), the rest around 0."""
    random = _random(key)
    if key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
        return random.random(shape, dtype=np.float32) + np.float32(0.5)
    scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
    return random.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def images():
    """Noise, float32 `[B, height, width, 3]`."""
    return _random("images").standard_normal((BATCH, SIZE, SIZE, 3), dtype=np.float32)


def labels():
    """Classes, int64 `[B]`."""
    return _random("labels").integers(0, CLASSES, BATCH)


def describe(value):
    """What is stored of an array: statistics, and values at seeded places."""
    flat = np.asarray(value, np.float64).reshape(-1)
    return {
        "mean": float(flat.mean()),
        "std": float(flat.std()),
        "absmax": float(np.abs(flat).max()),
        "values": flat[_places(flat.size)].tolist(),
    }


def compare(arrays, expected, *, floor):
    """(largest difference of any array from what is stored, relative to its largest value, and its key).

    Arrays count as having a largest value of at least `floor` times the largest of all.
    """
    if set(arrays) != set(expected):
        raise ValueError(f"other keys than the reference's: {sorted(set(arrays) ^ set(expected))}")
    least = floor * max(entry["absmax"] for entry in expected.values())
    differences = {}
    for key, entry in expected.items():
        found = describe(arrays[key])
        worst = np.abs(np.subtract(found.pop("values"), entry["values"])).max()
        worst = max(worst, *(abs(value - entry[statistic]) for statistic, value in found.items()))
        differences[key] = float(worst / max(entry["absmax"], least))
    worst = max(differences, key=differences.get)
    return differences[worst], worst


def _places(size):
    return np.sort(_random(f"places in {size}").choice(size, min(SAMPLES, size), replace=False))


def _random(key):
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"{SEED}:{key}".encode())))


def _step(network, dtype):
    """(loss, {parameter: gradient}, {running statistic: value}) of a step of a torch network, and its state before."""
    import torch

    state = {key: tensor(key, tuple(value.shape)) for key, value in _floats(network.state_dict())}
    network.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=False)
    network = network.to(dtype).train()
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images(), -1, 1))).to(dtype)  # [B, H, W, C] -> [B, C, H, W]
    loss = torch.nn.functional.cross_entropy(network(x), torch.from_numpy(labels()))
    loss.backward()
    gradients = {key: value.grad.numpy() for key, value in network.named_parameters()}
    after = {key: value.numpy() for key, value in _floats(network.state_dict()) if ".running_" in key}
    return float(loss.detach()), gradients, after, state


def _floats(state):
    return [(key, value) for key, value in state.items() if not key.endswith("num_batches_tracked")]


def _torchvision():
    """torchvision, also where its compiled operators, which no classifier needs, do not fit torch."""
    import torch

    register = torch.library.register_fake

    def skip(name, *arguments, **options):
        if str(name).startswith("torchvision::"):
            return lambda function: function
        return register(name, *arguments, **options)

    torch.library.register_fake = skip
    try:
        import torchvision
    finally:
        torch.library.register_fake = register
    return torchvision


def main():
    """Writes all references."""
    import torch

    torchvision = _torchvision()
    FOLDER.mkdir(exist_ok=True)
    for name, arguments in NETWORKS.items():
        build = lambda: getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **arguments)
        loss, gradients, statistics, state = _step(build(), torch.float64)
        rough_loss, rough_gradients, rough_statistics, _ = _step(build(), torch.float32)
        meta = {
            "network": name,
            "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__},
            "tensors": {key: list(value.shape) for key, value in state.items()},
            "loss": loss,
            "gradients": {key: describe(value) for key, value in gradients.items()},
            "statistics": {key: describe(value) for key, value in statistics.items()},
        }
        meta["float32_vs_float64"] = {
            "loss": abs(rough_loss - loss) / abs(loss),
            "gradients": compare(rough_gradients, meta["gradients"], floor=ROUGH_FLOOR)[0],
            "statistics": compare(rough_statistics, meta["statistics"], floor=ROUGH_FLOOR)[0],
        }
        (FOLDER / f"{name}.json").write_text(json.dumps(meta, separators=(",", ":")) + "\n")
        print(name, loss, meta["float32_vs_float64"])


if __name__ == "__main__":
    main()
