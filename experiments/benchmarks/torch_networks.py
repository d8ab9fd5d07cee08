"""The benchmarked networks in plain torch: the same parameters, layer by layer, as the models of cnn_jax by that name.

Runs in the peer's own environment, so it imports nothing but torch. Sources: torchvision's ResNet and MobileNetV2, and
the papers named in `cnn_jax.models`.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional


def lenet5(*, num_classes: int, in_channels: int) -> nn.Module:
    """LeNet-5 with tanh and average pools, for 28×28 images."""
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, num_classes)),
    )


def classic_stack(
    *, num_classes: int, in_channels: int, image: tuple[int, int] = (32, 32), dense: tuple[int, ...] = (64,)
) -> nn.Module:
    """Two 3×3 convolutions of 32 and 64 channels, each with ReLU and a 2×2 max pool, and dense layers."""
    layers: list[nn.Module] = [
        *(nn.Conv2d(in_channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
    ]
    height, width = (((size - 2) // 2 - 2) // 2 for size in image)
    features = 64 * height * width
    for size in dense:
        layers += [nn.Linear(features, size), nn.ReLU()]
        features = size
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


class PooledHead(nn.Module):
    """Average over space, then dropout and a dense layer."""

    def __init__(self, features: int, num_classes: int, dropout: float = 0.0):
        super().__init__()
        self.dropout, self.output = nn.Dropout(dropout), nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to logits."""
        return self.output(self.dropout(x.mean((2, 3))))


def conv_norm(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, padded to keep the size, and batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """`relu(body(x) + shortcut(x))`; shortcut A subsamples and appends zero channels, B projects."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, *, stride: int, shortcut: str):
        super().__init__()
        self.body, self.stride, self.extra = body, stride, outputs - inputs
        changes = stride != 1 or inputs != outputs
        self.project = conv_norm(inputs, outputs, 1, stride=stride) if changes and shortcut == "B" else None

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, D, H / stride, W / stride]`."""
        if self.project is not None:
            short = self.project(x)
        elif self.extra:
            short = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        else:
            short = x
        return functional.relu(self.body(x) + short)


def resnet_cifar(*, num_classes: int, in_channels: int, depth: int = 20) -> nn.Module:
    """He et al. 2016, Section 4.2, with option A; of the depth, 2 layers are none of the three stages' blocks of 2."""
    layers: list[nn.Module] = [conv_norm(in_channels, 16, 3), nn.ReLU()]
    inputs = 16
    for width, first_stride in ((16, 1), (32, 2), (64, 2)):
        for stride in (first_stride, *(1,) * ((depth - 2) // 6 - 1)):
            body = nn.Sequential(conv_norm(inputs, width, 3, stride=stride), nn.ReLU(), conv_norm(width, width, 3))
            layers.append(Residual(body, inputs, width, stride=stride, shortcut="A"))
            inputs = width
    return nn.Sequential(*layers, PooledHead(inputs, num_classes))


def resnet50(*, num_classes: int, in_channels: int) -> nn.Module:
    """ResNet-50 as torchvision builds it."""
    layers: list[nn.Module] = [conv_norm(in_channels, 64, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            body = nn.Sequential(
                *(conv_norm(inputs, width, 1), nn.ReLU()),
                *(conv_norm(width, width, 3, stride=stride), nn.ReLU()),
                conv_norm(width, 4 * width, 1),
            )
            layers.append(Residual(body, inputs, 4 * width, stride=stride, shortcut="B"))
            inputs = 4 * width
    return nn.Sequential(*layers, PooledHead(inputs, num_classes))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, filter each channel, project; added to its input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        expand = [conv_norm(inputs, hidden, 1), nn.ReLU6()] if expansion != 1 else []
        filtered = [conv_norm(hidden, hidden, 3, stride=stride, groups=hidden), nn.ReLU6()]
        self.body = nn.Sequential(*expand, *filtered, conv_norm(hidden, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, D, H / stride, W / stride]`."""
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet_v2(*, num_classes: int, in_channels: int, stem: str = "imagenet", dropout_rate: float = 0.2) -> nn.Module:
    """MobileNetV2 as torchvision builds it; stem "cifar" leaves out its first two subsamplings."""
    early = 2 if stem == "imagenet" else 1
    layers: list[nn.Module] = [conv_norm(in_channels, 32, 3, stride=early), nn.ReLU6()]
    inputs = 32
    settings = ((1, 16, 1, 1), (6, 24, 2, early), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
    for expansion, outputs, blocks, first_stride in (*settings, (6, 320, 1, 1)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            layers.append(InvertedResidual(inputs, outputs, stride=stride, expansion=expansion))
            inputs = outputs
    return nn.Sequential(*layers, conv_norm(inputs, 1280, 1), nn.ReLU6(), PooledHead(1280, num_classes, dropout_rate))


class PreActivation(nn.Module):
    """The block of wide residual networks; a changed shape is projected from the activated input."""

    def __init__(self, inputs: int, outputs: int, *, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.project = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, D, H / stride, W / stride]`."""
        active = self.first(x)
        return self.body(active) + (x if self.project is None else self.project(active))


def wide_resnet28_10(*, num_classes: int, in_channels: int) -> nn.Module:
    """Zagoruyko & Komodakis 2016, WRN-28-10 without dropout."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)]
    inputs = 16
    for width, first_stride in ((160, 1), (320, 2), (640, 2)):
        for stride in (first_stride, 1, 1, 1):
            layers.append(PreActivation(inputs, width, stride=stride))
            inputs = width
    return nn.Sequential(*layers, nn.BatchNorm2d(inputs), nn.ReLU(), PooledHead(inputs, num_classes))


NETWORKS = {
    "lenet5": lenet5,
    "classic_stack": classic_stack,
    "resnet8": functools.partial(resnet_cifar, depth=8),
    "resnet20": resnet_cifar,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "wide_resnet28_10": wide_resnet28_10,
}


def build(name: str, *, seed: int = 0, **arguments) -> nn.Module:
    """The network of this name, its weights drawn from a seed."""
    torch.manual_seed(seed)
    return NETWORKS[name](**arguments)
