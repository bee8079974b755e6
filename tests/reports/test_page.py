from html.parser import HTMLParser

import pytest

from hsl.reports import contents
from hsl.reports.comparisons import compare
from hsl.reports.gather import gather
from hsl.reports.notes import notes_on
from hsl.reports.page import write_page
from hsl.reports.results import models_of

VOID = {"meta", "link", "img", "br"}


class Checker(HTMLParser):
    """Knows whether every element is closed, and what the page shows and loads."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.loads, self.ids = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def page(tmp_path):
    def render(num_pictures=2):
        runs = gather([str(tmp_path / "outputs")])
        models = models_of(runs, ["name", "fold", "seed"], "encoder.name")
        ranked = contents.ranked(models, "miou", "val", "plain")
        in_order = [model for _, model in ranked]
        pairs = compare(in_order, "val", "plain", 100, 0)
        tables = {
            "ranking": contents.ranking_table(ranked, "val"),
            "per_class": contents.per_class_table(in_order, "val"),
            "folds": contents.folds_table(in_order, "val"),
            "pairwise": contents.pairwise_table(pairs),
        }
        path = tmp_path / "report" / "index.html"
        notes = notes_on(runs, in_order, "val")
        write_page(path, runs, in_order, tables, pairs, notes, num_pictures, "miou", "val", "plain")
        assert [each.name for each in path.parent.iterdir()] == ["index.html"]
        checker = Checker()
        checker.feed(path.read_text(encoding="utf8"))
        assert checker.open == []
        return checker

    return render


def test_the_page_is_well_formed_self_contained_and_complete(make_run, add_pictures, page):
    for fold in range(3):
        add_pictures(make_run("a", "a", fold), best=(0.9, 0.8), worst=(0.1 + fold / 100,))
        make_run("b", "b", fold)
    checker = page()
    outside = [target for target in checker.loads if not target.startswith(("data:", "#"))]
    assert outside == []
    anchors = {target.removeprefix("#") for target in checker.loads if target.startswith("#")}
    assert anchors <= set(checker.ids)
    text = " ".join("".join(checker.text).split())
    assert "Comparison of 2 models" in text
    assert "6 of 6 runs finished" in text
    assert "no difference shown" in text
    assert sum(target.startswith("data:image/jpeg") for target in checker.loads) == 8  # 2 + 2, input and overlay
    assert sum(target.startswith("data:image/png") for target in checker.loads) == 8 + 2  # masks; two matrices
    assert "p0.9 · fold 0 · mIoU 90.0 %" in text
    assert "p0.12" not in text  # worse than two others


def test_names_are_escaped(make_run, page):
    make_run("a", "<script>alert(1)</script>", provenance={"command": "<img src=http://x>"})
    checker = page()
    assert "script" not in checker.open
    assert not any("http" in target for target in checker.loads)
    assert "<script>alert(1)</script>" in "".join(checker.text)


def test_missing_views_leave_a_gap(make_run, add_pictures, page):
    folder = make_run()
    add_pictures(folder)
    (folder / "predictions" / "best_01_p0.9_truth.png").unlink()
    (folder / "predictions" / "worst_01_p0.1_input.png").write_bytes(b"no picture")
    text = "".join(page().text)
    assert "no truth" in text
    assert "no input" in text
    assert "no overlay" in text  # its legend cannot be cut off without the input


def test_a_page_of_one_run(make_run, page):
    make_run()
    text = " ".join("".join(page().text).split())
    assert "Comparison of 1 model " in text
    assert "nothing to compare" in text
    assert "n/a (1 fold)" in text


def test_a_page_without_any_result(make_run, page):
    make_run(status="failed", provenance={"error": "ValueError: x"})
    (make_run("b", "b") / "config.yaml").unlink()
    text = " ".join("".join(page().text).split())
    assert "0 of 2 runs finished" in text
    assert "failed: ValueError: x" in text
    assert "config.yaml` is missing" in text


def test_an_unscored_class_is_a_dash_not_zero(make_run, page):
    make_run(confusion=[[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    cells = [text.strip() for text in page().text if text.strip()]
    start = cells.index("background")
    assert cells[start : start + 6] == ["background", "100.00", "crack", "100.00", "stain", "–"]
