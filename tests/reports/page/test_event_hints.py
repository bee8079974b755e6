import json

import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.page import event_hints

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


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def test_a_reverted_model_is_marked_and_the_note_says_what_was_restored_and_why(make_run, models):
    (make_run("a", "a", 0) / "rollback.json").write_text(json.dumps(PAGE))
    (make_run("b", "b", 0) / "rollback.json").write_text(json.dumps({**PAGE, "decision": "kept"}))
    found = models()
    assert [model.label for model in found] == ["a (reverted)", "b"]
    (said,) = event_hints.reverted(found)
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
    (said,) = event_hints.reverted([model])
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
    (said,) = event_hints.memory(models())
    assert said == f"a, fold 2, seed 0: not enough memory; {expected}The effective batch stayed."
