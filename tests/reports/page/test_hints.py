import json

import pytest

from hsl.reports.models import models_of
from hsl.reports.page import facts
from hsl.reports.page.facts import MIN_STEPS, degraded, weighting_hints
from hsl.reports.page.notes import notes_on
from hsl.run_folder.run import ScoredOn, gather

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


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


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
