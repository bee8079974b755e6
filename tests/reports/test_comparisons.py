import math

import numpy as np
import pytest
from scipy import stats

from hsl.reports.comparisons import compare, pooled_intervals
from hsl.reports.gather import gather
from hsl.reports.results import models_of
from hsl.reports.statistics import holm, paired_bootstrap

GOOD = [[90, 0, 0], [0, 90, 0], [0, 0, 0]]  # mIoU 1
FAIR = [[60, 40, 0], [40, 60, 0], [0, 0, 0]]  # mIoU 60 / 140


@pytest.fixture
def pairs(tmp_path):
    def run(part="val", inference="plain"):
        models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
        models = sorted(models, key=lambda model: model.label)
        return compare(models, part, inference, resamples=2000, seed=0)

    return run


def offsets(split, fold, values):
    """Rows with per-image mIoU 0.5 + value; two pictures share a group."""
    ids = split["folds"][fold]["val"]
    return [(name, f"{fold}-{i // 2}", 0.5 + v) for i, (name, v) in enumerate(zip(ids, values, strict=True))]


def test_a_clear_difference(make_run, pairs, split_of):
    split = split_of()
    better = np.array([[0.10, 0.12, 0.14, 0.11], [0.09, 0.10, 0.13, 0.12], [0.12, 0.11, 0.10, 0.10]])
    for fold in range(3):
        make_run("a", "a", fold, GOOD, rows=offsets(split, fold, better[fold]))
        make_run("b", "b", fold, FAIR, rows=offsets(split, fold, [0.0] * 4))
    (pair,) = pairs()
    assert (pair.first, pair.second, pair.refused, pair.num_images) == ("a", "b", "", 12)
    assert pair.by_image.mean == pytest.approx(better.mean())
    differences = (better + 0.5 - 0.5).ravel()
    assert pair.by_image == paired_bootstrap(differences, 2000, 0)
    assert pair.wilcoxon_p == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert pair.wilcoxon_holm_p == pair.wilcoxon_p  # one pair
    assert pair.by_group is not None
    # all three folds differ by 1 - 60 / 140: no spread, so p = 0
    assert pair.corrected_t_p == 0.0
    assert pair.verdict == "a is better on these pictures"


def test_no_winner_while_an_interval_holds_zero(make_run, pairs, split_of):
    split = split_of()
    make_run("a", "a", rows=offsets(split, 0, [0.1, 0.1, -0.1, -0.05]))
    make_run("b", "b", rows=offsets(split, 0, [0.0] * 4))
    (pair,) = pairs()
    assert pair.verdict == "no difference shown"
    assert math.isnan(pair.corrected_t_p)  # one fold


def test_the_interval_by_group_can_take_a_winner_back(make_run, pairs, split_of):
    split = split_of(num_folds=2, per_fold=12)
    values = [0.2] * 6 + [-0.01] * 6  # two groups: by picture clear, by group not
    rows = [
        (name, f"g{i // 6}", 0.5 + v) for i, (name, v) in enumerate(zip(split["folds"][0]["val"], values, strict=True))
    ]
    make_run("a", "a", split=split, rows=rows)
    make_run("b", "b", split=split, rows=[(name, group, 0.5) for name, group, _ in rows])
    (pair,) = pairs()
    assert not pair.by_image.holds_zero
    assert pair.by_group.holds_zero
    assert pair.verdict == "no difference shown"


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
    assert pair.by_image.mean == pytest.approx(0, abs=1e-12)


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
    make_run("a", "a", rows=gap)
    make_run("b", "b", rows=gap)
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
    assert pair.by_image is None
    assert math.isnan(pair.wilcoxon_holm_p)
    assert pair.verdict.startswith("not paired: they saw unlike data")


def test_models_without_results_are_not_compared(make_run, pairs):
    make_run("a", "a")
    make_run("b", "b", status="failed")
    assert pairs() == []


def test_the_pooled_score_can_take_a_winner_back(make_run, pairs, split_of):
    """By the pictures' mIoU one wins every picture; the sum of the counts says the reverse."""
    split = split_of(per_fold=6)
    make_run("a", "a", confusion=FAIR, split=split, rows=offsets(split, 0, [0.1, 0.12, 0.11, 0.1, 0.13, 0.1]))
    make_run("b", "b", confusion=GOOD, split=split, rows=offsets(split, 0, [0.0] * 6))
    (pair,) = pairs()
    assert pair.by_image.low > 0
    assert pair.pooled.mean == pytest.approx(60 / 140 - 1)
    assert pair.pooled.high < 0
    assert pair.verdict == "no difference shown: the mean over pictures and the pooled score disagree"


def test_without_pixel_counts_there_is_no_winner(make_run, pairs, split_of):
    split = split_of()
    (make_run("a", "a", rows=offsets(split, 0, [0.1, 0.1, 0.2, 0.1])) / "pixel_counts.npz").unlink()
    make_run("b", "b", rows=offsets(split, 0, [0.0] * 4))
    (pair,) = pairs()
    assert pair.pooled is None
    assert list(pair.classes) == []
    assert pair.verdict == "no difference shown: without pixel counts there is no pooled score"


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
        make_run("a", "a", fold, GOOD)
        make_run("b", "b", fold, FAIR)
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    (pair,) = compare(sorted(models, key=lambda model: model.label), "val", "plain", 500, 0, metric)
    assert pair.num_images == 8
    assert pair.verdict == f"{winner} is better on these pictures"
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
    assert pair.pooled.mean == pytest.approx(np.mean(iou) - 1)
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
    for fold in range(2):
        make_run("a", "a", fold, [[97, 6, 0], [5, 90, 0], [0, 0, 0]])
        make_run("b", "b", fold, split=split_of(prefix="q") if fold else None)  # refused
        (make_run("c", "c", fold) / "pixel_counts.npz").unlink()
        (make_run("d", "d", fold) / "per_image.csv").unlink()
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    found = pooled_intervals(models, "val", "plain", 300, 0, "miou")
    assert list(found) == ["a"]
    expected = next(model for model in models if model.label == "a").pooled("val", "plain").overall["miou"]
    assert found["a"].mean == pytest.approx(expected)
    assert found["a"].low <= expected <= found["a"].high
    assert found["a"].low < found["a"].high
