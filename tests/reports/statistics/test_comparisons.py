import math

import numpy as np
import pytest
from scipy import stats

from hsl.reports.models import Scores, models_of
from hsl.reports.statistics.comparisons import compare, pooled_estimates
from hsl.reports.statistics.paired_tests import corrected_resampled_t, holm
from hsl.run_folder.run import ScoredOn, gather

GOOD_OF = [[[c, 100 - c, 0], [99 - c, c + 1, 0], [0, 0, 0]] for c in (88, 91, 95)]
GOOD = [[90, 0, 0], [0, 90, 0], [0, 0, 0]]  # mIoU 1
FAIR = [[60, 40, 0], [40, 60, 0], [0, 0, 0]]  # mIoU 60 / 140


@pytest.fixture
def pairs(tmp_path):
    def run(part="val", inference="plain"):
        models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
        models = sorted(models, key=lambda model: model.label)
        return compare(models, ScoredOn(part, inference), resamples=2000, seed=0)

    return run


def offsets(split, fold, values):
    """Rows with per-image mIoU 0.5 + value; two pictures share a group."""
    ids = split["folds"][fold]["val"]
    return [(name, f"{fold}-{i // 2}", 0.5 + v) for i, (name, v) in enumerate(zip(ids, values, strict=True))]


def test_a_clear_difference(make_run, pairs, split_of):
    split = split_of()
    better = np.array([[0.10, 0.12, 0.14, 0.11], [0.09, 0.10, 0.13, 0.12], [0.12, 0.11, 0.10, 0.10]])
    for fold in range(3):
        make_run("a", "a", fold, GOOD_OF[fold], rows=offsets(split, fold, better[fold]))
        make_run("b", "b", fold, FAIR, rows=offsets(split, fold, [0.0] * 4))
    (pair,) = pairs()
    assert (pair.first, pair.second, pair.refused, pair.num_images) == ("a", "b", "", 12)
    assert pair.score.num_units == 6  # groups, not pictures
    total = sum(np.array(each) for each in GOOD_OF)
    iou = [total[i, i] / (total[i].sum() + total[:, i].sum() - total[i, i]) for i in range(2)]
    assert pair.score.mean == pytest.approx(np.mean(iou) - 60 / 140)
    differences = better.ravel()
    assert pair.beside["mean over pictures"].mean == pytest.approx(better.mean())
    assert pair.wilcoxon_p == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert pair.wilcoxon_holm_p == pair.wilcoxon_p  # one pair
    scores = [Scores.of(np.array(each)).overall["miou"] - 60 / 140 for each in GOOD_OF]
    assert pair.trainings.p == pytest.approx(corrected_resampled_t(scores, 0.5)[1])
    assert pair.verdict.text.startswith("a is better on these pictures, and a new training would likely show it too (p")
    told = pair.as_json
    assert (told["verdict"], told["winner"]) == ("a is better on these pictures", "a")
    assert told["training"].startswith("a new training would likely show it too")
    assert told["score"]["adjusted"]["low"] > 0
    assert told["score"]["num_units"] == 6


def test_five_groups_are_too_few_however_many_pictures_they_hold(make_run, pairs, split_of):
    split = split_of(num_folds=2, per_fold=30)
    rows = [(name, f"g{i % 5}", 0.9) for i, name in enumerate(split["folds"][0]["val"])]
    for name, confusion in (("a", GOOD), ("b", FAIR)):
        make_run(name, name, 0, confusion, split=split, rows=rows)
    (pair,) = pairs()
    assert pair.verdict.text == "too few independent groups to say (5; at least 6)"
    assert (pair.score.interval, pair.beside["mean over pictures"].interval) == (None, None)


