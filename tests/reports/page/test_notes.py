import json

import pytest

from hsl.reports.models import models_of
from hsl.reports.page.facts import audits, package_rows, unchecked
from hsl.reports.page.notes import notes_on, warnings_of
from hsl.run_folder.run import ScoredOn, gather

THREE = [[50, 0, 0], [0, 50, 0], [0, 0, 50]]
AUDIT = {
    "stopped": False, "method": "kfold", "groups": "group", "num_pictures": {"train": 8, "val": 4, "test": 0},
    "near_duplicates": "stop", "threshold": 0.98, "num_inside": 7, "num_across": 1,
    "findings": [{"rule": "c", "severity": "warn", "message": "one pair", "ids": [], "files": []}],
}  # fmt: skip


@pytest.fixture
def notes(tmp_path):
    def run(part="val"):
        runs = gather([str(tmp_path / "outputs")])
        return notes_on(runs, models_of(runs, ["name", "fold", "seed"], "encoder.name"), ScoredOn(part))

    return run


def texts(notes, level):
    return [note.text for note in notes if note.level == level]


def test_a_complete_comparison_has_no_warning(make_run, notes, split_of):
    split = split_of(per_fold=6)
    for name in "ab":
        for fold in range(3):
            folder = make_run(name, name, fold, THREE, split=split)
            states = {rule: {"state": "passed", "reason": ""} for rule in "abcdefg"}
            (folder / "audit.json").write_text(json.dumps({"stopped": False, "findings": [], "states": states}))
    found = notes()
    assert texts(found, "warning") == []
    states["b"] = {"state": "not checked", "reason": "no groups known"}
    (folder / "audit.json").write_text(json.dumps({"stopped": False, "findings": [], "states": states}))
    assert texts(notes(), "warning") == ["Audit, rule (b): not checked: no groups known. (b fold 2)"]
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
    assert any("config.yaml` is not valid YAML" in text for text in texts(found, "warning"))
    assert any("history.csv` is missing" in text for text in texts(found, "info"))


def test_commits(make_run, notes):
    make_run("a", "a", provenance={"git": {"commit": "1", "dirty": True}})
    make_run("b", "b", provenance={"git": None})
    info = texts(notes(), "info")
    assert any("2 different commits" in text for text in info)
    assert any("uncommitted changes" in text for text in info)


def test_the_test_part_is_not_called_optimistic(make_run, notes):
    make_run("a", "a")
    assert any("optimistic" in note.text for note in notes("val"))
    assert not any("optimistic" in note.text for note in notes("test"))


def test_nor_is_the_validation_part_where_another_one_chose(make_run, notes, split_of):
    split = split_of(per_fold=6)
    for fold in split["folds"]:
        fold["train"], fold["stop"] = fold["train"][:-2], fold["train"][-2:]
    make_run("a", "a", split=split)
    assert not any("optimistic" in note.text for note in notes("val"))


def test_a_metrics_file_that_contradicts_itself(make_run, notes):
    folder = make_run("a", "a", confusion=[[50, 0, 0], [0, 50, 0], [0, 0, 0]])
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"]["miou"] = 0.9
    (folder / "metrics.json").write_text(json.dumps(page))
    (warning,) = [text for text in texts(notes(), "warning") if "contradicts the counts" in text]
    assert "on val, plain: miou 0.9000, but 1.0000 by the counts" in warning


@pytest.mark.parametrize(("name", "value", "warns"), [("ece", 0.03, False), ("ece", 0.04, True), ("nll", None, True)])
def test_every_stored_score_is_recomputed_from_the_counts_of_the_pictures(make_run, notes, name, value, warns):
    folder = make_run("a", "a", confusion=THREE)  # all right, and sure by 0.97
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"][name] = value
    (folder / "metrics.json").write_text(json.dumps(page))
    assert any("contradicts" in text and name in text for text in texts(notes(), "warning")) == warns


