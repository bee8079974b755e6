"""Galleries of pictures, and hints."""

import json

import pytest

from hsl.reports.models import models_of
from hsl.reports.page import facts
from hsl.reports.page.facts import MIN_STEPS, degraded, weighting_hints
from hsl.reports.page.failure_gallery import KINDS, failure_counts, failure_gallery, failures_of, worst
from hsl.reports.page.galleries import chosen, galleries, run_of, stored_pictures
from hsl.reports.page.notes import notes_on
from hsl.reports.tables.run_tables import picture_table
from hsl.run_folder.run import ScoredOn, gather, read_run
from hsl.run_folder.stored_counts import ObjectRow

CLASSES = ["background", "crack", "stain"]


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def test_no_picture_is_chosen_twice_and_the_easy_ones_are_not_the_best():
    scores = {f"p{i}": {"m": i / 10, "n": i / 10} for i in range(10)} | {"odd": {"m": 0.9, "n": 0.1}}
    picked = chosen(scores, 2, blank=["p9"])
    assert picked == {"best": ["p8", "p7"], "worst": ["p0", "p1"], "disputed": ["odd"]}
    assert chosen({}, 2) == {"best": [], "worst": [], "disputed": []}
    assert chosen(scores, 0) == {"best": [], "worst": [], "disputed": []}


def test_all_models_stand_side_by_side(make_full_runs, models):
    make_full_runs({"a": 0.9, "b": 0.3}, num_folds=2)
    shown = galleries(models(), CLASSES, 2)
    assert [len(each) for each in shown.values()] == [2, 2, 2]
    for one in (one for each in shown.values() for one in each):
        assert [(view.title, view.model) for view in one.views] == [
            ("input", ""),
            ("truth", ""),
            *[(title, label) for label in ("a", "b") for title in ("prediction", "boundary")],
        ]
        assert all(view.uri.startswith("data:image/") for view in one.views)
        assert one.classes == CLASSES
        assert one.group.startswith("site")
    assert "mIoU" in shown["worst"][0].views[2].note


def test_a_map_that_is_missing_leaves_a_gap(make_full_runs, models):
    folders = make_full_runs({"a": 0.9, "b": 0.3}, num_folds=1)
    for path in [*folders["b"][0].glob("predictions/*/*/*.png"), *folders["b"][0].glob("predictions/*_prediction.png")]:
        path.unlink()
    one = galleries(models(), CLASSES, 1)["best"][0]
    assert [view.uri is None for view in one.views] == [False, False, False, False, True, True]
    assert "not stored" in one.views[-1].alt


def test_runs_from_before_class_maps_show_their_own_best_and_worst(make_full_runs, models):
    folder = make_full_runs({"a": 0.9}, num_folds=1)["a"][0]
    for path in folder.glob("predictions/classes/*/*.png"):
        path.unlink()
    table = (folder / "per_image.csv").read_text().splitlines()
    place = table[0].split(",").index("prediction")
    rows = [",".join(cell for i, cell in enumerate(line.split(",")) if i != place) for line in table]
    (folder / "per_image.csv").write_text("\n".join(rows))
    assert all(view.uri for view in galleries(models(), CLASSES, 1)["worst"][0].views)


def test_a_picture_that_one_model_did_not_score_is_not_compared(make_full_runs, models):
    folders = make_full_runs({"a": 0.9, "b": 0.3}, num_folds=2)
    for path in folders["b"][1].iterdir():
        if path.is_file():
            path.unlink()
    two = models()
    assert len(stored_pictures(two)) == 8
    assert {one.id[1] for each in galleries(two, CLASSES, 4).values() for one in each} == {"0"}
    model = next(model for model in two if model.label == "b")
    assert run_of(model, "val", "p1_0") is None


def failures(**kinds):
    counts = {kind: [0, 0, 0] for kind in KINDS}
    objects = []
    for kind, areas in kinds.items():
        counts[kind] = [0, len(areas), 0]
        objects += [{"kind": kind, "side": "target", "class": 1, "area": a, "box": [0, 0, 2, a]} for a in areas]
    return {"false_negatives": counts, "false_positives": {}, "objects": objects}


