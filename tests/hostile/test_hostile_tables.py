"""Parquet files and prepared TFDS sets from strangers: bombs and lies are refused, and no module is imported."""

import json

import numpy as np
import pytest

from cnn_jax.data import tfds_sets
from cnn_jax.errors import UserError

OWN = tfds_sets.OWN_FEATURES


def parquet(folder, images, labels, **metadata):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    table = pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
    pq.write_table(table, folder / "train.parquet", compression="zstd", store_schema=bool(metadata))
    return folder


def repeated(value, count):
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


@pytest.mark.parametrize("bomb", ["rows", "one image", "an image for many rows", "a label for many rows"])
def test_small_tables_that_unpack_to_gigabytes_are_refused(bomb, tmp_path, refused):
    import pyarrow as pa

    noise = np.random.default_rng(0).bytes
    one, many, small = (lambda n: [noise(600)] * n), 3000, noise(500_000)
    columns = {
        "rows": (repeated(b"x", 5_000_000), pa.array(np.zeros(5_000_000, np.int64))),
        "one image": ([bytes(2**27)], [0]),
        "an image for many rows": (repeated(small, many), [0] * many),
        "a label for many rows": (one(many), repeated("x" * 2**20, many)),
    }
    said = {"rows": "declares 5,000,000 rows", "one image": "unpack to 134,", "an image for many rows": "unpacks to"}
    folder = parquet(tmp_path / "set", *columns[bomb])
    assert (folder / "train.parquet").stat().st_size < 2**20
    refused("parquet", folder, said.get(bomb, ""))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"info": ' + "9" * 5000 + "}",
        '{"info": [1]}',
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b\n<script>"]}}}}),
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": {"a": 1}}}}}),
    ],
)
def test_descriptions_of_tables_that_are_hostile_are_one_line(text, tmp_path, refused):
    refused("parquet", parquet(tmp_path / "set", [b"x"] * 2, [0, 1], huggingface=text), "train.parquet'")


@pytest.mark.parametrize("value", [5, [1, 2], "text"])
def test_images_of_a_table_that_are_no_bytes_are_skipped(value, tmp_path, refused):
    import pyarrow as pa

    folder = parquet(tmp_path / "set", pa.array([{"bytes": value}] * 2), [0, 1])
    refused("parquet", folder, "none of the 2 images can be read")


def prepared(root, feature):
    """A prepared set of TFDS whose description names a class."""
    folder = root / "evil_set" / "1.0.0"
    folder.mkdir(parents=True)
    features = {"pythonClassName": f"{OWN}features_dict.FeaturesDict", "featuresDict": {"features": {"image": feature}}}
    (folder / "features.json").write_text(json.dumps(features), encoding="utf-8")
    information = {"name": "evil_set", "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    (folder / "dataset_info.json").write_text(json.dumps(information), encoding="utf-8")


@pytest.mark.parametrize("form", ["protocol buffer", "older", "JSON in JSON"])
def test_a_prepared_set_imports_no_module_of_its_own(form, tmp_path, monkeypatch):
    own = tmp_path / "path"
    own.mkdir()
    marker = tmp_path / "imported"
    (own / "evil_feature.py").write_text(f"open({str(marker)!r}, 'w').close()", encoding="utf-8")
    monkeypatch.syspath_prepend(own)
    named = "evil_feature.Image"
    feature = {
        "protocol buffer": {"pythonClassName": named, "jsonFeature": {"json": "{}"}},
        "older": {"type": named, "content": {}},
        "JSON in JSON": {
            "pythonClassName": f"{OWN}sequence_feature.Sequence",
            "jsonFeature": {"json": json.dumps({"feature": {"type": named}})},
        },
    }[form]
    prepared(tmp_path / "data", feature)
    for name in ("evil_set", "evil_set:1.0.0", "EvilSet"):
        with pytest.raises(UserError, match=r"'evil_feature\.Image', whose module TFDS would import"):
            tfds_sets.tfds_source(name, directory=str(tmp_path / "data"), split_seed=0)
    assert not marker.exists()


def test_the_attack_of_a_prepared_set_is_real(tmp_path, monkeypatch):
    marker = tmp_path / "imported"
    (tmp_path / "real_evil_feature.py").write_text(f"open({str(marker)!r}, 'w').close()", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tfds_sets, "_refuse_code", lambda *_: None)
    prepared(tmp_path / "data", {"pythonClassName": "real_evil_feature.Image", "jsonFeature": {"json": "{}"}})
    with pytest.raises(UserError):
        tfds_sets.tfds_source("evil_set", directory=str(tmp_path / "data"), split_seed=0)
    assert marker.exists()


def test_sets_of_other_publishers_are_refused(tmp_path):
    for name in ("huggingface:mnist", "kaggle:a/b", "somebody:set/config:1.0.0"):
        with pytest.raises(UserError, match="another publisher's, whose code TFDS would run"):
            tfds_sets.tfds_source(name, directory=str(tmp_path), split_seed=0)
