"""Config files, overrides and their errors."""

import os
import sys

import pytest
from ml_collections import ConfigDict

from cnn_jax.errors import UserError
from cnn_jax.train.config import resolve, sha256, to_plain
from cnn_jax.train.config_file import load, override, plain


def test_a_file_becomes_plain_values(tmp_path):
    file = tmp_path / "größe und raum.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(variant='a'):\n"
        "    c = ConfigDict({'b': {'c': [1, 2], 'd': (3, {'e': 4})}, 'variant': variant, 'none': None})\n"
        "    return c.lock()\n",
        encoding="utf-8",
    )
    expected = {"b": {"c": (1, 2), "d": (3, {"e": 4})}, "variant": "a", "none": None}
    assert load(str(file)) == expected
    assert load(f"{file}:other") == {**expected, "variant": "other"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("x = 1\n", "defines no get_config"),
        ("def get_config(:\n", r"config.py:1: "),
        ("def get_config():\n    return {}\n", "returned a dict; return a ConfigDict"),
        ("def get_config():\n    return missing\n", r"config.py:2: NameError"),
        ("import no_such_module\n", r"config.py:1: ModuleNotFoundError"),
        ("def get_config():\n    raise ValueError('two\\nlines')\n", r"config.py:2: ValueError: two lines"),
        ("def get_config():\n    return [][1]\n", r"config.py:2: IndexError"),
        ("import sys\nsys.exit(3)\n", r"config.py:2: SystemExit: 3"),
        ("x = 1 / 0\n", r"config.py:1: ZeroDivisionError"),
        ("x = '\x00'\n", r"config.py:1: "),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path, text, message):
    file = tmp_path / "config.py"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("--config.a=2", {"a": 2}),
        ("--config.a=2.5", {"a": 2.5}),
        ("--config.a=1e-3", {"a": 1e-3}),
        ("--config.a=true", {"a": True}),
        ("--config.a=None", {"a": None}),
        ("--config.a=runs/a b", {"a": "runs/a b"}),
        ("--config.a='3'", {"a": "3"}),
        ("--config.a=[1, 2]", {"a": (1, 2)}),
        ("--config.a=x=y", {"a": "x=y"}),
        ("--config.new.deep=1", {"a": 1, "new": {"deep": 1}}),
    ],
)
def test_overrides_are_python_literals_or_text(assignment, expected):
    result = override({"a": 1}, [assignment])
    assert result == {"a": 1, **expected}


def test_overrides_reach_into_tuples_and_replace_the_unit_of_a_duration():
    config = {"augment": ({"name": "crop", "padding": 4},), "duration": {"epochs": 3}, "empty": None}
    assert override(config, ["--config.augment.0.padding=2"])["augment"][0]["padding"] == 2
    assert override(config, ["--config.duration.steps=5"])["duration"] == {"steps": 5}
    assert override(config, ["--config.empty.decay=0.5"])["empty"] == {"decay": 0.5}
    assert config["duration"] == {"epochs": 3}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("--config.a.b=1", "leads through the value 1"),
        ("--config.t.5=1", "'5' is no index of a tuple of 2"),
        ("--config.t.x=1", "'x' is no index"),
        ("--config.t.²=1", "'²' is no index"),
        ("--sead=1", "is not understood; overrides look like"),
        ("--config.a", "is not understood"),
        ("word", "is not understood"),
    ],
)
def test_bad_overrides_are_named(assignment, message):
    with pytest.raises(UserError, match=message):
        override({"a": 1, "t": (1, 2)}, [assignment])


def test_a_resolved_config_survives_json_and_has_a_stable_digest(tiny_config):
    import json

    resolved = resolve(tiny_config)
    stored = json.loads(json.dumps(to_plain(resolved)))
    again = resolve(plain(stored))
    assert again == resolved
    assert sha256(again) == sha256(resolved)
    moved = override(tiny_config, ["--config.data.directory=/elsewhere"])
    assert sha256(resolve(moved)) == sha256(resolved)
    changed = override(tiny_config, ["--config.seed=9"])
    assert sha256(resolve(changed)) != sha256(resolved)


def test_a_file_edited_within_the_same_second_is_read_anew_and_leaves_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "config.py"
    for rate in ("0.1", "0.2", "0.3"):
        file.write_text(
            f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({{'rate': {rate}}})\n",
            encoding="utf-8",
        )
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert load(str(file)) == {"rate": float(rate)}
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]


def test_a_path_may_have_a_colon(tmp_path):
    (tmp_path / "a:b").mkdir()
    file = tmp_path / "a:b" / "config.py"
    file.write_text(
        "from ml_collections import ConfigDict\ndef get_config(v='x'):\n    return ConfigDict({'v': v})\n",
        encoding="utf-8",
    )
    assert load(str(file)) == {"v": "x"}
    assert load(f"{file}:y") == {"v": "y"}


def test_field_references_are_resolved():
    config = ConfigDict({"a": 1})
    config.b = config.get_ref("a")
    assert plain(config) == {"a": 1, "b": 1}
