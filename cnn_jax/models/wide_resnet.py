"""Wide residual networks: Zagoruyko & Komodakis 2016, "Wide residual networks"."""

from cnn_jax.errors import UserError
from cnn_jax.models.preact_resnet import PreActivationResNet
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.checks import require_classifier, require_known, require_positive, require_stages
from cnn_jax.nn.heads import Classifier, PooledHead
from cnn_jax.nn.norm import NORMS

STEM_CHANNELS = 16
STAGES = ("stage1", "stage2", "stage3")


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
      norm: a key of `nn.norm.NORMS`.
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
        # Blocks B(3,3) of Section 2 in the order of He et al. 2016b: Table 1.
        backbone=PreActivationResNet(
            block="basic",
            stage_sizes=((depth - 4) // 6,) * len(STAGES),
            stem="cifar",
            stem_channels=STEM_CHANNELS,
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