@pytest.mark.parametrize("num", [1, 40])
def test_one_group_or_one_picture_says_nothing(make_run, pairs, split_of, num):
    split = split_of(num_folds=2, per_fold=num)
    rows = [(name, "site", 0.9) for name in split["folds"][0]["val"]]
    for name, confusion in (("a", GOOD), ("b", FAIR)):
        make_run(name, name, 0, confusion, split=split, rows=rows)
    (pair,) = pairs()
    assert pair.verdict.text == "too few independent groups to say (1; at least 6)"
    assert math.isnan(pair.score.p)


def test_groups_of_one_picture_are_the_pictures(make_run, pairs, split_of):
    split = split_of(num_folds=2, per_fold=8)
    rows = [(name, name, 0.5) for name in split["folds"][0]["val"]]
    for name, confusion in (("a", GOOD_OF[0]), ("b", FAIR)):
        make_run(name, name, 0, confusion, split=split, rows=rows)
    (pair,) = pairs()
    assert pair.score.num_units == 8
    assert pair.verdict.winner == "a"
    assert pair.verdict.training == "nothing is known of the spread of training"


def test_a_table_of_many_equal_models_is_held_to_a_smaller_p(make_run, pairs, split_of):
    split = split_of(num_folds=2, per_fold=8)
    rows = [(name, name, 0.5) for name in split["folds"][0]["val"]]
    for i in range(5):
        right = 61 + 7 * (i == 0) - i
        make_run(f"m{i}", f"m{i}", 0, [[right, 40, 0], [39, right, 0], [0, 0, 0]], split=split, rows=rows)
    found = pairs()
    assert len(found) == 10
    assert all(one.score.adjusted_p >= one.score.p for one in found)
    assert all(one.score.adjusted.low <= one.score.interval.low for one in found if one.score.adjusted)


def test_holm_over_all_pairs(make_run, pairs, split_of):
    split = split_of(per_fold=12)
    rng = np.random.default_rng(0)
    for name, shift in (("a", 0.0), ("b", 0.02), ("c", 0.2)):
        make_run(name, name, split=split, rows=offsets(split, 0, shift + rng.normal(0, 0.05, 12)))
    found = pairs()
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.wilcoxon_holm_p for pair in found] == holm([pair.wilcoxon_p for pair in found])


def test_seeds_are_averaged_within_a_picture(make_run, pairs, split_of):
    split = split_of()
    make_run("a", "a", seed=0, rows=offsets(split, 0, [0.0, 0.1, 0.2, 0.3]))
    make_run("a", "a", seed=1, rows=offsets(split, 0, [0.2, 0.3, 0.4, 0.5]))
    make_run("b", "b", rows=offsets(split, 0, [0.1, 0.2, 0.3, 0.4]))
    (pair,) = pairs()
    assert pair.num_images == 4
    assert pair.beside["mean over pictures"].mean == pytest.approx(0, abs=1e-12)


def test_only_common_folds_are_paired(make_run, pairs):
    for fold in (0, 1):
        make_run("a", "a", fold)
    for fold in (1, 2):
        make_run("b", "b", fold)
    (pair,) = pairs()
    assert (pair.folds, pair.num_images) == ([1], 4)


def test_pictures_without_a_score_are_left_out(make_run, pairs, split_of):
    split = split_of()
    rows = offsets(split, 0, [0.1, 0.2, 0.3, 0.4])
    gap = [(*rows[0][:2], ""), *rows[1:]]
    for name in "ab":
        (make_run(name, name, rows=gap) / "pixel_counts.npz").unlink()
    (pair,) = pairs()
    assert pair.num_images == 3
    assert pair.wilcoxon_p == 1.0


