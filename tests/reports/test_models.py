import json
import math
from statistics import mean, stdev

import numpy as np
import pytest
import yaml
from sklearn.metrics import jaccard_score

from hsl.cli import conf_dir
from hsl.metrics.pixels.pixel_counts import CONFUSION_METRICS
from hsl.reports.models import models_of
from hsl.reports.paired_pictures import paired_scores
from hsl.reports.scores import Scores
from hsl.run_folder.run import ScoredOn, gather

IGNORE = ["name", "fold", "seed"]
# IoU 90/100 and 45/55; the third class is in neither truth nor prediction
FIRST = [[90, 5, 0], [5, 45, 0], [0, 0, 0]]
FIRST_MIOU = (90 / 100 + 45 / 55) / 2
SECOND = [[40, 10, 0], [10, 40, 0], [0, 0, 0]]
SECOND_MIOU = 40 / 60
THIRD = [[10, 0, 10], [0, 10, 0], [0, 0, 10]]
THIRD_MIOU = (10 / 20 + 1 + 10 / 20) / 3


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), IGNORE, "encoder.name")


def test_scores_equal_scikit_learn():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
    confusion = np.zeros((4, 4), dtype=np.int64)
    np.add.at(confusion, (truth, prediction), 1)
    scores = Scores.of(confusion)
    np.testing.assert_allclose(scores.per_class["iou"], jaccard_score(truth, prediction, average=None))
    assert scores.overall["micro_iou"] == pytest.approx(jaccard_score(truth, prediction, average="micro"))
    assert scores.classes_scored == 4


def test_mean_and_spread_over_folds_by_hand(make_run, models):
    for fold, confusion in enumerate([FIRST, SECOND, THIRD]):
        make_run(fold=fold, confusion=confusion)
    (model,) = models()
    by_fold = [FIRST_MIOU, SECOND_MIOU, THIRD_MIOU]
    assert model.overall("miou", ScoredOn("val")) == pytest.approx(dict(enumerate(by_fold)))
    summary = model.summary("miou", ScoredOn("val"))
    assert summary.mean == pytest.approx(mean(by_fold))
    assert summary.std == pytest.approx(stdev(by_fold))
    assert summary.num == model.num_folds == 3
    assert model.missing == {}


def test_the_pooled_score_is_that_of_the_summed_matrix(make_run, models):
    for fold, confusion in enumerate([FIRST, SECOND, THIRD]):
        make_run(fold=fold, confusion=confusion)
    pooled = models()[0].pooled(ScoredOn("val"))
    # diagonal 140, 95, 10; unions 165 + 155 - 140, 110 + 110 - 95, 10 + 20 - 10
    assert pooled.per_class["iou"] == pytest.approx([140 / 180, 95 / 125, 10 / 20])
    assert pooled.overall["miou"] == pytest.approx((140 / 180 + 0.76 + 0.5) / 3)


def test_classes_are_averaged_over_the_folds_that_score_them(make_run, models):
    for fold, confusion in enumerate([FIRST, SECOND, THIRD]):
        make_run(fold=fold, confusion=confusion)
    background, crack, stain = models()[0].class_summaries("iou", ScoredOn("val"))
    assert (background.num, crack.num, stain.num) == (3, 3, 1)
    assert crack.mean == pytest.approx(mean([45 / 55, 40 / 60, 1.0]))
    assert stain.mean == 0.5
    assert math.isnan(stain.std)


def test_seeds_are_averaged_within_their_fold_first(make_run, models):
    make_run(fold=0, seed=0, confusion=FIRST)
    make_run(fold=0, seed=1, confusion=SECOND)
    make_run(fold=1, seed=0, confusion=THIRD)
    (model,) = models()
    first = (FIRST_MIOU + SECOND_MIOU) / 2
    assert model.overall("miou", ScoredOn("val")) == pytest.approx({0: first, 1: THIRD_MIOU})
    assert model.summary("miou", ScoredOn("val")).std == pytest.approx(stdev([first, THIRD_MIOU]))
    # each picture weighs the same: fold 1 counts twice beside the two seeds of fold 0
    expected = Scores.of(np.array(FIRST) + np.array(SECOND) + 2 * np.array(THIRD))
    pooled = model.pooled(ScoredOn("val")).overall
    assert {name: pooled[name] for name in CONFUSION_METRICS} == pytest.approx(
        {name: expected.overall[name] for name in CONFUSION_METRICS}
    )
    # right and wrong pixels: 135 and 10, 80 and 20, 30 and 10 (twice)
    right, wrong = 135 + 80 + 2 * 30, 10 + 20 + 2 * 10
    assert pooled["nll"] == pytest.approx((0.03 * right + 1.5 * wrong) / (right + wrong))
    counts = model.counts(ScoredOn("val"))
    assert counts.confusion.tolist() == model.pooled_confusion(ScoredOn("val")).tolist()


