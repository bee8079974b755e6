import json

import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.tables.run_tables import folds_table, phases_table

PHASES = {
    "A": {"status": "finished", "epochs": 30, "monitor": "val/miou", "value": 0.71, "epoch": 21, "wall_time_s": 61.0},
    "B": {"status": "reverted", "epochs": 12, "monitor": "val/accuracy", "value": 0.9, "epoch": -1},
    "C": {"status": "skipped", "note": "phase B was reverted"},
}


@pytest.fixture
def table(tmp_path):
    def run():
        runs = gather([str(tmp_path / "outputs")])
        return phases_table(models_of(runs, ["name", "fold", "seed"], "encoder.name"))

    return run


def test_a_row_per_phase(make_run, table):
    phases = {**PHASES, "A": {**PHASES["A"], "refinement": {"round": 1, "drift": 0.125}}}
    (make_run("a", "a", 1) / "phases.json").write_text(json.dumps(phases))
    make_run("b", "b", 1)
    assert table().texts == [
        ["a", "1", "0", "A", "finished", "30", "val/miou", "0.7100", "22", "12.50", "0:01:01", "–"],
        ["a", "1", "0", "B", "reverted", "12", "val/accuracy", "0.9000", "0", "–", "–", "–"],
        ["a", "1", "0", "C", "skipped", "–", "–", "–", "–", "–", "–", "phase B was reverted"],
    ]


def test_unfinished_runs_show_how_far_they_came_and_replaced_ones_are_left_out(make_run, table):
    for time in ("2026-01-01", "2026-01-02"):
        (make_run("a", "a", 0, time=time) / "phases.json").write_text(json.dumps({"A": {"status": time}}))
    (make_run("a", "a", 1, status="failed") / "phases.json").write_text(json.dumps({"A": {"status": "running"}}))
    assert [row[4] for row in table().rows] == ["2026-01-02", "running"]


def test_no_phases_no_table(make_run, table):
    make_run()
    assert table() is None


def cells(table, key):
    return [row[[column.key for column in table.columns].index(key)] for row in table.rows]


def test_folds_list_what_is_missing(make_run, split_of, tmp_path):
    split = split_of()
    split["folds"][1]["name"] = "wood"
    make_run(fold=0, confusion=[[50, 0, 0], [0, 50, 0], [0, 0, 0]], split=split)
    make_run(fold=1, status="failed", split=split, provenance={"error": "OSError: full"})
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    table = folds_table(models, "val")
    assert cells(table, "fold") == ["0", "1: wood", "2"]
    assert cells(table, "status") == ["finished", "failed: OSError: full", "no run folder"]
    assert cells(table, "miou") == [1.0, None, None]
    assert cells(table, "images") == [4, None, None]
    assert table.texts[0][-2] == "0:01:01"
