"""TFDS sets other than those of equal small images, offline and without TensorFlow: ImageNet's and SVHN's configs."""

import contextlib
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.sources import check_labels, open_source
from cnn_jax.data.tfds_sets import TfdsExamples
from cnn_jax.errors import CorruptImageError, UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

EXAMPLES = 12
SETS = {"svhn_cropped": ("PNG", ("train", "test", "extra")), "imagenet2012": ("JPEG", ("train", "validation"))}


class Records:
    """What TFDS's data source gives with SkipDecoding: its own random examples, encoded by Pillow."""

    def __init__(self, features, kind, damaged):
        from tensorflow_datasets.testing import mocking

        generator = mocking.RandomFakeGenerator(features, EXAMPLES)
        self.decoded = [generator[index] for index in range(EXAMPLES)]
        self.records = []
        for index, example in enumerate(self.decoded):
            file = io.BytesIO()
            Image.fromarray(example["image"]).save(file, kind)
            content = file.getvalue()
            self.records.append({**example, "image": content[: len(content) // 2] if index in damaged else content})

    def __len__(self):
        return EXAMPLES

    def __getitem__(self, index):
        return self.records[index]

    def __getitems__(self, indices):
        return [self.records[index] for index in indices]


@contextlib.contextmanager
def mocked(name, tmp_path, damaged=()):
    """TFDS with the metadata of a prepared set, and records made at random."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import splits as splits_lib

    kind, names = SETS[name]
    builder = tfds.builder(name, data_dir=str(tmp_path), file_format="array_record")
    infos = []
    for split in names:
        template = tfds.core.ShardedFileTemplate(
            builder.data_path, dataset_name=name, split=split, filetype_suffix="array_record"
        )
        infos.append(
            splits_lib.SplitInfo(name=split, shard_lengths=[EXAMPLES], num_bytes=1000, filename_template=template)
        )
    builder.info.set_splits(splits_lib.SplitDict(infos))
    (tmp_path / name / str(builder.version)).mkdir(parents=True)
    builder.info.write_to_directory(builder.data_dir)

    def as_data_source(self, split, decoders=None, **_):
        [(key, decoder)] = decoders.items()
        assert (key, type(decoder)) == ("image", tfds.decode.SkipDecoding)
        return Records(self.info.features, kind, damaged)

    policy = tfds.testing.MockPolicy.USE_FILES
    with tfds.testing.mock_data(
        num_examples=EXAMPLES, policy=policy, data_dir=str(tmp_path), as_data_source_fn=as_data_source
    ):
        yield builder


def test_svhn_is_read_as_it_is(tmp_path):
    with mocked("svhn_cropped", tmp_path) as builder:
        source = open_source("tfds", "svhn_cropped", directory=str(tmp_path))
        assert source.sizes == {"train": EXAMPLES, "test": EXAMPLES, "extra": EXAMPLES}
        assert source.class_names == tuple("0123456789")
        data = source.load("extra[2:9]")
        expected = Records(builder.info.features, "PNG", ()).decoded[2:9]
        np.testing.assert_array_equal(data.images, [example["image"] for example in expected])
        assert data.labels.tolist() == [int(example["label"]) for example in expected]
        assert data.base[1].tolist() == list(range(2, 9))
        check_labels(data, 10)
        wrappers = [{"name": "fraction", "share": 0.5, "seed": 0}]
        chosen, part = source.select("train", wrappers), source.load("train", wrappers=wrappers)
        np.testing.assert_array_equal(chosen.indices, part.base[1])
        np.testing.assert_array_equal(part.images, source.load("train").images[chosen.indices])


def test_imagenet_streams_encoded_files_and_needs_transforms_in_memory(tmp_path):
    with mocked("imagenet2012", tmp_path) as builder:
        source = open_source("tfds", "imagenet2012", directory=str(tmp_path))
        assert source.sizes == {"train": EXAMPLES, "validation": EXAMPLES}
        assert len(source.class_names) == 1000
        assert source.channels == 3
        examples = source.examples("validation")
        assert isinstance(examples, TfdsExamples)
        expected = Records(builder.info.features, "JPEG", ())
        assert len(examples) == EXAMPLES
        for index in (0, 7, 11):
            assert examples[index].image == expected[index]["image"]
            assert examples[index].label == int(expected[index]["label"])
            assert examples[index].name.endswith(f"/validation[{index}]")
        assert examples.labels().tolist() == [int(example["label"]) for example in expected.decoded]
        assert pickle.loads(pickle.dumps(examples))[3] == examples[3]
        assert examples.description()["digest_of"] == "names and sizes"
        with pytest.raises(UserError, match=r"validation\[1\] is .*; only equal-sized images can be held in memory"):
            source.load("validation")
        transforms = [{"name": "resize", "size": 16}, {"name": "center_crop", "size": 16}]
        data = source.load("validation", transforms=transforms)
        assert data.images.shape == (EXAMPLES, 16, 16, 3)
        np.testing.assert_array_equal(data.labels, examples.labels())


def test_damaged_images_of_a_set_are_named_or_skipped(tmp_path):
    with mocked("svhn_cropped", tmp_path, damaged=(4, 9)):
        source = open_source("tfds", "svhn_cropped", directory=str(tmp_path))
        with pytest.raises(CorruptImageError, match=r"'tfds/svhn_cropped/[\d.]+/train\[4\]'"):
            source.load("train")
        data = source.load("train", on_corrupt="skip")
        assert data.base[1].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]
        assert len(data.corrupt) == 2
        assert len(source.load("train[:4]", on_corrupt="skip")) == 4


@pytest.mark.slow
def test_examples_of_a_prepared_set_are_what_loading_gives(tfds_directory):
    source = open_source("tfds", "cifar10", directory=str(tfds_directory))
    data, examples = source.load("test[:40]"), pickle.loads(pickle.dumps(source.examples("test")))
    for index in (0, 1, 39):
        example = examples[index]
        assert example.label == data.labels[index]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(example.image))), data.images[index])
    np.testing.assert_array_equal(examples.labels()[:40], data.labels)
    part = source.load("test[:40]", transforms=[{"name": "resize", "size": 8}], channels=1)
    assert part.images.shape == (40, 8, 8, 1)
