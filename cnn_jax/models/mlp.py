"""The multilayer perceptron: every pixel is an input of every first unit. Convolutions are compared with it."""

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax.nn.activation import require_activation
from cnn_jax.nn.checks import require_classifier, require_positive
from cnn_jax.nn.heads import Classifier, DenseHead


class Pixels(nn.Module):
    """A backbone that does nothing: the only feature map, `{"input": ...}`, is the image, with stride 1."""

    def __call__(self, x: Float[Array, "B *space C"], *, train: bool) -> dict[str, Float[Array, "B ..."]]:
        """Returns `{"input": x}`."""
        del train  # Backbones have one signature.
        return {"input": x}


def mlp(
    *,
    num_classes: int,
    in_channels: int = 3,
    hidden: tuple[int, ...] = (512, 512),
    activation: str = "relu",
    dropout_rate: float = 0.0,
    dtype: str = "float32",
) -> Classifier:
    """Flatten → [dense → activation → dropout]×M → dense. Input `[B, *space, in_channels]`, logits `[B, num_classes]`.

    Weights start as He et al. 2015 (Eq. 10), biases at 0. The number of inputs, and so of parameters, is fixed by the
    first image: a 224×224×3 image has 150,528.

    Args:
      num_classes: K.
      in_channels: channels of the images.
      hidden: units per hidden layer; `()` is multinomial logistic regression.
      activation: a key of `nn.activation.ACTIVATIONS`.
      dropout_rate: share of each hidden layer's units that training sets to 0 (Srivastava et al. 2014).
      dtype: compute type, "float32" or "bfloat16".

    Raises:
      UserError: a value that is not one of these.
    """
    require_classifier(num_classes=num_classes, in_channels=in_channels, dropout_rate=dropout_rate, dtype=dtype)
    require_positive("hidden", *hidden)
    require_activation(activation)
    return Classifier(
        backbone=Pixels(),
        head=DenseHead(
            sizes=tuple(hidden),
            num_classes=num_classes,
            activation=activation,
            dropout_rate=dropout_rate,
            dtype=dtype,
        ),
        in_channels=in_channels,
    )
