"""LeNet-5 as it is taught today: full C3, average pools, linear output. For the paper's network see `lenet_1998`."""

from cnn_jax.errors import UserError
from cnn_jax.models.classic_stack import POOLS, ClassicStack
from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.checks import require_classifier, require_known
from cnn_jax.nn.heads import Classifier, DenseHead


def lenet5(
    *,
    num_classes: int,
    in_channels: int = 1,
    padding: int = 2,
    activation: str = "tanh",
    pool: str = "average",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
) -> Classifier:
    """LeNet-5 without its historical parts: conv 6 5×5, pool, conv 16 5×5, pool, dense 120, dense 84, dense K.

    28×28 images with padding 2, or 32×32 images with padding 0, give maps of 28, 14, 10 and 5 pixels, 400 inputs to the
    dense layers, and with one channel and ten classes 61,706 parameters. Other sizes work and change the first dense
    layer. Feature maps: `stage1` (stride 2) and `stage2` (stride 4).

    Args:
      num_classes: K.
      in_channels: channels of the images.
      padding: zeros around the image: 2 for 28×28, 0 for 32×32.
      activation: a key of `nn.activation.ACTIVATIONS`.
      pool: "average", "max" or "l2".
      dropout_rate: share of each hidden dense layer's units that training sets to 0.
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.

    Source: after LeCun et al. 1998, Section II-B and Fig. 2.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    if padding < 0:
        raise UserError(f"padding is {padding}; it must be 0 or more (2 for 28×28 images, 0 for 32×32)")
    require_activation(activation)
    require_known("pool", pool, POOLS)
    return Classifier(
        backbone=ClassicStack(
            channels=(6, 16),
            kernel_sizes=(5, 5),
            paddings=(padding, "valid"),
            pool=pool,
            activation=activation,
            dtype=dtype,
        ),
        head=DenseHead(
            sizes=(120, 84), num_classes=num_classes, activation=activation, dropout_rate=dropout_rate, dtype=dtype
        ),
        in_channels=in_channels,
    )
