"""torchvision's names of the densely connected networks: a transition is counted with the dense block before it."""

from cnn_jax.weights.layout import KeyMap, Rule

DENSENET = KeyMap(
    (
        Rule(r"backbone/stem/(conv|norm)", "features.{0}0"),
        Rule(r"backbone/stage(\d+)/layer(\d+)/(conv|norm)(\d)", "features.denseblock{0}.denselayer{1}.{2}{3}"),
        Rule(r"backbone/stage(\d+)/transition/(conv|norm)", "features.transition{0:-1}.{1}"),
        Rule(r"backbone/norm", "features.norm5"),
        Rule(r"head/output", "classifier"),
    ),
    # torchvision's files are older than torch's rule that names of modules have no dots.
    former=((r"(denselayer\d+\.(?:conv|norm))\.([12])\.", r"\1\2."),),
)