def test_refusals_name_the_reason(make_run, pairs, split_of):
    other = split_of(prefix="q")
    turned = split_of()
    turned["folds"] = turned["folds"][::-1]
    make_run("a", "a")
    make_run("b", "b", split=other)
    make_run("c", "c", split=turned, rows=[])
    make_run("d", "d", fold=1)
    make_run("e", "e", rows=[("p0_0", "g", 0.5), ("zzz", "g", 0.5)])
    (make_run("f", "f") / "per_image.csv").unlink()
    make_run("g", "g", fold=0)
    make_run("g", "g", fold=1, split=other)
    reasons = {(pair.first, pair.second): pair.refused for pair in pairs()}
    assert "they saw unlike data (split hashes" in reasons["a", "b"]
    assert "unlike fold assignments of the same data" in reasons["a", "c"]
    assert reasons["a", "d"] == "no fold is finished in both"
    assert "4 pictures were scored by one of them only, for example p0_1" in reasons["a", "e"]
    assert "f has no complete per-image rows for val, plain in fold 0" in reasons["a", "f"]
    assert reasons["a", "g"].startswith("g: its runs saw unlike data")


def test_a_refused_pair_counts_in_no_correction(make_run, pairs, split_of):
    make_run("a", "a")
    make_run("b", "b", split=split_of(prefix="q"))
    (pair,) = pairs()
    assert pair.score is None
    assert math.isnan(pair.wilcoxon_holm_p)
    assert pair.verdict.text.startswith("not paired: they saw unlike data")


def test_models_without_results_are_not_compared(make_run, pairs):
    make_run("a", "a")
    make_run("b", "b", status="failed")
    assert pairs() == []


def test_the_mean_over_pictures_can_take_a_winner_back(make_run, pairs, split_of):
    """By the pictures' mIoU one wins every picture; the sum of the counts says the reverse."""
    split = split_of(per_fold=12)
    rows = offsets(split, 0, np.linspace(0.1, 0.13, 12))
    make_run("a", "a", confusion=FAIR, split=split, rows=rows)
    make_run("b", "b", confusion=GOOD_OF[1], split=split, rows=offsets(split, 0, [0.0] * 12))
    (pair,) = pairs()
    assert pair.beside["mean over pictures"].interval.low > 0
    assert pair.score.adjusted.high < 0
    assert pair.verdict.text == "no difference shown: the mean over pictures says the reverse"


def test_without_pixel_counts_there_is_no_winner(make_run, pairs, split_of):
    split = split_of()
    (make_run("a", "a", rows=offsets(split, 0, [0.1, 0.1, 0.2, 0.1])) / "pixel_counts.npz").unlink()
    make_run("b", "b", rows=offsets(split, 0, [0.0] * 4))
    (pair,) = pairs()
    assert pair.score is None
    assert list(pair.classes) == []
    assert pair.verdict.text == "no difference shown: without pixel counts there is no pooled score"


def test_a_picture_in_another_group_cannot_be_paired(make_run, pairs, split_of):
    make_run("a", "a")
    make_run("b", "b", rows=[(name, "elsewhere", 0.5) for name in split_of()["folds"][0]["val"]])
    (pair,) = pairs()
    assert "4 pictures are in unlike groups, for example p0_0" in pair.refused


def test_effects_and_tally(make_run, pairs, split_of):
    split = split_of()
    make_run("a", "a", rows=offsets(split, 0, [0.25, 0.0, -0.125, 0.5]))
    make_run("b", "b", rows=offsets(split, 0, [0.0] * 4))
    (pair,) = pairs()
    differences = np.array([0.25, 0.0, -0.125, 0.5])
    assert (pair.pictures.wins, pair.pictures.ties, pair.pictures.losses) == (2, 1, 1)
    assert pair.rank_biserial == pytest.approx((2 + 3 - 1) / 6)
    assert pair.cohens_dz == pytest.approx(differences.mean() / differences.std(ddof=1))


