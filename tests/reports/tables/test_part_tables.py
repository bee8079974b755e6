"""The comparison of the parts in a report: from the files of the runs to table, page and notes."""

import numpy as np
import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.page.notes import notes_on
from hsl.reports.statistics.part_tests import PartCounts, compare_parts
from hsl.reports.tables.part_tables import parts_of, parts_table
from hsl.run_folder.parts import PartTests, write_parts
from hsl.run_folder.run import ScoredOn


def page(fold, share=0.8):
    shown = [np.arange(num) < of * num for of, num in ((0.3, 60), (share, 40))]
    parts = {
        part: PartCounts(
            np.stack([np.full(len(one), 50), one * 9], 1), np.stack([one >= 0, one], 1), np.ones((len(one), 2)) > 0
        )
        for part, one in zip(("train", "val"), shown, strict=True)
    }
    tests = compare_parts("segmentation", ["clean", "crack"], parts, "groups")
    return PartTests(data="walls", fold=fold, unit="groups", tests=tests)


@pytest.fixture
def runs(make_run, tmp_path):
    for name in "ab":
        for fold in range(2):
            write_parts(make_run(name, name, fold), page(fold))
    make_run("c", "c")  # from before the comparison
    return lambda: gather([str(tmp_path / "outputs")])


def test_alike_runs_are_told_once_and_by_fold(runs):
    found = parts_of(runs())
    assert [one.fold for one in found] == [0, 1]
    table = parts_table(found)
    assert [column.key for column in table.columns[:3]] == ["fold", "head", "of"]
    verdicts = {row[3]: row[5] for row in table.rows if row[2] == "groups that show it"}
    assert verdicts == {"clean": "not tested: every one shows it", "crack": "unlike, a medium difference"}
    assert "over groups" in table.caption


def test_a_broken_file_is_told_in_the_notes(runs, tmp_path):
    next((tmp_path / "outputs" / "a").rglob("parts.json")).write_text("{}")
    found = runs()
    models = models_of(found, ["name", "fold", "seed"], "encoder.name")
    assert any("parts.json" in note.text for note in notes_on(found, models, ScoredOn("val")))
