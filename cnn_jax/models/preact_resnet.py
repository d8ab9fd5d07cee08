"""Pre-activation residual networks: He et al. 2016b, "Identity mappings in deep residual networks".

The block and the backbone, which the wide residual networks share, and the published networks.
"""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.models import resnet
from cnn_jax.models.resnet_presets import DEPTHS
from cnn_jax.nn.activation import activation_layer, require_activation
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_stages
from cnn_jax.nn.conv import Conv, he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS, norm_layer
from cnn_jax.nn.pool import MaxPool
from cnn_jax.nn.remat import run_stage

BLOCKS = {**resnet.BLOCKS, "bottleneck_2016": ((1, True, 1), (3, False, 1), (1, False, 4))}
"""Convolutions of a block, as in `resnet.BLOCKS`; "bottleneck_2016" subsamples first, as the authors' code does."""


class PreActivationBlock(nn.Module):
    """Norm, activation and convolution, two or three times, added to the input: Fig. 4(e), "full pre-activation".

    Parameters lie under `norm1`, `conv1`, `norm2`, `conv2`, ... and, where the shape changes, `shortcut`: a 1×1
    convolution of the activated input, as in the authors' code.

    Attributes:
      kind: a key of `BLOCKS`.
      features: the block's channels; a bottleneck has four times as many in its output.
      stride: of the block.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dropout_rate: share of the values before the last convolution that training sets to 0 (Zagoruyko & Komodakis
        2016, Section 2.4).
      dtype: compute type.
    """

    kind: str
    features: int
    stride: int
    activation: str
    norm: str
    dropout_rate: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out D"]:
        """Maps `[B, *space, C]` to `[B, *out, D]`, ceil(n / stride) pixels per axis."""
        conv = functools.partial(Conv, use_bias=self.norm == "none", dtype=self.dtype, kernel_init=he_fan_out)
        layers = BLOCKS[self.kind]
        y = active = x
        for i, (kernel_size, strided, expansion) in enumerate(layers, start=1):
            y = norm_layer(self.norm, dtype=self.dtype, name=f"norm{i}")(y, train=train)
            y = activation_layer(self.activation, name=f"act{i}")(y)
            if i == 1:
                active = y
            if i == len(layers):
                y = nn.Dropout(self.dropout_rate, name="dropout")(y, deterministic=not train)
            stride = self.stride if strided else 1
            y = conv(self.features * expansion, kernel_size, stride=stride, name=f"conv{i}")(y)
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            x = conv(y.shape[-1], 1, stride=self.stride, name="shortcut")(active)
        return x + y


class PreActivationResNet(nn.Module):
    """A convolution, stages of pre-activation blocks, and a norm and an activation behind them (the appendix).

    Returns `{"stem": ..., "stage1": ..., "stage2": ..., ..., "final": ...}`; "stem" is taken before norm, activation
    and max pool, "final" is the last stage normalised and activated. Strides, in pixels of the input: stem "imagenet"
    2, then 4, 8, 16, 32, final 32; stem "cifar" 1, then 1, 2, 4, ..., final as the last stage. An axis of n pixels
    becomes ceil(n / stride). Stage i has `width * 2 ** (i - 1)` channels, times four with bottlenecks.

    Attributes:
      block: a key of `BLOCKS`.
      stage_sizes: blocks per stage.
      stem: a key of `resnet.STEMS`.
      stem_channels: of the first convolution.
      width: channels of the first stage's blocks.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dropout_rate: within the blocks.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass.
    """

    block: str
    stage_sizes: tuple[int, ...]
    stem: str
    stem_channels: int
    width: int
    activation: str
    norm: str
    dropout_rate: float
    dtype: str
    remat: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        kernel_size, stride = resnet.STEMS[self.stem]
        x = Conv(
            self.stem_channels,
            kernel_size,
            stride=stride,
            use_bias=self.norm == "none",
            dtype=self.dtype,
            kernel_init=he_fan_out,
            name="stem",
        )(x)
        maps = {"stem": x}
        if self.stem == "imagenet":
            x = MaxPool(window=3, stride=2, padding=1, name="pool")(x)
        for i, blocks in enumerate(self.stage_sizes, start=1):
            name = f"stage{i}"
            make_block = functools.partial(
                PreActivationBlock,
                kind=self.block,
                features=self.width * 2 ** (i - 1),
                activation=self.activation,
                norm=self.norm,
                dropout_rate=self.dropout_rate,
                dtype=self.dtype,
            )
            stage = resnet.Stage(blocks, stride=1 if i == 1 else 2, make_block=make_block, name=name)
            maps[name] = x = run_stage(stage, x, train=train, remat=name in self.remat)
        x = norm_layer(self.norm, dtype=self.dtype, name="norm")(x, train=train)
        maps["final"] = activation_layer(self.activation, name="act")(x)
        return maps


