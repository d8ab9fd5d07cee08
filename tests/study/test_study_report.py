"""Reports of studies: the same bytes again, every number the analysis's own, and nothing from data is markup."""

import html.parser
import re
import shutil

import pytest
from synthetic import make_curves, make_rows, make_study

from cnn_jax.errors import UserError
from cnn_jax.study import index, report
from cnn_jax.study.analysis import analyse
from cnn_jax.study.document import Table
from cnn_jax.study.formats import estimate, mean_and_deviation, number, probability, scale_of
from cnn_jax.study.markdown import escape
from cnn_jax.study.origin_tables import Provenance
from cnn_jax.study.outcome import RunRow
from cnn_jax.study.report import make_document, write_report
from cnn_jax.study.result_tables import comparison_table, run_table, to_baseline, variant_table
from cnn_jax.study.spec import BASELINE, variants_of
from cnn_jax.study.stored import write_study
from cnn_jax.study.tables import read_results

PROVENANCE = Provenance(
    commands=("python experiments/study.py run --study=c05.py --workdir='studies/c05'",),
    study_file="configs/studies/c05.py",
    study_sha256="ab" * 32,
    versions={"jax": "0.10.2", "flax": "0.12.8"},
)
EVIL = "</script><script>alert('x')</script><b>&amp; \"q\" [a](b) `c` *d* | e"
VOID = {"meta", "br", "img", "link", "hr", "input"}


def write(directory, study, rows, curves=None, provenance=PROVENANCE):
    write_report(directory, study, rows, curves or {}, analyse(study, rows), provenance)
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def study():
    return make_study(variants=3, measures=2, changes={"tuning": {"grid": {"optimizer.learning_rate": [0.1, 0.05]}}})


@pytest.fixture(scope="module")
def rows(study):
    return make_rows(study)


@pytest.fixture(scope="module")
def written(study, rows, tmp_path_factory):
    """File to bytes of a report, and its directory."""
    directory = tmp_path_factory.mktemp("report")
    return write(directory, study, rows, make_curves(study)), directory


