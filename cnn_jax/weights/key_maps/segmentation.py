"""torchvision's names of FCN and DeepLabV3: those of the residual network behind "backbone", and the layers of heads.

torchvision's pretrained weights have an auxiliary head, which a model without one leaves out.
"""

import dataclasses

from cnn_jax.weights.key_maps.resnet import RESNET
from cnn_jax.weights.layout import KeyMap, Rule

BACKBONE = tuple(
    dataclasses.replace(rule, torch=f"backbone.{rule.torch}")
    for rule in RESNET.rules
    if rule.ours.startswith("backbone/")
)
AUXILIARY = (
    Rule("auxiliary1/reduce/conv", "aux_classifier.0"),
    Rule("auxiliary1/reduce/norm", "aux_classifier.1"),
    Rule("auxiliary1/output", "aux_classifier.4"),
)
HEADS = ("head/output", "auxiliary1/output")
AUXILIARY_KEYS = r"aux_classifier\.[014]\.\w+"

FCN = KeyMap(
    (
        *BACKBONE,
        Rule("head/reduce/conv", "classifier.0"),
        Rule("head/reduce/norm", "classifier.1"),
        Rule("head/output", "classifier.4"),
        *AUXILIARY,
    ),
    heads=HEADS,
    auxiliary=AUXILIARY_KEYS,
)

DEEPLABV3 = KeyMap(
    (
        *BACKBONE,
        Rule(r"head/pyramid/branch(\d+)/conv", "classifier.0.convs.{0:-1}.0"),
        Rule(r"head/pyramid/branch(\d+)/norm", "classifier.0.convs.{0:-1}.1"),
        # Behind the last branch; torchvision's pool has number 0. The published networks have three dilations.
        Rule("head/pyramid/pooled/conv", "classifier.0.convs.4.1"),
        Rule("head/pyramid/pooled/norm", "classifier.0.convs.4.2"),
        Rule("head/pyramid/project/conv", "classifier.0.project.0"),
        Rule("head/pyramid/project/norm", "classifier.0.project.1"),
        Rule("head/smooth/conv", "classifier.1"),
        Rule("head/smooth/norm", "classifier.2"),
        Rule("head/output", "classifier.4"),
        *AUXILIARY,
    ),
    heads=HEADS,
    auxiliary=AUXILIARY_KEYS,
)