def preact_resnet_cifar(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 164,
    width: int = 16,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """The networks for small images (Table 4: ResNet-164, ResNet-1001): three stages of bottlenecks.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`, for any number of space axes. Strides: stem 1, stages
    1, 2 and 4. A stage's first 1×1 convolution subsamples, as in the authors' code (resnet-pre-act.lua), and kernels
    start as there (He et al. 2015, Eq. 14, fan-out). With ten classes, depth 164 has 1,703,258 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: layers with weights, 9n + 2, all in bottlenecks; the paper's ResNet-110 has basic blocks instead.
      width: channels of the stem and the first stage's blocks; stages have four times, eight times and sixteen times as
        many in their outputs.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", "stage2" and "stage3"; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    if depth < 11 or (depth - 2) % 9:
        raise UserError(f"depth is {depth}; it must be 9n + 2 with n of 1 or more: 11, 20, 29, 56, 164, 1001, ...")
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        block="bottleneck_2016",
        stage_sizes=((depth - 2) // 9,) * 3,
        stem="cifar",
        width=width,
        activation=activation,
        norm=norm,
        dropout_rate=dropout_rate,
        dtype=dtype,
        remat=remat,
    )


def resnetv2(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 50,
    stem: str = "imagenet",
    width: int = 64,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """The networks for ImageNet (Section 5, Table 5), as timm builds them, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Strides: stem 2, stages 4, 8, 16 and 32; with stem
    "cifar" 1, and 1, 2, 4 and 8. A bottleneck has its stride on the 3×3 convolution. Kernels start as He et al. 2015
    (Eq. 14, fan-out). With 1000 classes, depth 50 has 25,549,352 parameters. Load timm's with
    `weights.convert("resnetv2_50", state)`.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: 18, 34 (basic blocks), 14, 26, 50, 101 or 152 (bottlenecks).
      stem: "imagenet" (7×7 of stride 2, 3×3 max pool of stride 2) or "cifar" (3×3 of stride 1).
      width: channels of the stem and the first stage's blocks.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: a key of `nn.norm.NORMS`.
      dropout_rate: share of the pooled features that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", ..., "stage4"; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    if depth not in DEPTHS:
        raise UserError(f"depth is {depth}; it must be one of {', '.join(map(str, DEPTHS))}")
    require_known("stem", stem, resnet.STEMS)
    block, stage_sizes = DEPTHS[depth]
    return _classifier(
        num_classes=num_classes,
        in_channels=in_channels,
        block=block,
        stage_sizes=stage_sizes,
        stem=stem,
        width=width,
        activation=activation,
        norm=norm,
        dropout_rate=dropout_rate,
        dtype=dtype,
        remat=remat,
    )


def _classifier(
    *,
    num_classes: int,
    in_channels: int,
    block: str,
    stage_sizes: tuple[int, ...],
    stem: str,
    width: int,
    activation: str,
    norm: str,
    dropout_rate: float,
    dtype: str,
    remat: tuple[str, ...],
) -> Classifier:
    """Checks what both families share and builds the network."""
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_positive("width", width)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    require_stages(remat, (f"stage{i}" for i in range(1, len(stage_sizes) + 1)))
    return Classifier(
        backbone=PreActivationResNet(
            block=block,
            stage_sizes=stage_sizes,
            stem=stem,
            stem_channels=width,
            width=width,
            activation=activation,
            norm=norm,
            dropout_rate=0.0,
            dtype=dtype,
            remat=tuple(remat),
        ),
        head=PooledHead(num_classes=num_classes, dropout_rate=dropout_rate),
        in_channels=in_channels,
    )
