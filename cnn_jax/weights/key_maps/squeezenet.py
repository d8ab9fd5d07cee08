"""torchvision's names of SqueezeNet: layers are counted, pools too, which stand elsewhere in each version."""

from cnn_jax.models.squeezenet import STAGES
from cnn_jax.weights.layout import KeyMap, Rule

FIRST = 3
"""torchvision's number of the first fire module: behind a convolution, an activation and a pool."""


def squeezenet_map(version: str) -> KeyMap:
    """The key map of a version, a key of `models.squeezenet.STAGES`."""
    # A pool stands before every stage, the first one's counted in FIRST.
    places = {fire: FIRST + fire - 2 + i for i, fires in enumerate(STAGES[version]) for fire in fires}
    return KeyMap(
        (
            Rule("backbone/stem/conv", "features.0"),
            *(Rule(rf"backbone/fire{fire}/(\w+)/conv", f"features.{place}.{{0}}") for fire, place in places.items()),
            Rule("head/output", "classifier.1"),
        )
    )