def test_without_pixel_counts_only_the_scores_of_the_confusion_matrix_are_checked(make_run, notes):
    folder = make_run("a", "a", confusion=THREE)
    (folder / "pixel_counts.npz").unlink()
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"] |= {"ece": 0.5, "pixel_accuracy": 0.5}
    (folder / "metrics.json").write_text(json.dumps(page))
    found = notes()
    (warning,) = [text for text in texts(found, "warning") if "contradicts" in text]
    assert "pixel_accuracy 0.5000, but 1.0000" in warning
    assert "ece" not in warning
    assert any("pixel_counts.npz` is missing" in text for text in texts(found, "info"))


def test_counts_of_other_pictures_than_the_rows(make_run, notes):
    make_run("a", "a", rows=[("p0_0", "g", 0.5)])
    assert any("hold unlike pictures of val" in text for text in texts(notes(), "warning"))


def test_a_class_in_few_groups(make_run, notes, split_of):
    split = split_of(per_fold=6)  # three groups of two pictures; the last pixel of the stain lies in the first picture
    make_run("a", "a", confusion=[[60, 0, 0], [0, 60, 0], [0, 0, 1]], split=split)
    make_run("b", "b", confusion=[[60, 0, 0], [0, 60, 0], [1, 0, 0]], split=split)
    (warning,) = [text for text in texts(notes(), "warning") if "Fewer than 3 groups" in text]
    assert "fold 0: stain (1)." in warning
    assert warning.count("fold 0") == 1  # both models have the same truth


def test_a_failed_object_metric_is_said(make_run, notes, add_objects):
    add_objects(make_run("a", "a"), failed=["p0_1"])
    assert any("an object metric failed on 1 pictures" in t and "p0_1" in t for t in texts(notes(), "warning"))


def test_without_groups_every_picture_counts_as_independent_and_that_is_said(make_run, notes, split_of):
    make_run("a", "a", split={**split_of(), "groups": None})
    (found,) = [note for note in notes() if "knows no groups" in note.text]
    assert (found.level, found.short) == ("warning", "without groups every picture counts as independent")
    assert "`data.split.groups`" in found.text


def test_a_run_whose_place_another_one_takes_does_not_change_the_reading(make_run, tmp_path):
    make_run("a", "a", 0, status="failed", time="2025-12-01_00-00-00")
    make_run("a", "a", 0)
    make_run("a", "a", 1, status="failed")
    runs = gather([str(tmp_path / "outputs")])
    models = models_of(runs, ["name", "fold", "seed"], "encoder.name")
    assert warnings_of([], runs, models) == ["1 of 3 runs is unfinished or could not be read"]
    make_run("a", "a", 1, time="2026-01-02_00-00-00")
    runs = gather([str(tmp_path / "outputs")])
    assert warnings_of([], runs, models_of(runs, ["name", "fold", "seed"], "encoder.name")) == []


def test_a_mixture_says_who_is_left_out_of_what_and_warns_of_nothing_else(make_run, add_image_head, notes):
    make_run("a", "a")
    add_image_head(make_run("b", "b"), 0)
    add_image_head(make_run("c", "c"), 0, dense=False)
    found = notes()
    info = texts(found, "info")
    assert "Models without a dense head, so they are in no table or plot of pixels: c." in info
    assert "Models without an image head, so they are in no table or plot of image heads: a." in info
    assert not any("unlike class lists" in text or "contradicts" in text for text in texts(found, "warning"))
    assert not any("is missing" in text for text in info)


@pytest.mark.parametrize("dense", [True, False])
def test_alike_models_are_left_out_of_nothing(make_run, add_image_head, notes, dense):
    for name in "ab":
        add_image_head(make_run(name, name), 0, dense=dense)
    assert not any("Models without" in note.text for note in notes())


def test_unlike_classes_of_image_heads(make_run, add_image_head, notes):
    add_image_head(make_run("a", "a"), 0, dense=False)
    add_image_head(make_run("b", "b"), 0, dense=False, classes=["healthy", "miner", "mould"])
    assert any("unlike classes; their scores" in text for text in texts(notes(), "warning"))


