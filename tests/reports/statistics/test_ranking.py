"""Ranking, spread and ablation; what is said of a variant is what the comparison says, the right way round."""

import math
import shlex

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from scipy import stats

from hsl.errors import ConfigError
from hsl.reports.head_report import cv_results
from hsl.reports.models import models_of
from hsl.reports.statistics.ablation import ablation_table, changed, check_base, find_base
from hsl.reports.statistics.comparisons import compare, pooled_estimates
from hsl.reports.statistics.paired_tests import Interval, Summary
from hsl.reports.statistics.ranking import ranked, ranking_table
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.statistics.variance import variance_components, variance_table
from hsl.reports.tables.score_tables import interval_cell
from hsl.run_folder.run import ScoredOn, gather

HALF = [[50, 50, 0], [50, 50, 0], [0, 0, 0]]  # IoU 50 / 150 in both
FULL = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]
THREE = [[50, 0, 0], [0, 50, 0], [0, 0, 50]]
WRONG = {"base": 20, "focal": 10, "flat": 40}


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def cells(table, key):
    return [row[[column.key for column in table.columns].index(key)] for row in table.rows]


def test_ranking_orders_by_the_mean_and_ranks_only_what_is_complete(make_run, models):
    for fold in range(2):
        make_run("a", "a", fold, HALF)
        make_run("b", "b", fold, FULL, tta=FULL)
    make_run("c", "c", 0, FULL)
    make_run("d", "d", 0, status="failed")
    ranking = ranked(models(), "miou", ScoredOn("val"))
    assert [(rank, model.label) for rank, model in ranking] == [
        (1, "b"),
        (2, "a"),
        (None, "c"),
        (None, "d (none finished)"),
    ]
    table = ranking_table(ranking, ScoredOn("val"))
    assert cells(table, "folds") == ["2 of 3", "2 of 3", "1 of 3", "0 of 3"]
    assert cells(table, "miou")[:2] == [Summary(1.0, 0.0, 2), Summary(pytest.approx(1 / 3), 0.0, 2)]
    assert table.texts[1][2] == "33.33 ± 0.00"
    assert table.texts[2][2] == "100.00 (1 fold)"
    assert cells(table, "miou_pooled") == [1.0, pytest.approx(1 / 3), 1.0, None]
    assert table.texts[1][3] == "–"  # no TTA
    assert cells(table, "classes_scored") == ["2 of 3", "2 of 3", "2 of 3", "– of 0"]


@pytest.mark.parametrize("metric", ["ece", "nll", "brier"])
def test_the_lowest_comes_first_where_lower_is_better(make_run, models, metric):
    # 100 pixels right: ECE 0.03, NLL 0.03, Brier 0.01; 100 of 200 right: (3 + 63) / 200, 153 / 200, 91 / 200
    make_run("a", "a", 0, HALF)
    make_run("b", "b", 0, FULL)
    table = ranking_table(ranked(models(), metric, ScoredOn("val")), ScoredOn("val"))
    assert cells(table, "model") == ["b", "a"]
    assert [cell.mean for cell in cells(table, metric)] == pytest.approx(
        {"ece": [0.03, 0.33], "nll": [0.03, 0.765], "brier": [0.01, 0.455]}[metric]
    )


def test_the_ranking_with_intervals(make_run, models):
    make_run("a", "a", 0, HALF)
    make_run("b", "b", 0, FULL)
    ranking = ranked(models(), "miou", ScoredOn("val"))
    table = ranking_table(ranking, ScoredOn("val"), "miou", {"b": Estimate(0.9, 8, Interval(0.9, 0.85, 0.955))})
    assert cells(table, "interval") == ["[85.00, 95.50]", None]
    assert cells(table, "groups") == [8, None]
    assert cells(table, "verdict") == ["–", None]  # b is the first; nothing was compared


def test_dice_of_empty_masks_stands_beside_that_of_predicting_nothing(make_run, models):
    # 4 pictures, none with stain, so half the values are 1 for anyone: 12 or 13 right pixels of crack in each
    half = [25 / 50, 25 / 50, 24 / 50, 26 / 50]  # 2 x 12 or 13 of what 25 true and 25 predicted pixels add up to
    for fold, confusion in enumerate([FULL, HALF]):
        make_run("a", "a", fold, confusion, test=FULL)
    found = models()
    table = ranking_table([(1, found[0])], ScoredOn("val"))
    keys = [column.key for column in table.columns]
    place = keys.index("dice_empty_one")
    assert keys[place + 1] == "dice_empty_one_predicting_nothing"
    (dice,), (nothing,) = cells(table, keys[place]), cells(table, keys[place + 1])
    assert (dice.num, dice.mean) == (2, pytest.approx((1 + (1 + sum(half) / 4) / 2) / 2, abs=0.01))
    assert nothing == Summary(0.5, 0.0, 2)
    assert "what predicting nothing scores" in table.caption
    assert "dice_empty_one" in [column.key for column in ranking_table([(1, found[0])], ScoredOn("test")).columns]
    page = cv_results([(1, found[0])], [], [], [], ["val"])
    told = page["models"][0]["parts"]["val"]["plain"]["over_folds"]
    assert told["dice_empty_one_predicting_nothing"] == {"mean": 0.5, "std": 0.0, "num": 2}