def row(name, told):
    return ObjectRow.model_validate({"id": name, "metrics": {"failures": told}, "errors": {}})


def test_the_worst_pictures_of_a_kind_have_the_most_objects_then_the_largest():
    rows = [
        row("a", failures(missed=[5])),
        row("b", failures(missed=[3, 3], swap=[1])),
        row("c", failures(missed=[9])),
        row("d", None),
    ]
    found = failures_of(rows)
    assert [one.id for one in worst(found, "missed", 5)] == ["b", "c", "a"]
    assert [one.id for one in worst(found, "missed", 1)] == ["b"]
    assert worst(found, "merge", 1) == []
    assert worst(found, "missed", 1)[0].target == [(0, 0, 2, 3), (0, 0, 2, 3)]
    assert worst(found, "missed", 1)[0].classes == [1]
    assert failure_counts(rows) == {
        "missed": (4, 0),
        "spurious": (0, 0),
        "merge": (0, 0),
        "split": (0, 0),
        "swap": (1, 0),
    }


def test_the_failure_gallery_draws_what_the_pool_found(make_full_runs, models):
    make_full_runs({"a": 0.9, "b": 0.1}, num_folds=2)
    gallery = failure_gallery(models(), CLASSES, "val")
    assert list(gallery) == list(KINDS)
    assert sum(len(shown) for shown in gallery.values()) > 5
    for one in (one for shown in gallery.values() for one in shown):
        assert [view.title for view in one.views] == ["input", "truth", "prediction"]
        assert all(view.uri for view in one.views)
        assert one.models in (["a"], ["b"])
        assert set(one.classes) <= set(CLASSES[1:])
    assert len({(one.id, *one.models) for one in gallery["missed"]}) == len(gallery["missed"])
    assert failure_gallery(models(), CLASSES, "test") == {kind: [] for kind in KINDS}


def test_a_failure_in_a_picture_without_stored_input_says_so(make_full_runs, models):
    folder = make_full_runs({"a": 0.1}, num_folds=1)["a"][0]
    (folder / "predictions" / "index.csv").unlink()
    one = next(one for shown in failure_gallery(models(), CLASSES, "val").values() for one in shown)
    assert [view.uri is None for view in one.views] == [True, True, False]
    assert one.views[0].alt == "the input is not stored"


def test_the_picture_table_puts_the_hardest_first(make_full_runs, models):
    make_full_runs({"a": 0.9, "b": 0.3}, num_folds=1)
    table = picture_table(models(), ScoredOn("val"))
    means = [line[-2] for line in table.rows]
    assert means == sorted(means)
    assert len(means) == 4
    for _, group, first, second, mean, gap in table.rows:
        assert mean == pytest.approx((first + second) / 2)
        assert gap == pytest.approx(abs(first - second))
        assert group.startswith("site")
    assert picture_table(models(), ScoredOn("test")).rows == []


def test_links_out_of_a_run_folder_are_not_followed(make_full_runs, models, tmp_path):
    """The page would carry pictures of this machine that the run never made."""
    folder = make_full_runs({"a": 0.9}, num_folds=1)["a"][0]
    inputs = sorted(folder.glob("predictions/*_input.png"))
    inputs[0].rename(tmp_path / "secret.png")
    inputs[0].symlink_to(tmp_path / "secret.png")
    for path in folder.glob("predictions/classes/*/*.png"):
        path.unlink()
        path.symlink_to(tmp_path / "secret.png")
    found = stored_pictures(models())
    assert len(found) == len(inputs) - 1
    assert inputs[0] not in [one.input for one in found.values()]


def test_a_task_that_is_a_path_is_not_read(make_run, add_tasks, tmp_path):
    folder = make_run()
    add_tasks(folder, {"genus": 0.5})
    text = (folder / "metrics.json").read_text().replace('"genus"', '"/../../../elsewhere"')
    (folder / "metrics.json").write_text(text)
    run = read_run(folder)
    assert any("should name a file below" in problem for problem in run.problems)


