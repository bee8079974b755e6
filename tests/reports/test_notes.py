import json

import pytest

from hsl.reports.gather import gather
from hsl.reports.notes import notes_on
from hsl.reports.results import models_of


@pytest.fixture
def notes(tmp_path):
    def run(part="val"):
        runs = gather([str(tmp_path / "outputs")])
        return notes_on(runs, models_of(runs, ["name", "fold", "seed"], "encoder.name"), part)

    return run


def texts(notes, level):
    return [note.text for note in notes if note.level == level]


def test_a_complete_comparison_has_no_warning(make_run, notes):
    for name in "ab":
        for fold in range(3):
            make_run(name, name, fold)
    found = notes()
    assert texts(found, "warning") == []
    assert any("random weights" in text for text in texts(found, "info"))
    assert any("optimistic" in text for text in texts(found, "info"))


def test_what_is_missing_is_said_with_its_reason(make_run, notes):
    make_run("a", "a", 0)
    make_run("a", "a", 1, status="failed", provenance={"error": "OutOfMemoryError: no room"})
    for fold in range(3):
        make_run("b", "b", fold)
    warnings = texts(notes(), "warning")
    assert "a: 2 of 3 folds missing. fold 1: failed: OutOfMemoryError: no room; fold 2: no run folder." in warnings
    assert any("not scored on the same folds" in text for text in warnings)


def test_unlike_initialisation_is_loud(make_run, notes):
    make_run("a", "a", 0, source="hub:x/y")
    make_run("b", "b", 0)
    (warning,) = [text for text in texts(notes(), "warning") if "UNLIKE INITIALISATION" in text]
    assert "a: hub:x/y (abababab); b: random" in warning


def test_two_kinds_of_pretrained_weights_are_alike(make_run, notes):
    make_run("a", "a", source="hub:x/y")
    make_run("b", "b", source="package:z")
    assert not any("INITIALISATION" in note.text for note in notes())


def test_unlike_splits(make_run, notes, split_of):
    make_run("a", "a")
    make_run("b", "b", split=split_of(prefix="q"))
    assert any("do not all share one split" in text for text in texts(notes(), "warning"))


def test_refusal_seeds_and_older_runs(make_run, notes, split_of):
    make_run("a", "a", 0)
    make_run("a", "a", 1, split=split_of(prefix="q"))
    make_run("b", "b", 0, seed=0)
    make_run("b", "b", 0, seed=1, time="2026-01-01")
    older = make_run("b", "b", 0, seed=1, time="2025-01-01")
    found = notes()
    assert any("a has no mean over folds" in text for text in texts(found, "warning"))
    info = texts(found, "info")
    assert any("b: several seeds per fold (fold 0: 2)" in text for text in info)
    assert any(str(older) in text and "take the place of" in text for text in info)
    assert any(text.startswith("b: one fold only") for text in info)


def test_unreadable_runs_and_side_files(make_run, notes):
    (make_run("a", "a") / "config.yaml").write_text("[")
    (make_run("b", "b") / "history.csv").unlink()
    found = notes()
    assert any("config.yaml` is no YAML" in text for text in texts(found, "warning"))
    assert any("history.csv` is missing" in text for text in texts(found, "info"))


def test_commits(make_run, notes):
    make_run("a", "a", provenance={"git": {"commit": "1", "dirty": True}})
    make_run("b", "b", provenance={"git": None})
    info = texts(notes(), "info")
    assert any("2 different commits" in text for text in info)
    assert any("uncommitted changes" in text for text in info)


def test_the_test_part_is_not_called_optimistic(make_run, notes):
    make_run("a", "a")
    assert not any("optimistic" in note.text for note in notes("test"))


def test_a_metrics_file_that_contradicts_itself(make_run, notes):
    folder = make_run("a", "a", confusion=[[50, 0, 0], [0, 50, 0], [0, 0, 0]])
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"]["miou"] = 0.9
    (folder / "metrics.json").write_text(json.dumps(page))
    (warning,) = [text for text in texts(notes(), "warning") if "contradicts itself" in text]
    assert "mIoU 0.9000 on val, plain, but 1.0000 by its confusion matrix" in warning