@pytest.mark.parametrize("counts", [True, False])
def test_a_run_from_before_a_score_was_known_has_it_by_its_counts(make_run, models, counts):
    folder = make_run(confusion=[[90, 10, 0], [0, 50, 0], [0, 0, 0]])
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"].pop("frequency_weighted_iou", None)
    (folder / "metrics.json").write_text(json.dumps(page))
    if not counts:
        (folder / "pixel_counts.npz").unlink()
    (model,) = models()
    expected = (100 * 90 / 100 + 50 * 50 / 60) / 150
    assert model.overall("frequency_weighted_iou", ScoredOn("val")) == pytest.approx({0: expected})
    pictures = paired_scores(model, [0], ScoredOn("val"), "frequency_weighted_iou").scores.values()
    assert [math.isfinite(value) for value in pictures] == [counts] * 4


def test_models_are_told_apart_by_config_but_not_by_fold_seed_and_ignored_keys(make_run, models):
    make_run(name="a", fold=0)
    make_run(name="b", fold=1, seed=5)
    make_run(name="c", encoder="mit_b0")
    make_run(name="d", encoder="mit_b0", config={"lr": 0.1})
    found = {model.label: model.folds for model in models()}
    assert found == {"resnet50 · lr=0.001": [0, 1], "mit_b0 · lr=0.001": [0], "mit_b0 · lr=0.1": [0]}


@pytest.mark.parametrize("option", sorted((conf_dir() / "callbacks").glob("*.yaml")), ids=lambda path: path.stem)
def test_only_a_callback_that_changes_the_training_makes_another_model(make_run, models, option):
    nodes = yaml.safe_load(option.read_text().replace("${", "$("))  # a stored config has no interpolations
    make_run(fold=0)
    make_run(fold=1, config={"callbacks": {name: node for name, node in nodes.items() if name != "defaults"}})
    changes = option.stem in ("early_stopping", "best_checkpoint", "rollback_gate")
    assert len(models()) == 1 + changes


def test_a_callback_of_which_nothing_is_known_makes_another_model(make_run, models):
    make_run(fold=0)
    make_run(fold=1, config={"callbacks": {"own": {"_target_": "lightning.pytorch.callbacks.WeightAveraging"}}})
    make_run(fold=2, config={"callbacks": None})
    assert [model.folds for model in models()] == [[0, 2], [1]]


def test_scores_of_unlike_predictors_are_not_averaged(make_run, models):
    for fold, transforms in enumerate((["hflip"], ["hflip"], ["rot90"])):
        node = {
            "_target_": "hsl.callbacks.evaluation.Evaluation",
            "inference": "tta",
            "predictor": {"transforms": transforms},
        }
        make_run(fold=fold, config={"callbacks": {"flipped": node}})
    (model,) = models()
    assert model.refused == "its runs were scored as `tta` by unlike predictors"


def test_unlike_initialisation_is_never_one_model(make_run, models):
    make_run(fold=0, source="random")
    make_run(fold=1, source="hub:a/b")
    make_run(fold=2, source="hub:a/b")
    random, pretrained = sorted(models(), key=lambda model: model.pretrained)
    assert (random.folds, pretrained.folds) == ([0], [1, 2])
    assert random.label != pretrained.label
    assert "initialisation" in random.label
    assert random.missing[1] == "only a run that started from other weights (hub:a/b (abababab))"
    assert random.differences["initialisation"] == "random"