# Hints.


PAGE = {
    "metric": "val/accuracy",
    "mode": "max",
    "scope": "phase",
    "baseline": 0.9,
    "found": 0.8512,
    "tolerance": 0.005,
    "minimum": {"val/miou": {"least": 0.5, "found": 0.31}, "val/loss": {"least": 0.0, "found": 0.4}},
    "decision": "reverted",
    "restored_from": "phases/B/checkpoints/start.ckpt",
    "phase": "B",
}
UPGRAD = {"_target_": "hsl.weighting.aggregation.Aggregation", "method": {"_target_": "torchjd.UPGradWeighting"}}
NASH = {"_target_": "hsl.weighting.aggregation.Aggregation", "method": {"_target_": "hsl.weighting.gramian.nash_mtl"}}
PCGRAD = {"_target_": "hsl.weighting.aggregation.Aggregation", "method": {"_target_": "hsl.weighting.gramian.PCGrad"}}


def test_a_reverted_model_is_marked_and_the_note_says_what_was_restored_and_why(make_run, models):
    (make_run("a", "a", 0) / "rollback.json").write_text(json.dumps(PAGE))
    (make_run("b", "b", 0) / "rollback.json").write_text(json.dumps({**PAGE, "decision": "kept"}))
    found = models()
    assert [model.label for model in found] == ["a (reverted)", "b"]
    (said,) = facts.reverted(found)
    assert said == (
        "a (reverted): the rollback gate restored earlier weights, which are scored here. fold 0, seed 0: after "
        "phase B val/accuracy was 0.8512 against a baseline of 0.9 (tolerance 0.005), val/miou was 0.31, below 0.5; "
        "restored from phases/B/checkpoints/start.ckpt."
    )


def test_a_mean_over_reverted_and_other_runs_is_said(make_run, models):
    for fold in range(3):
        folder = make_run("a", "a", fold)
        if fold == 1:
            (folder / "rollback.json").write_text(json.dumps(PAGE))
    (model,) = models()
    assert model.label == "a (reverted in fold 1)"
    (said,) = facts.reverted([model])
    assert said.endswith("The mean over folds also holds 2 runs that were not taken back.")


def event(before, after, cut="train", checkpointing=False):
    return {
        "micro_batch_before": before,
        "micro_batch_after": after,
        "cut": cut,
        "gradient_checkpointing": checkpointing,
    }


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([event(8, 4), event(4, 2)], "the micro-batch fell from 8 to 2 in 2 events. "),
        ([event(8, 4)], "the micro-batch fell from 8 to 4 in 1 event. "),
        (
            [event(2, 1), event(16, 8, "evaluation"), event(1, 1, checkpointing=True)],
            "the micro-batch fell from 2 to 1 in 2 events and the micro-batch of the evaluation fell from 16 to 8 in 1 "
            "event, with gradient checkpointing at last. ",
        ),
    ],
)
def test_lost_memory(make_run, models, events, expected):
    (make_run("a", "a", 2) / "oom.json").write_text(json.dumps(events))
    make_run("b", "b", 2)
    (said,) = facts.memory(models())
    assert said == f"a, fold 2, seed 0: not enough memory; {expected}The effective batch stayed."


@pytest.fixture
def run(make_run, add_tasks, add_weighting):
    """A multi-task run with a log of its weighting."""

    def make(norms=(), cosines=(), weighting=UPGRAD, fold=0, **more):
        folder = add_tasks(make_run(fold=fold, config={"weighting": weighting}), {"genus": 0.9, "health": 0.5}, fold)
        return add_weighting(folder, norms, cosines, **more)

    return make


def test_imbalance_names_both_ends_the_medians_and_the_ratio(run, models):
    for fold in range(2):
        run({"genus": 0.6, "health": 0.05, "consistency": 0.0001}, fold=fold)
    (text,) = weighting_hints(models())
    assert "gradient of genus (0.6) is 12.0 times that of health (0.05;" in text
    assert "80 logged steps of 2 runs" in text
    assert "weighting=imgrad or weighting=nash_mtl is made for that" in text