def test_a_part_that_no_image_head_was_scored_on(make_run, add_image_head, notes):
    add_image_head(make_run("a", "a"), 0)
    assert "Image heads without scores on test, plain inference: a." in texts(notes("test"), "info")


@pytest.mark.parametrize(("name", "value", "warns"), [("accuracy", 0.123, True), ("macro_f1", None, False)])
def test_stored_scores_have_to_follow_from_the_predictions(make_run, add_image_head, notes, name, value, warns):
    folder = add_image_head(make_run("a", "a"), 0)
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"]["image_heads"]["classification"][name] = value
    (folder / "metrics.json").write_text(json.dumps(page))
    said = [text for text in texts(notes(), "warning") if "contradicts image_predictions.csv" in text]
    assert len(said) == warns
    assert all("accuracy 0.1230, but " in text for text in said)


def test_alike_audits_stand_together(make_run, tmp_path):
    for fold in range(3):
        changed = {"findings": [], "near_duplicates": "off", "groups": None} if fold == 2 else {}
        (make_run(fold=fold) / "audit.json").write_text(json.dumps(AUDIT | changed))
    make_run("b", "b")
    first, absent, last = audits(gather([str(tmp_path / "outputs")]))
    assert list(first.runs) == ["a fold 0", "a fold 1"]
    older = "not all was checked"
    assert (first.verdict, first.pictures) == (f"findings: 1; {older}", "train 8, val 4, test 0")
    assert first.duplicates.startswith("1 across parts, 7 inside")
    assert first.findings[0] == ("c", "warn", "one pair")
    assert first.findings[1][1] == "not known"
    assert absent.verdict.startswith("no audit: ")
    assert last.verdict == f"nothing found; {older}"
    assert (last.duplicates, last.method) == ("not searched", "kfold, not grouped")


def test_what_was_not_checked_has_not_passed(make_run, tmp_path):
    sound = {rule: {"state": "passed", "reason": ""} for rule in "abcdefg"}
    groups = {"state": "not checked", "reason": "no groups known"}
    off = {"state": "off", "reason": "switched off by `data.audit.near_duplicates`"}
    for fold, states in enumerate([sound, sound | {"b": groups}, sound | {"b": groups, "c": off}]):
        config = {"data": {"labels": {"unchecked": fold == 2}}}
        page = AUDIT | {"findings": [], "states": states}
        (make_run(fold=fold, config=config) / "audit.json").write_text(json.dumps(page))
    make_run("b", "b")
    make_run("b", "b", 1)
    runs = gather([str(tmp_path / "outputs")])
    first, _, second, third = audits(runs)
    assert (first.verdict, first.findings) == ("passed", [])
    assert second.verdict == "nothing found; not all was checked"
    assert second.findings == [("b", "not checked", "no groups known")]
    assert [(rule, state) for rule, state, _ in third.findings] == [("b", "not checked"), ("c", "off")]
    told = sorted(unchecked(runs))
    assert told[0] == "Audit, rule (b): not checked: no groups known. (a fold 1, a fold 2)"
    assert told[1].startswith("Audit, rule (c): off: switched off by")
    assert told[2] == "Pseudo-labels were used without a passed spot check. (a fold 2)"
    assert told[3:] == ["The data were not audited: `audit.json` is missing. (b fold 0, b fold 1)"]


def test_packages_with_all_their_versions(make_run, tmp_path):
    make_run(provenance={"python": "3.11.7", "packages": {"torch": "2.9.0"}})
    make_run(fold=1, provenance={"python": "3.11.7", "packages": {"torch": "2.10.0"}})
    make_run("b", "b")
    found = package_rows(gather([str(tmp_path / "outputs")]))
    assert found == [("Python", ["3.11.7"]), ("torch", ["2.9.0", "2.10.0"])]
