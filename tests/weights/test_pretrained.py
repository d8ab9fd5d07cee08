"""The table of published weights says what torchvision and timm say."""

import json
import math
import pathlib
import re

import pytest

from cnn_jax.errors import UserError
from cnn_jax.weights import best_published, pretrained
from cnn_jax.weights.key_maps import KEY_MAPS

ZOO = json.loads((pathlib.Path(__file__).parent.parent / "reference" / "zoo.json").read_text(encoding="utf-8"))[
    "models"
]
# zoo.json's name of a model, where it is another than ours and torchvision's.
NAMES = {"googlenet": "googlenet_noaux", "inception_v3": "inception_v3_noaux"}
# torchvision scales their inputs to [-1, 1] inside the network (transform_input).
SCALED_INSIDE = set(NAMES)
METRICS = {"top-1": "acc@1", "top-5": "acc@5", "mean IoU": "miou", "pixels": "pixel_acc"}
TORCHVISION = {name: row for name, row in pretrained.table().items() if not name.startswith("timm/")}
TIMM = {name: row for name, row in pretrained.table().items() if name.startswith("timm/")}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_weights_are_as_torchvision_describes_them(name):
    entry = TORCHVISION[name]
    model, _, tag = name.partition(".")
    theirs = ZOO[NAMES.get(model, model)]["weights"][tag]
    transform = theirs["transform"]
    assert entry.model == model
    assert entry.url == f"https://download.pytorch.org/models/{theirs['file']}"
    assert f"-{entry.sha256}." in entry.url
    assert re.fullmatch("[0-9a-f]{8,64}", entry.sha256)
    assert entry.file == theirs["file"]
    assert {METRICS[key]: value for key, value in entry.accuracy.items()} == theirs["metrics"][entry.data]
    how = entry.preprocessing
    assert ([how.resize] if isinstance(how.resize, int) else list(how.resize)) == transform["resize_size"]
    if "crop_size" in transform:
        assert list(how.crop) == transform["crop_size"] * (2 // len(transform["crop_size"]))
    else:
        assert how.crop is None
    assert f"InterpolationMode.{how.interpolation.upper()}" == transform["interpolation"]
    if model in SCALED_INSIDE:
        assert (how.mean, how.std) == ((0.5,) * 3, (0.5,) * 3)
    else:
        assert (list(how.mean), list(how.std)) == (transform["mean"], transform["std"])


@pytest.mark.parametrize("name", TIMM)
def test_timms_weights_are_as_timm_describes_them(name):
    entry = TIMM[name]
    architecture, _, tag = name.partition(".")
    theirs = ZOO[architecture]["weights"]
    assert theirs["tag"] == tag
    hub = f"https://huggingface.co/{theirs.get('hf_hub_id')}/resolve/main/model.safetensors"
    assert entry.url in (theirs.get("url"), hub)
    assert entry.sha256 is None if entry.url == hub else f"-{entry.sha256}." in entry.url
    assert entry.file == f"{name.replace('/', '_')}.safetensors" or entry.sha256
    how, (_, height, width) = entry.preprocessing, theirs["input_size"]
    assert how.resize == math.floor(height / theirs["crop_pct"])
    assert how.crop == (height, width)
    assert (how.interpolation, list(how.mean), list(how.std)) == tuple(
        theirs[k] for k in ("interpolation", "mean", "std")
    )
    assert (entry.accuracy, entry.top1) == ({}, None)


def test_all_that_torchvision_publishes_for_our_models_is_there():
    published = {
        f"{model}.{tag}"
        for model in KEY_MAPS
        for tag in ZOO.get(NAMES.get(model, model), {"weights": {}})["weights"]
        if ZOO[NAMES.get(model, model)]["source"] == "torchvision"
    }
    # Only the features have values there: no classes.
    assert published - {"vgg16.IMAGENET1K_FEATURES"} == set(TORCHVISION)
    assert {entry.model for entry in pretrained.table().values()} <= set(KEY_MAPS)


def test_files_have_names_of_their_own():
    files = [entry.file for entry in pretrained.table().values()]
    assert len(set(files)) == len(files)


def test_what_a_model_has_is_found_and_the_best_comes_first():
    assert best_published("resnet50").name == "resnet50.IMAGENET1K_V2"
    assert best_published("resnet50").top1 == 80.858
    assert best_published("mlp") is None
    assert pretrained.find("resnet50.IMAGENET1K_V1", model="resnet50").top1 == 76.13
    with pytest.raises(
        UserError, match=r"are of the model 'resnet50', not of 'resnet18'; its own: resnet18\.IMAGENET1K_V1"
    ):
        pretrained.find("resnet50.IMAGENET1K_V2", model="resnet18")
    with pytest.raises(UserError, match=r"unknown weights of resnet18 'resnet18\.V1'.*Known: resnet18\.IMAGENET1K_V1"):
        pretrained.find("resnet18.V1", model="resnet18")
    with pytest.raises(UserError, match=r"did you mean 'resnet18\.IMAGENET1K_V1'"):
        pretrained.find("resnet18.IMAGENET1K")


def test_the_names_of_imagenets_classes():
    names = pathlib.Path(pretrained.__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(names)) == len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