def test_conflict_names_the_pair_its_median_and_its_share(run, models):
    cosines = {("genus", "health"): [-0.5, -0.3, 0.1, 0.2, 0.3], ("genus", "fish"): [0.2, -0.9, 0.3, 0.4, 0.5]}
    run({"genus": 1.0, "health": 1.0}, cosines)
    (text,) = weighting_hints(models())
    assert "genus and health point apart (cosine below 0) in 40 % of the steps, median cosine +0.10" in text
    assert "pairs pass" not in text
    assert "unrelated" not in text
    assert "weighting=pcgrad is made for that" in text


def test_cosines_near_0_are_called_unrelated_and_of_several_pairs_the_lowest_is_named(run, models):
    run({"genus": 1.0}, {("genus", "health"): [-0.01, 0.01], ("a", "b"): [-0.02, -0.01]})
    (text,) = weighting_hints(models())
    assert "a and b point apart (cosine below 0) in 100 %" in text
    assert "2 of 2 pairs pass that" in text
    assert "unrelated rather than opposed" in text


@pytest.mark.parametrize(
    ("norms", "cosines"),
    [
        ({"genus": 5.0, "health": 1.01}, {}),  # below the ratio
        ({"genus": 1.0, "health": 1.0}, {("genus", "health"): [-0.5, -0.5, -0.5, *[0.5] * 7]}),  # 30 %, not more
        ({"genus": 1.0, "health": 1.0, "consistency": 0.01}, {}),  # small by its constant weight
        ({"genus": 9.0}, {}),
        ({}, {}),  # a scalar weighting
    ],
)
def test_no_hint(run, models, norms, cosines):
    run(norms, cosines)
    assert list(weighting_hints(models())) == []


def test_no_hint_from_few_steps_or_without_a_log(run, make_run, models):
    run({"genus": 9.0, "health": 1.0}, {("genus", "health"): [-1]}, num_steps=MIN_STEPS - 1)
    make_run("b", "b")
    assert list(weighting_hints(models())) == []
    run({"genus": 9.0, "health": 1.0}, {("genus", "health"): [-1]}, fold=1, num_steps=MIN_STEPS)
    assert len(list(weighting_hints(models()))) == 2


def test_a_method_that_is_made_for_it_is_not_suggested_again(run, models):
    run({"genus": 9.0, "health": 1.0}, weighting=NASH)
    (text,) = weighting_hints(models())
    assert "Its weighting, nash_mtl, is made for that." in text


def test_a_method_is_known_whatever_its_case(run, models):
    run({"genus": 1.0, "health": 1.0}, {("genus", "health"): [-1]}, weighting=PCGRAD)
    (text,) = weighting_hints(models())
    assert "Its weighting, pcgrad, is made for that." in text


def test_solver_failures_past_1_per_cent_are_a_warning(run, models, tmp_path):
    run({"genus": 1.0, "health": 1.0}, failures=4)
    run({"genus": 1.0, "health": 1.0}, failures=5, fold=1)
    found = models()
    (text,) = degraded(found)  # 4 of 400 is 1 %, not more
    assert "fold 1, seed 0: 5 of 400 steps (1.2 %)." in text
    assert "fold 0" not in text
    warnings = [note.text for note in notes_on(gather([str(tmp_path / "outputs")]), found, ScoredOn("val"))]
    assert text in warnings
    levels = {note.text: note.level for note in notes_on(gather([str(tmp_path / "outputs")]), found, ScoredOn("val"))}
    assert levels[text] == "warning"


def test_a_single_head_with_several_objectives_is_judged_by_all_of_them(make_run, add_weighting, models):
    add_weighting(make_run(), {"dice": 9.0, "focal": 1.0}, objectives=("dice", "focal"))
    (text,) = weighting_hints(models())
    assert "gradient of dice (9) is 9.0 times that of focal (1;" in text