@pytest.mark.parametrize(("metric", "winner"), [("micro_iou", "a"), ("ece", "a"), ("brier", "a"), ("boundary_f1", "a")])
def test_a_score_that_the_rows_lack_comes_from_the_counts(make_run, tmp_path, metric, winner):
    for fold in range(2):
        rows = [(f"p{fold}_{i}", f"p{fold}_{i}", 0.5) for i in range(4)]
        make_run("a", "a", fold, GOOD_OF[fold], rows=rows)
        make_run("b", "b", fold, [[60 + 4 * fold, 40, 0], [40 - 4 * fold, 60, 0], [0, 0, 0]], rows=rows)
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    (pair,) = compare(sorted(models, key=lambda model: model.label), ScoredOn("val"), 2000, 0, metric)
    assert pair.num_images == 8
    assert pair.verdict.winner == winner
    assert (pair.pictures.wins, pair.pictures.losses) == (8, 0)


def test_seeds_weigh_each_picture_the_same_in_the_pooled_difference(make_run, pairs):
    make_run("a", "a", 0, GOOD, seed=0)
    make_run("a", "a", 0, FAIR, seed=1)
    make_run("a", "a", 1, FAIR)
    for fold in range(2):
        make_run("b", "b", fold, GOOD)
    (pair,) = pairs()
    pooled = np.array(GOOD) + np.array(FAIR) + 2 * np.array(FAIR)
    iou = [pooled[i, i] / (pooled[i].sum() + pooled[:, i].sum() - pooled[i, i]) for i in range(2)]
    assert pair.score.mean == pytest.approx(np.mean(iou) - 1)
    # fold 0: the mean of 1 and 60 / 140 against 1
    assert [(each.wins, each.ties, each.losses) for each in pair.classes] == [(0, 0, 8), (0, 0, 8), (0, 0, 0)]


def test_refusals_when_something_is_not_known_or_unlike(make_run, pairs, split_of):
    make_run("a", "a")
    make_run("b", "b", provenance={"split_sha256": None})
    (make_run("c", "c") / "splits.json").unlink()
    make_run("d", "d", split={**split_of(), "test": ["t0"]})
    other = make_run("e", "e")
    page = (other / "metrics.json").read_text()
    (other / "metrics.json").write_text(page.replace("stain", "spot"))
    reasons = {pair.second: pair.refused for pair in pairs() if pair.first == "a"}
    assert reasons == {
        "b": "b: provenance.json does not tell the split hash",
        "c": "c: no run has a splits.json that can be read",
        "d": "they have unlike test pictures",
        "e": "they have unlike class lists",
    }


def test_masks_that_changed_between_the_runs_are_not_compared(make_run, pairs):
    told = {"annotations_sha256": {"train": "1", "val": "2", "test": "3"}}
    make_run("a", "a", provenance=told)
    make_run("b", "b", provenance={"annotations_sha256": {"train": "other labels", "val": "2", "test": "3"}})
    make_run("c", "c", provenance={"annotations_sha256": {"train": "1", "val": "2", "test": "corrected"}})
    make_run("d", "d")  # of before
    reasons = {(pair.first, pair.second): pair.refused for pair in pairs()}
    changed = "masks or labels changed between their runs of fold 0"
    assert {names for names, reason in reasons.items() if reason == changed} == {("a", "c"), ("b", "c")}
    assert not any(reason for names, reason in reasons.items() if "c" not in names)


def test_intervals_of_the_pooled_score(make_run, tmp_path, split_of):
    for fold in range(3):
        make_run("a", "a", fold, [[97, 6, 0], [5, 90, 0], [0, 0, 0]])
        make_run("b", "b", fold, split=split_of(prefix="q") if fold else None)  # refused
        (make_run("c", "c", fold) / "pixel_counts.npz").unlink()
        (make_run("d", "d", fold) / "per_image.csv").unlink()
    make_run("e", "e", 0)
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    found = pooled_estimates(models, ScoredOn("val"), 300, 0, "miou")
    assert list(found) == ["a", "e"]
    expected = next(model for model in models if model.label == "a").pooled(ScoredOn("val")).overall["miou"]
    assert found["a"].mean == pytest.approx(expected)
    assert found["a"].interval.low < expected < found["a"].interval.high <= 1
    assert (found["a"].num_units, found["e"].num_units, found["e"].interval) == (6, 2, None)
