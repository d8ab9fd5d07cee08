"""LeNet-5 as published in LeCun et al. 1998, "Gradient-based learning applied to document recognition".

60,000 trainable parameters: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164 (Section II-B). The output layer
compares F6 with fixed drawings of the digits, so it has none.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.errors import ImageTooSmallError, UserError
from cnn_jax.nn.activation import scaled_tanh
from cnn_jax.nn.checks import require_classifier
from cnn_jax.nn.conv import Conv
from cnn_jax.nn.dense import Dense
from cnn_jax.nn.heads import Classifier
from cnn_jax.ops.channels import over_channels
from cnn_jax.ops.conv import convolve

C3_INPUTS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
"""The maps of S2 that each of the 16 maps of C3 sees (Table I): 60 of 96 connections."""

CODE_ROWS, CODE_COLUMNS = 12, 7

# Drawn for this file in the style of Fig. 3; one row of twelve lines per five digits, `#` is +1 and `.` is -1.
DIGITS = (
    """
    ..###.. ...#... .#####. .#####. .....#.
    .#...#. ..##... #.....# #.....# ....##.
    #.....# .###... ......# ......# ...#.#.
    #.....# ...#... ......# ......# ..#..#.
    #.....# ...#... .....#. ......# .#...#.
    #.....# ...#... ....#.. ..####. #....#.
    #.....# ...#... ...#... ......# #....#.
    #.....# ...#... ..#.... ......# #######
    #.....# ...#... .#..... ......# .....#.
    #.....# ...#... #...... ......# .....#.
    .#...#. ...#... #...... #.....# .....#.
    ..###.. .#####. ####### .#####. .....#.
    """,
    """
    ####### ..####. ####### .#####. .#####.
    #...... .#....# ......# #.....# #.....#
    #...... #...... ......# #.....# #.....#
    #...... #...... .....#. #.....# #.....#
    #...... #...... .....#. .#...#. #.....#
    ######. #.###.. ....#.. ..###.. .######
    ......# ##...#. ....#.. .#...#. ......#
    ......# #.....# ...#... #.....# ......#
    ......# #.....# ...#... #.....# ......#
    ......# #.....# ..#.... #.....# ......#
    #.....# .#...#. ..#.... #.....# #....#.
    .#####. ..###.. ..#.... .#####. .####..
    """,
)


def output_codes(num_classes: int) -> np.ndarray:
    """The fixed centres of the output units, ±1, float32 `[num_classes, 84]` (Section II-B and Fig. 3).

    Up to ten classes get drawings of the digits, 7 wide and 12 high, row after row. More get random codes, which the
    paper names as the alternative: ±1 with equal probability, from a fixed seed.

    Args:
      num_classes: K.

    Example:
      >>> output_codes(10).shape
      (10, 84)
    """
    if num_classes > 10:
        codes = np.random.default_rng(1998).choice([-1, 1], (num_classes, CODE_ROWS * CODE_COLUMNS))
        return codes.astype(np.float32)
    digits = []
    for drawing in DIGITS:
        # Twelve lines of five words -> five digits of twelve words.
        digits.extend(zip(*(line.split() for line in drawing.strip().splitlines()), strict=True))
    pixels = np.array([list("".join(digit)) for digit in digits[:num_classes]])
    return np.where(pixels == "#", 1, -1).astype(np.float32)


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Uniform in ±2.4 / fan-in, fan-in being the inputs of one unit (LeCun et al. 1998, Appendix A).

    Args:
      fan_in: the number of inputs.
    """

    def initialise(key, shape, dtype=jnp.float32, out_sharding=None):
        del out_sharding  # Flax passes it to every initializer.
        return jax.random.uniform(key, shape, dtype, -2.4 / fan_in, 2.4 / fan_in)

    return initialise


