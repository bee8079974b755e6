import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from hsl.metrics.catalogue import SCORES, score_names
from hsl.reports.models import models_of
from hsl.reports.page.notes import notes_on
from hsl.reports.page.report_page import classes_of, write_page
from hsl.reports.plots.report_plots import report_plots
from hsl.reports.statistics.comparisons import compare
from hsl.reports.statistics.ranking import ranked, ranking_table
from hsl.reports.tables.class_tables import per_class_table
from hsl.reports.tables.comparison_tables import pairwise_table
from hsl.reports.tables.run_tables import folds_table, picture_table
from hsl.reports.tables.score_tables import Column, Table
from hsl.run_folder.run import ScoredOn, gather

pytestmark = pytest.mark.usefixtures("undrawn")

VOID = {"meta", "link", "img", "br", "input"}


class Checker(HTMLParser):
    """Knows whether every element is closed, and what the page shows and loads."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.loads, self.ids, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attributes)

    def _note(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self._note(tag, attributes)

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())


@pytest.fixture
def page(tmp_path):
    def render(num_pictures=2, part="val", answers=None):
        runs = gather([str(tmp_path / "outputs")])
        models = models_of(runs, ["name", "fold", "seed"], "encoder.name")
        ranking = ranked(models, "miou", ScoredOn(part))
        in_order = [model for _, model in ranking]
        pairs = compare(in_order, ScoredOn(part), 100, 0, "miou")
        tables = {
            "ranking": ranking_table(ranking, ScoredOn(part)),
            "per_class": per_class_table(in_order, ScoredOn(part)),
            "folds": folds_table(in_order, part),
            "pairwise": pairwise_table(pairs, "miou"),
            "pictures": picture_table(in_order, ScoredOn(part)),
        }
        path = tmp_path / "report" / "index.html"
        notes = notes_on(runs, in_order, ScoredOn(part))
        plots = report_plots([model for model in in_order if model.finished], "miou", ScoredOn(part))
        write_page(
            path, runs, in_order, tables, plots, pairs, notes, num_pictures, "miou", ScoredOn(part), answers=answers
        )
        checker = Checker()
        checker.source = path.read_text(encoding="utf8")
        checker.feed(checker.source)
        assert checker.open == []
        assert len(set(checker.ids)) == len(checker.ids)
        outside = [target for target in checker.loads if not target.startswith(("data:", "#"))]
        assert outside == []
        anchors = {target.removeprefix("#") for target in checker.loads if target.startswith("#")}
        assert anchors <= set(checker.ids)
        return checker

    return render


def test_the_page_is_well_formed_self_contained_and_complete(make_full_runs, page, drawn):
    make_full_runs({"a": 0.9, "b": 0.4}, num_folds=2)
    checker = page(num_pictures=1)
    assert "Comparison of 2 models" in checker.words
    assert "4 of 4 runs finished" in checker.words
    for heading in ("Calibration", "Errors", "Confusion matrices", "Learning curves", "Failed objects", "Audit of the"):
        assert heading in checker.words
    assert "Not shown, for want of" not in checker.words
    plots = {"ranking", "reliability", "errors", "hd95", "assd", "failures", "curves"}
    plots |= {"confusion_01_a", "confusion_02_b", "confused_01_a", "confused_02_b"}
    assert {name.removeprefix("plot-") for name in checker.ids if name.startswith("plot-")} == plots


def test_the_page_defines_every_score_of_its_tables(make_run, page):
    make_run()
    words = page().words
    for name in (*score_names("pixels"), *score_names("pixels", per_class=True), *score_names("objects")):
        assert f"{SCORES[name].title}{SCORES[name].definition}" in words
    assert SCORES["macro_f1"].definition not in words, "there is no image head"


def test_the_script_is_the_one_that_the_policy_allows(make_run, page):
    make_run()
    source = page().source
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in source or f"script-src 'sha256-{digest}'" in source


def test_names_are_escaped(make_run, page):
    make_run("a", "<script>alert(1)</script>", provenance={"command": "<img src=http://x>"})
    checker = page()
    assert checker.tags.count("script") == 1
    assert not any("http" in target for target in checker.loads)
    assert "<script>alert(1)</script>" in "".join(checker.text)


def test_runs_from_before_pixel_counts_and_the_pool_say_what_is_missing(make_run, page):
    for name in ("a", "b"):
        folder = make_run(name, name)
        (folder / "pixel_counts.npz").unlink()
    checker = page()
    assert "for want of pixel_counts.npz in their run folders: a, b" in checker.words
    assert "for want of objects.jsonl in their run folders: a, b" in checker.words
    assert "plot-reliability" not in checker.ids
    assert "no audit:" in checker.words


def test_a_page_of_one_run(make_run, page):
    make_run()
    text = page().words
    assert "Comparison of 1 model " in text
    assert "nothing to compare" in text
    assert "(1 fold)" in text


def test_a_page_without_any_result(make_run, page):
    make_run(status="failed", provenance={"error": "ValueError: x"})
    (make_run("b", "b") / "config.yaml").unlink()
    text = page().words
    assert "0 of 2 runs finished" in text
    assert "failed: ValueError: x" in text
    assert "config.yaml` is missing" in text


def test_an_unscored_class_is_a_dash_not_zero(make_run, page):
    make_run(confusion=[[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    source = page().source
    heat = source[source.index('id="table-heat"') :]
    assert re.findall(r'data-sort="([^"]*)"', heat)[:3] == ["1.0", "1.0", ""]
    assert "–</td>" in heat


def test_the_column_of_the_model_stays_and_further_ones_are_shown_on_request():
    columns = [Column("rank", "#", "count"), Column("model", "model"), Column("nll", "NLL", "value", more=True)]
    table = Table("t", "", columns, [])
    assert [classes_of(column, table) for column in columns] == ["number", "fixed", "number more"]
    pairs = Table("p", "", [Column("first", "A"), Column("second", "B")], [])
    assert [classes_of(column, pairs) for column in pairs.columns] == ["fixed", ""]


def test_the_page_opens_with_the_answer(make_run, page):
    make_run()
    checker = page(answers={"pixels": ["a is <best>.", "Another training may undo this (p = 0.21)."]})
    start = checker.source.index('<main id="main">')
    assert checker.source.index("a is &lt;best&gt;.") < checker.source.index('id="table-ranking"')
    assert 'class="answer"' in checker.source[start : start + 120]
    assert "Another training may undo this (p = 0.21)." in checker.words
