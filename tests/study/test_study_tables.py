"""`results.csv`: what is written is read, and a damaged file is refused with its place."""

import math

import hypothesis
import hypothesis.strategies as st
import pytest
from synthetic import make_rows, make_study

from cnn_jax.errors import UserError
from cnn_jax.study.outcome import RunRow
from cnn_jax.study.tables import COLUMNS, STATUSES, read_results, write_results

# Whatever UTF-8 can say: commas, quotes, line ends of all kinds, zeros.
TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(',"\r\n\x00|')), max_size=20)
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False))
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), TEXTS)
ROWS = st.builds(
    RunRow,
    variant=TEXTS,
    seed=st.integers(-5, 10**9),
    status=st.sampled_from(STATUSES),
    values=st.dictionaries(TEXTS, NUMBERS, max_size=4),
    chosen=st.dictionaries(TEXTS, st.one_of(PLAIN, st.tuples(PLAIN, PLAIN)), max_size=3),
    key=TEXTS,
    commit=TEXTS,
    hardware=TEXTS,
    data=st.dictionaries(TEXTS, TEXTS, max_size=2),
    message=TEXTS,
)


def unique(rows):
    """The first row of each variant and seed."""
    return list({(row.variant, row.seed): row for row in reversed(rows)}.values())


def without_none(row):
    values = {name: value for name, value in row.values.items() if value is not None}
    return {**vars(row), "values": values}


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(st.lists(ROWS, max_size=5).map(unique))
def test_what_is_written_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "results.csv"
    write_results(path, rows)
    first = path.read_bytes()
    assert [without_none(row) for row in read_results(path)] == [without_none(row) for row in rows]
    write_results(path, read_results(path))
    again = path.read_bytes()
    # A column that is empty in all rows is not written again; everything else is the same.
    if {name for row in rows for name in row.values} == {n for row in rows for n in without_none(row)["values"]}:
        assert again == first


def test_not_a_number_stays_so(tmp_path):
    rows = [RunRow("a", 0, "completed", {"x": math.nan, "y": -0.0, "z": 5e-324})]
    write_results(tmp_path / "results.csv", rows)
    (row,) = read_results(tmp_path / "results.csv")
    assert math.isnan(row.values["x"])
    assert math.copysign(1, row.values["y"]) == -1
    assert row.values["z"] == 5e-324


def test_the_file_is_as_documented(tmp_path):
    row = RunRow(
        "a b", 3, "completed", {"x": 0.1, "b": None}, {"rate": 0.1}, "k", "c+", "cpu", {"train": "0f"}, 'it "is"'
    )
    write_results(tmp_path / "results.csv", [row])
    assert (tmp_path / "results.csv").read_bytes() == (
        b"variant,seed,status,key,commit,hardware,data,chosen,message,b,x\n"
        b'a b,3,completed,k,c+,cpu,"{""train"": ""0f""}","{""rate"": 0.1}","it ""is""",,0.1\n'
    )


def test_what_utf_8_cannot_say_is_written_as_its_escape(tmp_path):
    write_results(tmp_path / "results.csv", [RunRow("a", 0, "failed", message="no file \udcff.png")])
    assert read_results(tmp_path / "results.csv")[0].message == "no file \\udcff.png"


def test_a_spreadsheet_may_have_saved_it(tmp_path):
    rows = make_rows(make_study(variants=2, measures=1))
    path = tmp_path / "results.csv"
    write_results(path, rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_results(path) == rows


HEAD = ",".join(COLUMNS) + ",x\n"
GOOD = "a,0,completed,k,c,h,{},{},m,1.5\n"
DAMAGED = {
    "": "line 1: column 'variant'",
    "variant,seed\na,0\n": "line 1: column 'status' is not there",
    HEAD.replace("key", "keys"): "line 1: column 'key' is not there, but 'keys'",
    HEAD.replace("\n", ",x\n"): "line 1: column 'x' is there twice",
    HEAD + GOOD + "b,0,completed,k,c,h,{},{},m\n": "line 3 has 9 cells, not 10: column 'x'",
    HEAD + GOOD + GOOD.replace("\n", ",7\n"): "line 3 has 11 cells, not 10: the cell '7'",
    HEAD + GOOD + GOOD.replace("a,0", "a,zero"): "line 3, column 'seed': 'zero'",
    HEAD + GOOD + GOOD: "line 3, column 'seed': 'a' has seed 0 twice",
    HEAD + GOOD.replace("completed", "complete"): "line 2, column 'status': 'complete'",
    HEAD + GOOD.replace("1.5", "1.5.2"): "line 2, column 'x': '1.5.2'",
    HEAD + GOOD.replace("{},{}", "{,{}"): "line 2, column 'data': '{'",
    HEAD + GOOD.replace("{},{}", "{},[1]").replace("[1]", "3"): "line 2, column 'chosen': '3'",
    HEAD + GOOD.replace("{},{}", '"{""a"": 1}",{}'): "line 2, column 'data': 'a' has 1",
    HEAD + GOOD.replace(",m,", ',"two\nlines",') + GOOD.replace("a,0", "b,x"): "line 4, column 'seed': 'x'",
    HEAD + GOOD + 'b,0,"completed"?,k,c,h,{},{},m,1\n': "line 3 is damaged",
    HEAD + GOOD + 'b,0,"compl\n': "line 3 is damaged",
    HEAD + GOOD[:-2]: "line 2 is cut off behind",
}


@pytest.mark.parametrize(("text", "said"), DAMAGED.items())
def test_damage_is_refused_with_its_place(tmp_path, text, said):
    path = tmp_path / "results.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as error:
        read_results(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_other_encodings_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "results.csv"
    with pytest.raises(UserError, match="cannot be read"):
        read_results(path)
    path.write_bytes((HEAD + GOOD).encode() + b"\xff\n")
    with pytest.raises(UserError, match="line 3 is damaged: it is not UTF-8"):
        read_results(path)


def test_a_file_that_was_cut_is_refused_or_gives_whole_rows(tmp_path):
    rows = make_rows(make_study(variants=2, measures=1, seeds=2))
    path = tmp_path / "results.csv"
    write_results(path, rows)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        ended = whole[:length].count(b"\n")
        if length and whole[:length].endswith(b"\n"):
            assert read_results(path) == rows[: ended - 1]
        else:
            with pytest.raises(UserError, match=f"line {ended + 1}"):
                read_results(path)
