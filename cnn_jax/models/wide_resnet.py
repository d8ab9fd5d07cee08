"""Wide residual networks: Zagoruyko & Komodakis 2016, "Wide residual networks"."""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.errors import UserError
from cnn_jax.models.resnet import Stage
from cnn_jax.nn.activation import activation_layer, require_activation
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_stages
from cnn_jax.nn.conv import Conv, he_fan_out
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS, norm_layer
from cnn_jax.nn.remat import run_stage

STEM_CHANNELS = 16
STAGES = ("stage1", "stage2", "stage3")


class PreActivationBlock(nn.Module):
    """Norm, activation and convolution, twice, added to the input: B(3,3) of Section 2, as He et al. 2016b order it.

    Parameters lie under `norm1`, `conv1`, `norm2`, `conv2` and, where the number of channels changes, `shortcut`: a
    1×1 convolution of the activated input, as in the authors' code.

    Attributes:
      features: output channels.
      stride: of the first convolution.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`.
      dropout_rate: share of the values between the convolutions that training sets to 0 (Section 2.4).
      dtype: compute type.
    """

    features: int
    stride: int
    activation: str
    norm: str
    dropout_rate: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, ceil(n / stride) pixels per axis."""
        conv = functools.partial(
            Conv, self.features, use_bias=self.norm == "none", dtype=self.dtype, kernel_init=he_fan_out
        )
        active = norm_layer(self.norm, dtype=self.dtype, name="norm1")(x, train=train)
        active = activation_layer(self.activation, name="act1")(active)
        y = conv(3, stride=self.stride, name="conv1")(active)
        y = norm_layer(self.norm, dtype=self.dtype, name="norm2")(y, train=train)
        y = activation_layer(self.activation, name="act2")(y)
        y = nn.Dropout(self.dropout_rate, name="dropout")(y, deterministic=not train)
        y = conv(3, name="conv2")(y)
        if x.shape[-1] != self.features or self.stride != 1:
            x = conv(1, stride=self.stride, name="shortcut")(active)
        return x + y


class WideResNet(nn.Module):
    """A convolution, three stages of pre-activation blocks, and a norm and an activation behind them (Table 1).

    Returns `{"stem": ..., "stage1": ..., "stage2": ..., "stage3": ..., "final": ...}`, strides 1, 1, 2, 4 and 4;
    "final" is "stage3" normalised and activated.

    Attributes:
      blocks: per stage.
      width: channels of the first stage; the others have two and four times as many.
      activation: a key of `ACTIVATIONS`.
      norm: a key of `NORMS`; with "none" the convolutions have biases.
      dropout_rate: within the blocks.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass.
    """

    blocks: int
    width: int
    activation: str
    norm: str
    dropout_rate: float
    dtype: str
    remat: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        x = Conv(
            STEM_CHANNELS,
            3,
            use_bias=self.norm == "none",
            dtype=self.dtype,
            kernel_init=he_fan_out,
            name="stem",
        )(x)
        maps = {"stem": x}
        for i, name in enumerate(STAGES):
            make_block = functools.partial(
                PreActivationBlock,
                features=self.width * 2**i,
                activation=self.activation,
                norm=self.norm,
                dropout_rate=self.dropout_rate,
                dtype=self.dtype,
            )
            stage = Stage(self.blocks, stride=1 if i == 0 else 2, make_block=make_block, name=name)
            maps[name] = x = run_stage(stage, x, train=train, remat=name in self.remat)
        x = norm_layer(self.norm, dtype=self.dtype, name="norm")(x, train=train)
        maps["final"] = activation_layer(self.activation, name="act")(x)
        return maps


def wide_resnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    depth: int = 28,
    widening: int = 10,
    activation: str = "relu",
    norm: str = "batch",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
    remat: tuple[str, ...] = (),
) -> Classifier:
    """WRN-depth-widening for small images, for any number of space axes.

    Input `[B, *space, in_channels]`, logits `[B, num_classes]`. Strides: stem 1, stages 1, 2 and 4. Kernels start as He
    et al. 2015 (Eq. 14, fan-out, as in the authors' Lua code). With ten classes WRN-28-10 has 36,479,194 parameters.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      depth: 6n + 4: the stem, three stages of n blocks of two convolutions, and a projection for each stage, which
        counts also where k = 1 needs none in the first.
      widening: k; the stages have 16k, 32k and 64k channels.
      activation: a key of `nn.activation.ACTIVATIONS`.
      norm: "batch", "group", "layer" or "none".
      dropout_rate: share of the values between a block's convolutions that training sets to 0; in the paper 0.3 on
        CIFAR, 0.4 on SVHN.
      dtype: compute type, "float32" or "bfloat16".
      remat: stages to compute again in the backward pass, of "stage1", "stage2" and "stage3"; see `nn.remat`.

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    if depth < 10 or (depth - 4) % 6:
        raise UserError(f"depth is {depth}; it must be 6n + 4 with n of 1 or more: 10, 16, 22, 28, 34, 40, ...")
    require_positive("widening", widening)
    require_activation(activation)
    require_known("norm", norm, NORMS)
    require_stages(remat, STAGES)
    return Classifier(
        backbone=WideResNet(
            blocks=(depth - 4) // 6,
            width=STEM_CHANNELS * widening,
            activation=activation,
            norm=norm,
            dropout_rate=dropout_rate,
            dtype=dtype,
            remat=tuple(remat),
        ),
        head=PooledHead(num_classes=num_classes),
        in_channels=in_channels,
    )