def test_a_run_that_ended_before_it_had_weights_belongs_to_its_config(make_run, models):
    make_run(fold=0, source="hub:a/b")
    make_run(fold=1, status="failed", provenance={"weights_used": None, "error": "ValueError: no"})
    (model,) = models()
    assert model.missing[1] == "failed: ValueError: no"
    assert model.missing[2] == "no run folder"
    assert model.num_folds == 3


def test_the_newest_finished_run_counts_and_a_later_failure_hides_it_not(make_run, models):
    make_run(confusion=FIRST, time="2026-01-01")
    make_run(confusion=SECOND, time="2026-01-02")
    make_run(status="failed", time="2026-01-03")
    (model,) = models()
    assert model.overall("miou", ScoredOn("val")) == {0: pytest.approx(SECOND_MIOU)}
    assert 0 not in model.missing


def test_the_latest_attempt_gives_the_reason(make_run, models):
    make_run(fold=0)
    make_run(fold=1, status="failed", time="2026-01-02", provenance={"error": "old."})
    make_run(fold=1, status="interrupted", time="2026-01-03")
    assert models()[0].missing[1].startswith("interrupted: stopped by a signal")


def test_unlike_data_are_not_averaged(make_run, models, split_of):
    make_run(fold=0)
    make_run(fold=1, split=split_of(prefix="q"))
    (model,) = models()
    assert "saw unlike data (split hashes" in model.refused
    assert math.isnan(model.summary("miou", ScoredOn("val")).mean)
    assert model.pooled(ScoredOn("val")) is None
    assert all(summary.num == 0 for summary in model.class_summaries("iou", ScoredOn("val")))
    assert set(model.overall("miou", ScoredOn("val"))) == {0, 1}  # the folds stand alone


def test_unlike_assignments_of_the_same_data_are_not_averaged(make_run, models, split_of):
    split = split_of()
    turned = {**split, "folds": split["folds"][::-1]}
    make_run(fold=0, split=split)
    make_run(fold=1, split=turned)
    assert "unlike fold assignments" in models()[0].refused


def test_inference_that_some_seed_lacks_leaves_the_fold_out(make_run, models):
    make_run(fold=0, seed=0, tta=FIRST)
    make_run(fold=0, seed=1)
    make_run(fold=1, tta=SECOND)
    (model,) = models()
    assert set(model.confusions(ScoredOn("val", "tta"))) == {1}
    assert set(model.confusions(ScoredOn("val"))) == {0, 1}


def test_without_pixel_counts_the_confusion_matrix_still_counts(make_run, models):
    (make_run(fold=0, confusion=FIRST) / "pixel_counts.npz").unlink()
    make_run(fold=1, confusion=SECOND)
    (model,) = models()
    assert model.overall("miou", ScoredOn("val")) == pytest.approx({0: FIRST_MIOU, 1: SECOND_MIOU})
    assert math.isnan(model.overall("ece", ScoredOn("val"))[0])
    assert model.counts(ScoredOn("val")) is None  # not of one fold alone
    assert math.isnan(model.pooled(ScoredOn("val")).overall["ece"])
    assert model.class_summaries("boundary_f1", ScoredOn("val"))[0].num == 1


def test_rows_of_objects_weigh_each_picture_the_same(make_run, models, add_objects):
    for seed in (0, 1):
        add_objects(make_run(fold=0, seed=seed), fold=0)
    add_objects(make_run(fold=1, seed=0), fold=1)
    make_run(fold=2, seed=0)  # without the pool
    rows = models()[0].objects(ScoredOn("val"))
    assert sorted({(row.id, sum(row.id == other.id for other in rows)) for row in rows}) == [
        (f"p{fold}_{i}", 2) for fold in (0, 1) for i in range(4)
    ]
    assert models()[0].objects(ScoredOn("val", "tta")) == []


def test_what_never_finished_does_not_lengthen_the_names(make_run, models):
    make_run(name="a")
    make_run(name="b", encoder="mit_b0", status="failed", config={"lr": 7, "epochs": 3})
    assert [model.label for model in models()] == ["resnet50", "mit_b0 (none finished)"]


def test_a_run_without_a_config_is_in_no_model(make_run, models):
    (make_run() / "config.yaml").unlink()
    assert models() == []
