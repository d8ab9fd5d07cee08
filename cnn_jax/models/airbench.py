"""The network that trains to 94 % on CIFAR-10 in seconds: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds".

Layers and constants are those of airbench94_muon.py in https://github.com/KellerJordan/cifar10-airbench.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cnn_jax.errors import UserError
from cnn_jax.nn.activation import ACTIVATIONS
from cnn_jax.nn.checks import require_classifier, require_positive
from cnn_jax.nn.conv import Conv, he_fan_in
from cnn_jax.nn.heads import Classifier
from cnn_jax.nn.norm import BatchNorm
from cnn_jax.nn.pool import MaxPool
from cnn_jax.nn.window import require_output
from cnn_jax.ops.channels import over_channels
from cnn_jax.ops.conv import convolve

WHITENING_WINDOW = 2


def partial_identity(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Kernels `[*window, C, F]` whose first min(C, F) outputs are copies of the inputs ("Dirac"; Section 3.2).

    The other outputs start as torch's convolutions do, uniform in ±1 / √fan-in.

    Args:
      key: of the uniform part.
      shape: `(*window, C, F)`.

    Example:
      >>> partial_identity(jax.random.key(0), (3, 1, 2))[:, 0, 0].tolist()
      [0.0, 1.0, 0.0]
    """
    *window, channels, features = shape
    limit = 1 / math.sqrt(channels * math.prod(window))
    kernel = jax.random.uniform(key, shape, jnp.float32, -limit, limit)
    copies = min(channels, features)
    centre = tuple(size // 2 for size in window)
    kernel = kernel.at[..., :copies].set(0.0)
    return kernel.at[(*centre, jnp.arange(copies), jnp.arange(copies))].set(1.0)


def unit_deviation() -> nn.initializers.Initializer:
    """Uniform around 0, divided by the deviation of the drawn values: how airbench starts its last layer."""

    def initialise(key, shape, dtype=jnp.float32, out_sharding=None):
        del out_sharding  # Flax passes it to every initializer.
        kernel = jax.random.uniform(key, shape, dtype, -1.0, 1.0)
        return kernel / jnp.std(kernel, ddof=1)

    return initialise


class Whitening(nn.Module):
    """A valid 2×2 convolution with fixed filters, 2 · 4 · C of them, and a trained bias.

    Parameters: `kernel`, float32 `[2, ..., C, F]`, which gets no gradient, and `bias` `[F]`. The filters are made of
    training images by `train.initialise.whitening`; freeze them with a parameter group, since weight decay needs no
    gradient.

    Attributes:
      dtype: compute type.
    """

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"]) -> Float[Array, "B *out F"]:
        """Maps `[B, *space, C]` to `[B, *out, F]`, one pixel less along each axis."""
        rank, channels = x.ndim - 2, x.shape[-1]
        window = (WHITENING_WINDOW,) * rank
        require_output("/".join(self.path), x.shape[1:-1], window, "valid")
        features = 2 * channels * WHITENING_WINDOW**rank
        kernel = jax.lax.stop_gradient(self.param("kernel", he_fan_in, (*window, channels, features)))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        pads = ((0, 0),) * rank
        y = convolve(
            x.astype(self.dtype), kernel.astype(self.dtype), stride=(1,) * rank, padding=pads, dilation=(1,) * rank
        )
        return y + over_channels(bias, y)


class ConvGroup(nn.Module):
    """[3×3 convolution → 2×2 max pool → BatchNorm → GELU → 3×3 convolution → BatchNorm → GELU].

    BatchNorm has no scale, ε 1e-12, and 0.6 of its running statistics stay at each step.

    Attributes:
      features: output channels.
      dtype: compute type.
    """

    features: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B *out features"]:
        """Maps `[B, *space, C]` to `[B, *out, features]`, floor(n / 2) pixels along each axis."""
        for i in (1, 2):
            x = Conv(self.features, 3, use_bias=False, dtype=self.dtype, kernel_init=partial_identity, name=f"conv{i}")(
                x
            )
            if i == 1:
                x = MaxPool(2, name="pool")(x)
            norm = BatchNorm(momentum=0.6, epsilon=1e-12, use_scale=False, dtype=self.dtype, name=f"norm{i}")
            x = ACTIVATIONS["gelu"](norm(x, train=train))
        return x


class Airbench(nn.Module):
    """Whitening, GELU, and groups of two convolutions.

    Returns `{"whiten": ..., "stage1": ..., "stage2": ..., ...}` with strides 1, 2, 4, ...

    Attributes:
      widths: channels of the groups.
      dtype: compute type, "float32" or "bfloat16".
    """

    widths: tuple[int, ...]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, *space, C]` to the named feature maps."""
        x = ACTIVATIONS["gelu"](Whitening(dtype=self.dtype, name="whiten")(x))
        maps = {"whiten": x}
        for i, width in enumerate(self.widths, start=1):
            x = ConvGroup(width, dtype=self.dtype, name=f"stage{i}")(x, train=train)
            maps[f"stage{i}"] = x
        return maps


class ScaledHead(nn.Module):
    """3×3 max pool, flatten, and a matrix product whose result is divided by the number of inputs.

    Attributes:
      num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, *space, C]` to float32 logits `[B, K]`, computed in float32."""
        del train  # Heads have one signature.
        x = MaxPool(3, name="pool")(x).astype(jnp.float32)
        x = x.reshape((x.shape[0], -1))  # [B, *space, C] -> [B, space * C]
        return nn.Dense(self.num_classes, use_bias=False, kernel_init=unit_deviation(), name="output")(x) / x.shape[-1]


def airbench94(
    *, num_classes: int, in_channels: int = 3, widths: tuple[int, ...] = (64, 256, 256), dtype: str = "float32"
) -> Classifier:
    """airbench94: 1.97 million parameters. Input `[B, *space, in_channels]`, logits `[B, num_classes]`.

    32×32 images give maps of 31, 15, 7 and 3 pixels. Its recipe is configs/classification/cifar10_speedrun.py.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      widths: channels of the groups; each halves the image.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.

    Source: Jordan 2024 (arXiv:2404.00498), Section 3; airbench94_muon.py for the widths.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=0.0, dtype=dtype)
    if not widths:
        raise UserError("widths is empty; airbench94 has at least one group of convolutions")
    require_positive("widths", *widths)
    return Classifier(
        backbone=Airbench(widths=tuple(widths), dtype=dtype),
        head=ScaledHead(num_classes=num_classes),
        in_channels=in_channels,
    )