class Subsampling(nn.Module):
    """S2 and S4: the sum of each 2×2 window times a trainable coefficient, plus a trainable bias, then squashed.

    Parameters: `coefficient` and `bias`, float32 `[C]`; the compute type is that of the input.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B Y X C"]) -> Float[Array, "B Yhalf Xhalf C"]:
        """Maps `[B, Y, X, C]` to `[B, Y / 2, X / 2, C]`; Y and X are even."""
        batch, height, width, channels = x.shape
        coefficient = self.param("coefficient", uniform_fan_in(4), (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # [B, Y, X, C] -> [B, Y / 2, 2, X / 2, 2, C]
        x = x.reshape((batch, height // 2, 2, width // 2, 2, channels)).sum(axis=(2, 4))
        return scaled_tanh(x * over_channels(coefficient, x) + over_channels(bias, x))


class PartialConv(nn.Module):
    """C3: a 5×5 convolution in which each output map sees only its inputs in `C3_INPUTS`. No squashing.

    Parameters: `kernel`, float32 `[5, 5, 60]`, one 5×5 kernel per connection, output map after output map, and `bias`
    `[16]`: 1,516 in all.

    Attributes:
      dtype: compute type.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B Y X 6"]) -> Float[Array, "B Yout Xout 16"]:
        """Maps `[B, Y, X, 6]` to `[B, Y - 4, X - 4, 16]`."""
        connections = [(source, target) for target, sources in enumerate(C3_INPUTS) for source in sources]
        sources, targets = np.array(connections).T
        fan_in = np.array([25 * len(C3_INPUTS[target]) for target in targets], np.float32)

        def initialise(key):
            # The limit 2.4 / fan-in differs between maps: [60] -> [1, 1, 60].
            return jax.random.uniform(key, (5, 5, len(connections)), jnp.float32, -2.4, 2.4) / fan_in[None, None]

        kernel = self.param("kernel", initialise)
        bias = self.param("bias", nn.initializers.zeros, (len(C3_INPUTS),))
        # [5, 5, 60] -> [5, 5, 6, 16], with zeros where there is no connection.
        full = jnp.zeros((5, 5, 6, len(C3_INPUTS))).at[:, :, sources, targets].set(kernel)
        image, full = x.astype(self.dtype), full.astype(self.dtype)
        y = convolve(image, full, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
        return y + over_channels(bias, y)


class LeNet1998(nn.Module):
    """C1 to C5. Every layer ends in the scaled tanh, 1.7159 tanh(2a/3) (Section II-B, Eq. 6).

    Returns `{"c1": 28×28×6 (stride 1), "s2": 14×14×6 (2), "c3": 10×10×16 (2), "s4": 5×5×16 (4), "c5": 1×1×120 (4)}`.

    Attributes:
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: the image is neither 28×28 nor 32×32.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Maps `[B, 28, 28, C]` or `[B, 32, 32, C]` to the named feature maps; equal for both values of `train`."""
        del train  # Nothing here differs in training.
        space, channels = x.shape[1:-1], x.shape[-1]
        if space not in ((28, 28), (32, 32)):
            refuse = ImageTooSmallError if min(space) < 28 else UserError
            raise refuse(
                f"lenet5_1998 takes images of 28×28 or 32×32 pixels, not {'×'.join(map(str, space))};"
                " model 'lenet5' takes other sizes"
            )
        if space == (28, 28):
            # The border of a digit image is background, whatever value normalisation has given it.
            x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        c1 = Conv(6, 5, padding="valid", dtype=self.dtype, kernel_init=uniform_fan_in(25 * channels), name="c1")(x)
        c1 = scaled_tanh(c1)
        s2 = Subsampling(name="s2")(c1)
        c3 = scaled_tanh(PartialConv(dtype=self.dtype, name="c3")(s2))
        s4 = Subsampling(name="s4")(c3)
        c5 = Conv(120, 5, padding="valid", dtype=self.dtype, kernel_init=uniform_fan_in(400), name="c5")(s4)
        c5 = scaled_tanh(c5)
        return {"c1": c1, "s2": s2, "c3": c3, "s4": s4, "c5": c5}


class RBFHead(nn.Module):
    """F6, dense 84 with the scaled tanh, and Euclidean radial basis function units with fixed centres (Eq. 7).

    The paper's outputs are squared distances, the smallest of which is the answer; the logits are their negatives.

    Attributes:
      num_classes: K.
      dtype: compute type of F6; distances are computed in float32.
    """

    num_classes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> Float[Array, "B K"]:
        """Maps `[B, 1, 1, 120]` to float32 logits `[B, K]`; equal for both values of `train`."""
        del train  # Heads have one signature.
        x = x.reshape((x.shape[0], -1))  # [B, 1, 1, 120] -> [B, 120]
        units = CODE_ROWS * CODE_COLUMNS
        f6 = Dense(units, dtype=self.dtype, kernel_init=uniform_fan_in(x.shape[-1]), name="f6")(x)
        f6 = scaled_tanh(f6).astype(jnp.float32)
        codes = jnp.asarray(output_codes(self.num_classes))
        # [B, 1, 84] - [1, K, 84] -> [B, K, 84]
        return -jnp.sum((f6[:, None, :] - codes[None, :, :]) ** 2, axis=-1)


def lenet5_1998(*, num_classes: int, in_channels: int = 1, dtype: str = "float32") -> Classifier:
    """LeNet-5 as published. Input `[B, 32, 32, in_channels]`, logits `[B, num_classes]`: minus squared distances.

    28×28 images get two more pixels of background on every side. Weights start uniform in ±2.4 / fan-in (Appendix A),
    biases at 0. With one channel: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164, in all 60,000 parameters.

    Args:
      num_classes: K; up to ten classes have drawings of the digits as codes, more have random codes.
      in_channels: channels of the images.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.

    Source: LeCun et al. 1998, Section II-B, Fig. 2 and 3, Table I.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=0.0, dtype=dtype)
    return Classifier(
        backbone=LeNet1998(dtype=dtype), head=RBFHead(num_classes=num_classes, dtype=dtype), in_channels=in_channels
    )
