"""torchvision's names of the video networks: a convolution, its norm and its activation are counted from 0."""

from cnn_jax.weights.layout import KeyMap, Rule

IMAGE = (16, 112, 112)
BLOCK = r"backbone/stage(\d+)/block(\d+)/"
SHORTCUTS_AND_HEAD = (
    Rule(BLOCK + "shortcut/conv", "layer{0}.{1:-1}.downsample.0"),
    Rule(BLOCK + "shortcut/norm", "layer{0}.{1:-1}.downsample.1"),
    Rule("head/output", "fc"),
)

VIDEO_RESNET = KeyMap(
    (
        Rule("backbone/stem/conv", "stem.0"),
        Rule("backbone/stem/norm", "stem.1"),
        Rule(BLOCK + r"conv(\d)/conv", "layer{0}.{1:-1}.conv{2}.0"),
        Rule(BLOCK + r"conv(\d)/norm", "layer{0}.{1:-1}.conv{2}.1"),
        *SHORTCUTS_AND_HEAD,
    ),
    image=IMAGE,
)
"""R3D and mixed convolutions."""

FACTORISED_VIDEO_RESNET = KeyMap(
    (
        Rule("backbone/stem/space/conv", "stem.0"),
        Rule("backbone/stem/space/norm", "stem.1"),
        Rule("backbone/stem/time/conv", "stem.3"),
        Rule("backbone/stem/time/norm", "stem.4"),
        # The norm behind both parts is the block's; that between them, with its activation, belongs to the convolution.
        Rule(BLOCK + r"conv(\d)/space/conv", "layer{0}.{1:-1}.conv{2}.0.0"),
        Rule(BLOCK + r"conv(\d)/space/norm", "layer{0}.{1:-1}.conv{2}.0.1"),
        Rule(BLOCK + r"conv(\d)/time/conv", "layer{0}.{1:-1}.conv{2}.0.3"),
        Rule(BLOCK + r"conv(\d)/time/norm", "layer{0}.{1:-1}.conv{2}.1"),
        *SHORTCUTS_AND_HEAD,
    ),
    stem="backbone/stem/space/conv",
    image=IMAGE,
)
"""R(2+1)D."""
