"""Names that come from data or from a run's files are text in every report: no tag, no cell, no fence, no link."""

import html.parser
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.train import report
from cnn_jax.train.data_report import Section, markdown
from cnn_jax.train.experiment import Experiment
from cnn_jax.train.markdown_text import code, escape, fenced
from cnn_jax.train.run_directory import RunDirectory

EVIL = "<script>alert(1)</script> a|b `c` *d* [e](javascript:f) ![g](h) <img src=x onerror=i> &lt; \\| $x$"
LINES = f"{EVIL}\n```\n<b>outside</b>\n# heading"


def without_code(text):
    """Markdown without its blocks and spans of code, in which nothing is markup."""
    text = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<![\\`])(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def check(text):
    """Nothing of EVIL is markup."""
    shown = without_code(text)
    for markup in ("<", r"(?<!\\)\]\((?!figures/)", r"(?<!\\)`", r"^# heading"):
        assert not re.search(markup, shown, re.MULTILINE), (markup, shown)
    bars = 0
    for line in shown.splitlines():
        found = len(re.findall(r"(?<!\\)\|", line))
        assert not found or not bars or found == bars, line
        bars = found


class Split:
    class_names, origin = (EVIL, LINES), f"folder/{LINES}/train"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """`report.md` of a run whose names are all hostile."""
    experiment, directory = object.__new__(Experiment), object.__new__(RunDirectory)
    parts = {"splits": {"train": Split(), "test": Split()}, "config": {"data": {"name": LINES}}}
    for name, value in parts.items():
        object.__setattr__(experiment, name, value)
    monkeypatch.setattr(Experiment, "evaluation_splits", ("test",))
    directory.path = tmp_path
    data = {"test": {"origin": Split.origin, "examples": 2, "sha256": "0" * 64}}
    hardware = {"devices": 1, "device": EVIL, "processor": EVIL, "cores": 2}
    session = {
        "git": {"commit": EVIL, "dirty": True},
        "started": EVIL,
        "hardware": hardware,
        "versions": {EVIL: EVIL},
        "command": ["python", "train.py", LINES],
        "data": data,
    }
    (tmp_path / "passport.json").write_text(json.dumps({"sessions": [session]}), encoding="utf-8")
    columns = {f"test/per_class_{name}": [0.5, 0.25] for name in ("precision", "recall", "f1")}
    result = {
        "model": "mlp",
        "status": "completed",
        "steps": 1,
        "evaluated_step": 1,
        "metrics": {"test/accuracy": 0.5},
        "data": data,
        "corrupt": {"train": [f"{LINES!r} is damaged", LINES]},
        "per_class": columns,
        "examples_per_second": 1.0,
        "seed": 0,
        "parameters": 1,
        "wall_seconds": 1.0,
        "config_sha256": "0" * 64,
    }
    report.write_report(experiment, directory, result, [tmp_path / "figures" / "a.png"])
    return (tmp_path / "report.md").read_text(encoding="utf-8")


def test_no_name_is_markup_in_the_report_of_a_run(written):
    check(written)
    assert written.count("alert(1)") > 10


def test_no_name_is_markup_in_the_report_of_a_data_set():
    rows = [(EVIL, LINES), (LINES, "1")]
    text = markdown(LINES, [Section(LINES, (EVIL, LINES), 2, rows, [LINES, EVIL])])
    check(text)
    assert text.count("alert(1)") == 9


def test_a_file_whose_name_is_no_unicode_can_be_told_in_json():
    from cnn_jax.train.data_report import describe

    found = describe_copies(describe)
    text = json.dumps(found, ensure_ascii=False).encode("utf-8")
    assert rb"caf\\udce9" in text


def describe_copies(describe):
    """A split of two equal images with such names, described."""
    from cnn_jax.data.examples import ArrayExamples
    from cnn_jax.data.inspection import inspect_split

    examples = ArrayExamples(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32), "x")
    inspection = inspect_split(
        examples, np.arange(2), np.zeros(2, np.int32), classes=1, channels=None, transforms=(), progress=lambda _: None
    )
    name = b"caf\xe9.png".decode("utf-8", errors="surrogateescape")
    return describe(
        {"train": inspection}, origins={"train": "x"}, class_names=["a"], name_of=lambda _, place: f"{place}{name}"
    )


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):  # noqa: ARG002
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


MARKS = st.text(alphabet=list("<>&|`*[]()!\\_~$#-+= \n\r\tab\"'/\x0b\x0c\x85\u2028\u202e"), max_size=60)


@settings(max_examples=200, deadline=None)
@given(MARKS)
def test_escaped_text_is_one_line_without_tags(text):
    shown = escape(text)
    assert len(shown.splitlines()) <= 1
    assert Tags(shown).tags == []
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*]", re.sub(r"\\[|`*]", "", shown))


@settings(max_examples=200, deadline=None)
@given(MARKS.filter(str.strip))
def test_code_ends_where_its_text_does(text):
    shown = code(text)
    assert len(shown.splitlines()) <= 1
    fence = re.match("`+", shown)[0]
    inside = shown[len(fence) : -len(fence)]
    assert shown.endswith(fence)
    assert fence not in re.findall("`+", inside)
    assert not re.search(r"(?<!\\)\|", inside)


@settings(max_examples=200, deadline=None)
@given(st.lists(MARKS, max_size=5))
def test_a_block_of_code_ends_where_its_lines_do(lines):
    first, *inside, last = "\n".join(fenced(lines, "sh")).splitlines()
    assert first == f"{last}sh"
    assert not any(last in line for line in inside)