def test_without_counts_per_picture_no_dice_of_empty_masks(make_run, models):
    (make_run() / "pixel_counts.npz").unlink()
    table = ranking_table([(1, models()[0])], ScoredOn("val"))
    assert not any(column.key.startswith("dice_empty") for column in table.columns)
    assert "empty" not in table.caption


def test_unlike_numbers_of_scored_classes_show(make_run, models):
    make_run(fold=0, confusion=FULL)
    make_run(fold=1, confusion=THREE)
    table = ranking_table(ranked(models(), "miou", ScoredOn("val")), ScoredOn("val"))
    assert cells(table, "classes_scored") == ["2–3 of 3"]


def test_the_test_part_is_not_pooled_over_folds(make_run, models):
    for fold in range(2):
        make_run(fold=fold, test=HALF)
    table = ranking_table(ranked(models(), "miou", ScoredOn("test")), ScoredOn("test"))
    assert table.name == "ranking_test"
    assert "miou_pooled" not in [column.key for column in table.columns]
    assert cells(table, "miou") == [Summary(pytest.approx(1 / 3), 0.0, 2)]


def test_unequal_numbers_of_seeds_against_the_f_test_of_scipy():
    folds = [[0.5, 0.52, 0.55], [0.61, 0.64], [0.4, 0.47, 0.44, 0.43]]
    found = variance_components(folds)
    within = sum(np.var(fold) * len(fold) for fold in folds) / (9 - 3)
    between = stats.f_oneway(*folds).statistic * within
    assert found.seed == pytest.approx(within)
    assert found.split == pytest.approx((between - within) / ((9 - 29 / 9) / 2))  # 29 = 9 + 4 + 16


def test_the_components_are_unbiased():
    rng = np.random.default_rng(0)
    cut = []
    for _ in range(3000):
        folds = rng.normal(0, 2.0, (4, 1)) + rng.normal(0, 1.0, (4, 3))
        cut.append(variance_components([fold[: 2 + i % 2].tolist() for i, fold in enumerate(folds)]))
    assert np.mean([each.seed for each in cut]) == pytest.approx(1.0, rel=0.05)
    assert np.mean([each.split for each in cut]) == pytest.approx(4.0, rel=0.08)  # hardly ever cut at 0


def test_a_negative_component_is_zero_and_said():
    found = variance_components([[0.0, 1.0], [0.1, 0.9]])
    assert found.split == 0
    assert "negative" in found.note


def test_what_is_not_known_is_nan_and_said():
    one_seed = variance_components([[0.5], [0.6], [0.7]])
    assert math.isnan(one_seed.seed)
    assert math.isnan(one_seed.split)
    assert "one seed per fold" in one_seed.note
    one_fold = variance_components([[0.5, 0.7]])
    assert one_fold.seed == pytest.approx(0.02)
    assert math.isnan(one_fold.split)
    assert "one fold" in one_fold.note


def test_the_table(make_run, tmp_path):
    for fold, seed, right in [(0, 0, 80), (0, 1, 84), (1, 0, 60), (1, 1, 64)]:
        make_run("a", "a", fold, [[right, 100 - right, 0], [0, 100, 0], [0, 0, 0]], seed=seed)
        make_run("b", "b", fold, None, seed=0, time=f"t{seed}")
    make_run("c", "c", status="failed")
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    table = variance_table(sorted(models, key=lambda m: m.label), "pixel_accuracy", ScoredOn("val"))
    keys = [column.key for column in table.columns]
    first, second = (dict(zip(keys, row, strict=True)) for row in table.rows)
    found = variance_components([[0.9, 0.92], [0.8, 0.82]])
    assert (first["folds"], first["seeds"], first["score"].mean) == (2, "2", pytest.approx(0.86))
    assert (first["split_std"], first["seed_std"]) == pytest.approx((math.sqrt(found.split), math.sqrt(found.seed)))
    assert first["seed_share"] == pytest.approx(found.seed / (found.seed + found.split))
    assert "not known" in second["note"]
    assert table.texts[1][keys.index("seed_std")] == "–"


