"""The residual and plain networks by their names in He et al. 2016: one depth each, the rest as in `resnet_presets`.

Each is a function of keyword-only arguments, so that its signature tells the config layer what it takes.
"""

from collections.abc import Callable

from cnn_jax.models.resnet_presets import resnet_cifar, resnet_imagenet
from cnn_jax.nn.heads import Classifier


def _cifar(depth: int) -> Callable[..., Classifier]:
    def build(
        *,
        num_classes: int,
        in_channels: int = 3,
        shortcut: str = "A",
        width: int = 16,
        activation: str = "relu",
        norm: str = "batch",
        zero_init_residual: bool = False,
        dropout_rate: float = 0.0,
        dtype: str = "float32",
    ) -> Classifier:
        return resnet_cifar(
            depth=depth,
            num_classes=num_classes,
            in_channels=in_channels,
            shortcut=shortcut,
            width=width,
            activation=activation,
            norm=norm,
            zero_init_residual=zero_init_residual,
            dropout_rate=dropout_rate,
            dtype=dtype,
        )

    return _named(build, f"resnet{depth}", f"`resnet_cifar` with depth {depth} (He et al. 2016, Table 6).")


def _plain(depth: int) -> Callable[..., Classifier]:
    def build(
        *,
        num_classes: int,
        in_channels: int = 3,
        width: int = 16,
        activation: str = "relu",
        norm: str = "batch",
        dropout_rate: float = 0.0,
        dtype: str = "float32",
    ) -> Classifier:
        return resnet_cifar(
            depth=depth,
            shortcut="none",
            num_classes=num_classes,
            in_channels=in_channels,
            width=width,
            activation=activation,
            norm=norm,
            dropout_rate=dropout_rate,
            dtype=dtype,
        )

    return _named(
        build, f"plain{depth}", f"`resnet_cifar` with depth {depth} and no shortcuts (He et al. 2016, Fig. 6)."
    )


def _imagenet(depth: int) -> Callable[..., Classifier]:
    def build(
        *,
        num_classes: int,
        in_channels: int = 3,
        stem: str = "imagenet",
        width: int = 64,
        activation: str = "relu",
        norm: str = "batch",
        zero_init_residual: bool = False,
        dropout_rate: float = 0.0,
        dtype: str = "float32",
    ) -> Classifier:
        return resnet_imagenet(
            depth=depth,
            num_classes=num_classes,
            in_channels=in_channels,
            stem=stem,
            width=width,
            activation=activation,
            norm=norm,
            zero_init_residual=zero_init_residual,
            dropout_rate=dropout_rate,
            dtype=dtype,
        )

    return _named(build, f"resnet{depth}", f"`resnet_imagenet` with depth {depth} (He et al. 2016, Table 1).")


def _named(build: Callable[..., Classifier], name: str, summary: str) -> Callable[..., Classifier]:
    build.__name__ = build.__qualname__ = name
    build.__doc__ = summary
    return build


resnet20 = _cifar(20)
resnet32 = _cifar(32)
resnet44 = _cifar(44)
resnet56 = _cifar(56)
resnet110 = _cifar(110)
resnet1202 = _cifar(1202)

plain20 = _plain(20)
plain32 = _plain(32)
plain44 = _plain(44)
plain56 = _plain(56)
plain110 = _plain(110)

resnet18 = _imagenet(18)
resnet34 = _imagenet(34)
resnet50 = _imagenet(50)
resnet101 = _imagenet(101)
resnet152 = _imagenet(152)