class Page(html.parser.HTMLParser):
    """A page's tags, balanced or not, its text, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loaded, self.text, self.cells = [], [], [], "", []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster", "action") or (name == "href" and tag != "a"):
                self.loaded.append(value)
            self.loaded += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "script"):
            self.loaded += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", data)
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def page_of(files):
    return Page(files["report.html"].decode())


def test_everything_is_written(written):
    files, _ = written
    names = ("curves_train_loss", "curves_validation_accuracy", "differences", "seeds")
    figures = {f"figures/{name}.{form}" for name in names for form in ("png", "svg")}
    assert set(files) == {"report.md", "report.html", "results.csv"} | figures


def test_repetition_order_and_place_change_no_byte(study, rows, written, tmp_path):
    files, directory = written
    curves = make_curves(study)
    turned = {
        metric: {variant: dict(reversed(list(seeds.items()))) for variant, seeds in reversed(list(of.items()))}
        for metric, of in reversed(list(curves.items()))
    }
    other = tmp_path / "elsewhere"
    assert write(other, study, list(reversed(rows)), turned) == files
    assert write(directory, study, rows, curves) == files  # over the old one


def test_a_report_can_be_made_again_from_its_own_results(study, written, tmp_path):
    files, directory = written
    stored = read_results(directory / "results.csv")
    assert write(tmp_path, study, stored, make_curves(study)) == files


def test_a_figure_of_a_metric_that_is_gone_goes_and_other_files_stay(study, rows, tmp_path):
    write(tmp_path, study, rows, make_curves(study))
    (tmp_path / "figures" / "mine.txt").write_text("kept")
    files = write(tmp_path, study, rows)
    assert {name for name in files if name.startswith("figures/")} == {
        *("figures/differences.png", "figures/differences.svg", "figures/seeds.png", "figures/seeds.svg"),
        "figures/mine.txt",
    }


def texts(table: Table):
    return [[cell.text for cell in row] for row in table.rows]


def test_every_number_of_the_comparisons_is_the_analysis_s(study, rows):
    analysis = analyse(study, rows)
    lines = texts(comparison_table(study, analysis))
    assert len(lines) == len(analysis.tested) == 4
    for line, tested in zip(lines, analysis.tested):
        scale = scale_of(tested.comparison.measure, study.measures[tested.comparison.measure])
        low, high = (number(100 * end, decimals=2, signed=True) for end in (tested.adjusted.low, tested.adjusted.high))
        assert line[0].startswith(tested.name)
        assert line[1] == tested.verdict
        assert line[4:] == [
            *(estimate(tested.interval, scale), f"[{low}, {high}]", probability(tested.adjusted_p)),
            *(str(tested.interval.n), str(tested.left_out)),
        ]
    # By hand: the last variant has a failed and a diverged run.
    assert [line[-1] for line in lines] == ["0", "2", "0", "2"]


def test_every_number_of_the_variants_is_the_analysis_s(study, rows):
    analysis = analyse(study, rows)
    table = variant_table(study, rows, analysis)
    assert [line[0] for line in texts(table)] == list(variants_of(study))
    for line in texts(table):
        for place, name in enumerate(study.measures):
            summary = analysis.summaries[line[0]][name]
            scale = scale_of(name, study.measures[name])
            shown, n, difference = line[1 + 3 * place : 4 + 3 * place]
            assert shown == mean_and_deviation(summary.mean, summary.deviation, scale)
            assert n == str(summary.n)
            if line[0] == BASELINE:
                assert difference == "–"
    assert table.header[-3:] == ("parameters", "MACs", "seconds, wall time")
    assert [line[-3:-1] for line in texts(table)] == [
        ["61,706", "416,520"],
        ["62,706", "833,040"],
        ["63,706", "1,249,560"],
    ]


@pytest.mark.parametrize("kind", ["t", "bootstrap"])
def test_differences_to_the_baseline_are_those_that_are_tested(kind):
    study = make_study(variants=3, measures=2, changes={"interval": kind})
    rows = make_rows(study)
    analysis = analyse(study, rows)
    for tested in analysis.tested:
        found = to_baseline(study, analysis, tested.comparison.variant, tested.comparison.measure)
        assert found == tested.interval


def test_a_run_has_its_own_line(study, rows):
    table = run_table(study, rows, analyse(study, rows))
    assert len(table.rows) == len(rows)
    for line, row in zip(texts(table), rows):
        assert line[:3] == [row.variant, str(row.seed), row.status]
        value = row.values.get("test/accuracy")
        assert line[3] == ("–" if value is None else f"{100 * value:.4g}")
        assert line[-1] == row.key[:12]


def test_both_reports_say_the_same(study, rows, written):
    files, _ = written
    analysis = analyse(study, rows)
    page, text = page_of(files), files["report.md"].decode()
    shown = " ".join(page.text.split())
    assert analysis.sentence in shown
    # The verdict stands out, and the rest of its sentence follows.
    assert text.index(f"**{analysis.verdict.capitalize()}**") < text.index("## Warnings") < text.index("## Comparisons")
    for warning in analysis.warnings:
        assert warning in shown
        assert escape(warning) in text
    document = make_document(study, rows, analysis, PROVENANCE)
    for section in document.sections:
        assert f"## {section.title}" in text
        for table in (block for block in section.blocks if isinstance(block, Table)):
            for line in texts(table):
                for cell in line:
                    if isinstance(cell, str):
                        assert cell in page.cells
                        assert f"| {escape(cell)} |" in text
    for said in (study.claim, "Ioffe & Szegedy 2015", "loss is NaN at step 37", "out of memory", "Tried at depth 4"):
        assert said in shown
    assert PROVENANCE.commands[0] in shown
    assert PROVENANCE.commands[0] in text
    for once in ("ab" * 32, "0f3c9a12be77d401", "512053f5a1b2c3d4+", "AMD EPYC 9B14", "0, 1, 2, 3, 4"):
        assert once in shown
        assert once in text


def test_the_page_loads_nothing(written):
    files, _ = written
    page = page_of(files)
    assert page.loaded
    assert all(str(target).startswith("#") for target in page.loaded), set(page.loaded)
    assert "default-src 'none'" in next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    addresses = {a["href"] for tag, a in page.tags if tag == "a" and not a["href"].startswith("#")}
    assert addresses == {"https://arxiv.org/abs/1502.03167"}
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for target in page.loaded:
        assert target[1:] in names
    assert {a["href"][1:] for tag, a in page.tags if tag == "a" and a["href"].startswith("#")} <= set(names)


def test_the_page_suits_phones_darkness_and_readers(written):
    files, _ = written
    page, text = page_of(files), files["report.html"].decode()
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    # Every colour of a figure is the page's own to change.
    assert not re.findall(r"<(?:path|rect|text|g|use)[^>]*#[0-9a-f]{6}\b[^>]*>", text)
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "table":
            assert attributes["aria-label"]


TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "nav", "section", "div", "span", "script"),
    *("p", "h1", "h2", "blockquote", "cite", "ul", "li", "a", "pre", "code", "figure", "figcaption"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
    *("svg", "g", "path", "defs", "clippath", "rect", "use", "text"),
}


def test_nothing_from_data_is_markup(tmp_path):
    named = dict.fromkeys(("title", "claim", "source", "notes"), EVIL)
    study = make_study(
        variants=2,
        measures=1,
        seeds=2,
        changes={
            **named,
            "variants": {"other": {EVIL: EVIL}},
            "measures": {EVIL: {"of": {"x": 1.0}}},
            "comparisons": [{"measure": EVIL, "variant": "other", "name": EVIL}],
        },
    )
    known = {"key": EVIL, "commit": EVIL, "hardware": EVIL, "data": {EVIL: EVIL}, "chosen": {EVIL: EVIL}}
    cells = [(BASELINE, 0), (BASELINE, 1), ("other", 0)]
    rows = [RunRow(variant, seed, "completed", {"x": 0.5 + 0.01 * seed}, **known) for variant, seed in cells]
    rows.append(RunRow("other", 1, "failed", message=EVIL, **known))
    provenance = Provenance((EVIL, "two\nlines```"), EVIL, EVIL, {EVIL: EVIL}, {EVIL: EVIL})
    files = write(tmp_path, study, rows, {EVIL: {"other": {0: [(1, 0.5), (2, 0.6)]}}}, provenance)
    page = page_of(files)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert files["report.html"].count(b"<script>") == files["report.html"].count(b"</script>") == 1
    assert page.text.count(EVIL) > 20
    fence = re.compile(r"^(`{3,})sh\n.*?\n\1$", re.DOTALL | re.MULTILINE)
    text = files["report.md"].decode()
    assert len(fence.findall(text)) == 1
    text = fence.sub("", text)
    width = 0
    for line in text.splitlines():
        bars = len(re.findall(r"(?<!\\)\|", line))
        if not line.startswith("|"):
            assert not bars
            width = 0
        else:
            width = width or bars
            assert bars == width, line
    spans = re.compile(r"(?<!\\)(`+) ?[^`].*?(?<!`)\1(?!`)")
    shown = spans.sub("", text)
    for markup in ("<", r"(?<!\\)\]\(b", r"(?<!\\)`c", r"(?<!\\)\*d"):
        assert not re.search(markup, shown), markup


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("__init__ of a_b", "\\_\\_init\\_\\_ of a_b"),
        ("<b> & $x$", "&lt;b> &amp; \\$x\\$"),
        ("two\n lines", "two lines"),
        ("[low, high] [a](b) [^1]", "[low, high] [a\\](b) \\[^1]"),
    ],
)
def test_markdown_is_escaped_where_it_means_something(text, shown):
    assert escape(text) == shown


def store(results, study, rows):
    folder = results / study.id
    write_study(folder, study)
    write(folder, study, rows)


def test_the_table_of_claims_is_made_of_what_is_stored(tmp_path):
    results, readme = tmp_path / "experiments" / "results", tmp_path / "README.md"
    assert index.claims_table(results, readme=readme) == "No studies are stored yet."
    for identity in ("c10", "c9"):
        study = make_study(variants=3, measures=2, changes={"id": identity, "claim": f"{identity} | is true."})
        store(results, study, make_rows(study))
    (results / "benchmarks").mkdir()
    table = index.claims_table(results, readme=readme)
    lines = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in table.splitlines()]
    assert lines[0] == ["id", "claim", "verdict", "effect", "scale", "report"]
    assert [line[0] for line in lines[2:]] == ["C9", "C10"]  # by number
    analysis = analyse(study, make_rows(study))
    first = analysis.tested[0]
    points = estimate(first.interval, scale_of("test accuracy", study.measures["test accuracy"]))
    assert lines[2] == [
        *("C9", "c9 \\| is true.", analysis.verdict),
        f"test accuracy, no BatchNorm − baseline: {points} points, n = 5; 1 more in the report",
        *("small", "[report](experiments/results/c9/report.md)"),
    ]
    assert index.claims_table(results, readme=readme) == table


def test_the_table_of_claims_refuses_what_is_incomplete(tmp_path):
    study = make_study(variants=2, measures=1)
    store(tmp_path, study, make_rows(study))
    (tmp_path / "c05" / "report.md").unlink()
    with pytest.raises(UserError, match=r"c05 has no report\.md"):
        index.claims_table(tmp_path, readme=tmp_path / "README.md")
    (tmp_path / "c05" / "results.csv").unlink()
    with pytest.raises(UserError, match=r"results\.csv cannot be read"):
        index.claims_table(tmp_path, readme=tmp_path / "README.md")
    store(tmp_path, study, make_rows(study))
    shutil.move(tmp_path / "c05", tmp_path / "c06")
    with pytest.raises(UserError, match="is the study 'c05'; name its folder so"):
        index.claims_table(tmp_path, readme=tmp_path / "README.md")


def test_inside_the_repository_the_rule_has_a_link_and_elsewhere_no_path(repository, study, rows):
    # `_readme` through what it decides: a report that is stored links to the README of the repository.
    analysis = analyse(study, rows)
    link = "../../../README.md"
    document = make_document(study, rows, analysis, PROVENANCE, readme=link)
    section = next(section for section in document.sections if section.title == "How a verdict is made")
    assert f"{link}#{report.RULE_ANCHOR}" in repr(section)
    assert (repository / "experiments" / "results" / link).name == "README.md"


def test_an_empty_study_has_a_report(tmp_path):
    # Before the first run, and with a single seed, there is nothing to test, but something to say.
    study = make_study(variants=3, measures=4, seeds=1)
    for rows in ([], make_rows(study, broken=False)):
        files = write(tmp_path, study, rows)
        page = page_of(files)
        assert "inconclusive" in page.text.lower()
        assert not re.search(r"\b(nan|inf|none)\b", page.text, re.IGNORECASE)