@pytest.fixture
def ablated(make_run, tmp_path):
    for name, wrong in WRONG.items():
        loss = {"gamma": 2.0} if name == "focal" else {"gamma": 0.0}
        for fold in range(3):
            # pictures differ, so that a difference has a spread
            matrix = [[100 + 7 * fold, wrong, 0], [wrong + fold, 80, 0], [0, 0, 0]]
            make_run(name, "resnet50", fold, matrix, config={"loss": loss, "decoder": {"name": name == "flat"}})
    found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    return sorted(found, key=lambda model: -model.summary("miou", ScoredOn("val")).mean)


def rows_of(ablated, base):
    settings = (ScoredOn("val"), 500, 0)
    pairs = compare(ablated, *settings)
    means = {model.label: model.summary("miou", ScoredOn("val")) for model in ablated}
    table = ablation_table(ablated, base, "miou", means, pooled_estimates(ablated, *settings, "miou"), pairs)
    keys = [column.key for column in table.columns]
    return pairs, [dict(zip(keys, row, strict=True)) for row in table.rows], table


def test_every_variant_against_the_base(ablated):
    base = find_base(ablated, "base")
    pairs, (first, *variants), table = rows_of(ablated, base)
    assert (first["model"], first["changed"], first["difference"]) == (base.label, "the base", None)
    assert [row["model"] for row in variants] == [model.label for model in ablated if model is not base]
    assert variants[0]["difference"] > 0 > variants[1]["difference"]
    for row in variants:
        pair = next(one for one in pairs if {one.first, one.second} == {base.label, row["model"]})
        sign = 1 if pair.first == row["model"] else -1
        assert row["difference"] == pytest.approx(sign * pair.score.mean)
        assert row["adjusted_p"] == pair.score.adjusted_p, "adjusted for all pairs of the report: one verdict a pair"
        ends = sorted((sign * pair.score.adjusted.low, sign * pair.score.adjusted.high))
        assert row["interval_adjusted"] == interval_cell(Interval(0, *ends), "points")
        assert row["verdict"].startswith("no difference shown" if not pair.verdict.winner else ("better", "worse"))
        assert row["groups"] == pair.score.num_units
    assert "Dunnett" in table.caption
    assert "against the base" in table.to_latex()


def test_what_was_changed_is_said(ablated):
    base = find_base(ablated, "base")
    found = {model.runs[0].config["name"]: changed(model, base) for model in ablated}
    assert found == {"base": "the encoder", "focal": "loss.gamma=2.0", "flat": "decoder.name=true"}


def test_of_an_exchanged_part_only_the_name_is_said(make_run, tmp_path):
    parts = {
        "base": {"_target_": "hsl.Dice", "smooth": 1.0},
        "other": {"_target_": "hsl.Two", "gamma": 2.0, "pixel": {"_target_": "hsl.Focal"}},
    }
    for name, loss in parts.items():
        make_run(name, confusion=[[5, 1, 0], [1, 5, 0], [0, 0, 0]], config={"loss": loss, "size": len(name)})
    found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    base, other = (find_base(found, name) for name in parts)
    assert sorted(changed(other, base).split(", ")) == ["loss=Two", "size=5"]


def test_the_base_goes_by_label_or_by_the_name_of_its_runs(ablated):
    base = find_base(ablated, "base")
    assert find_base(ablated, base.label) is base
    assert find_base(ablated, "nothing") is None
    check_base([ablated], None)
    check_base([[], ablated], "base")


def test_an_unknown_base_lists_the_labels_and_what_it_says_to_type_works(ablated):
    with pytest.raises(ConfigError, match=r"`base` should be the label.*Found `base = dream`") as caught:
        check_base([ablated], "dream")
    (word,) = shlex.split(str(caught.value).split("`")[-2])
    parsed = OverridesParser.create().parse_override(word).value()
    assert find_base(ablated, parsed) is ablated[0]
    with pytest.raises(ConfigError, match=r"there is none. Found `base = dream`\.$"):
        check_base([[]], "dream")


def test_runs_of_one_name_that_are_two_models_are_told_apart_by_label(make_run, tmp_path):
    for i in range(2):
        make_run("same", f"e{i}", confusion=[[5, 1, 0], [1, 5, 0], [0, 0, 0]], time=f"2026-01-0{i + 1}_00-00-00")
    found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    with pytest.raises(ConfigError, match=r"`base` should name one model. Found 2.*`e0`, `e1`"):
        check_base([found], "same")
    assert find_base(found, "e1").label == "e1"
