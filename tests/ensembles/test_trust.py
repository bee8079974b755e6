"""What may be trusted: isolation of the parts, and calibrated probabilities."""

from dataclasses import replace

import numpy as np
import pytest
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.calibration import (
    calibrated,
    calibration_of,
    conformal_limits,
    conformal_sets,
    fit_temperature,
)
from hsl.ensembles.isolation import (
    Check,
    check_complete,
    check_decline,
    check_gap,
    check_out_of_fold,
    check_sides,
    check_test_list,
    check_test_unopened,
    judged,
)
from hsl.ensembles.nested import Combined, Fit, Trail, log_loss_of, meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import votes
from hsl.errors import DataError
from hsl.inference.combining import tempered

GROUPS = {"a": "1", "b": "1", "c": "2", "d": "2"}
CONTENTS = {name: name for name in GROUPS}
TRAINED = {"m": {0: {"c", "d"}, 1: {"a", "b"}}}
FOLDS = {"a": 0, "b": 0, "c": 1, "d": 1}


def statuses(checks: list[Check]) -> list[str]:
    return [check.status for check in checks]


def test_what_is_isolated_passes() -> None:
    trails = [Trail(("a", "b"), ("c", "d")), Trail(("c", "d"), ("a", "b"))]
    checks = [
        *check_sides("s", trails, GROUPS, CONTENTS),
        check_out_of_fold("s", FOLDS, TRAINED, GROUPS),
        check_complete("s", list("abcd"), list("dcba")),
        check_test_list("s", ["x", "y"], {"m": ["y", "x"]}),
        check_test_unopened("s", ["a.png"], ["x.png"]),
        check_gap("s", 0.95, 0.9),
        check_decline("s", 0.88, 0.9),
    ]
    assert set(statuses(checks)) == {"passed"}
    judged(checks)


def test_both_sides_of_a_fit_share_no_id_content_or_group() -> None:
    trail = [Trail(("a", "c"), ("d",)), Trail(("b",), ("d",))]
    assert statuses(check_sides("s", trail, GROUPS, CONTENTS)) == ["passed", "passed", "violation"]
    copies = CONTENTS | {"d": "a"}
    assert statuses(check_sides("s", trail, CONTENTS, copies)) == ["passed", "violation", "passed"]
    same = [Trail(("a", "d"), ("d",))]
    checks = check_sides("s", same, GROUPS, CONTENTS)
    assert statuses(checks) == ["violation"] * 3
    with pytest.raises(DataError, match=r"s: no id on both sides of a fit: 1 fits, 1 on both sides: d; .*No score"):
        judged(checks)
    assert statuses(check_sides("s", [], GROUPS, CONTENTS)) == ["not checked"] * 3
    unknown = check_sides("s", trail, {"a": "1"}, CONTENTS)[2]
    assert (unknown.status, unknown.found) == ("not checked", "the group of b, c, d is not known")


def test_a_test_id_in_a_fit_is_one_row_too_many() -> None:
    planted = check_complete("s", ["a", "b", "c", "d", "x"], list("abcd"))
    assert planted.status == "violation"
    assert planted.found == "5 rows, 4 images outside the test part; not among them: x"
    assert "without a row: d" in check_complete("s", list("abc"), list("abcd")).found
    assert check_complete("s", ["a", "a"], ["a"]).status == "violation"


def test_rows_in_fold_are_found() -> None:
    swapped = {name: 1 - fold for name, fold in FOLDS.items()}
    planted = check_out_of_fold("s", swapped, TRAINED, GROUPS)
    assert planted.status == "violation"
    assert "4 in fold: a by fold 1 of m" in planted.found
    copy = {"m": {0: {"b", "c"}, 1: {"a", "b"}}}  # trained on b, which is of the group of a
    assert "a by fold 0 of m" in check_out_of_fold("s", {"a": 0}, copy, GROUPS).found
    assert check_out_of_fold("s", {"a": 3}, TRAINED, GROUPS).status == "not checked"
    assert check_out_of_fold("s", FOLDS, TRAINED, {"a": "1"}).found == "the group of b, c, d is not known"
    assert check_out_of_fold("s", FOLDS, {}, GROUPS).status == "not checked"


def test_another_test_list_and_a_test_file_opened_early_are_found() -> None:
    changed = check_test_list("s", ["x"], {"m": ["x"], "n": ["x", "y"]})
    assert changed.status == "violation"
    assert changed.found.endswith("another list: n")
    assert check_test_list("s", ["x"], {}).status == "not checked"
    early = check_test_unopened("s", ["a.png", "x.png"], ["x.png"])
    assert (early.status, early.found) == ("violation", "1 test files, 1 opened: x.png")
    assert check_test_unopened("s", None, ["x.png"]).status == "not checked"


def test_a_gap_warns_then_stops_and_a_step_down_warns() -> None:
    found = [check_gap("s", fitted, 0.8).status for fitted in (0.85, 0.851, 0.9, 0.901, float("nan"))]
    assert found == ["passed", "warning", "warning", "violation", "not checked"]
    found = [check_decline("s", score, 0.9).status for score in (0.95, 0.88, 0.87, float("nan"))]
    assert found == ["passed", "passed", "warning", "not checked"]
    assert check_decline("s", 0.5, None).status == "not checked"
    judged([check_decline("s", 0.5, 0.9)])


def nearest(rows: Rows) -> Combined:
    """Remembers every row: as good as the share of rows that it has seen a copy of."""
    seen = rows.probabilities[0]

    def combine(new: Rows) -> np.ndarray:
        distance = ((new.probabilities[0][:, None] - seen[None]) ** 2).sum(axis=2)
        return rows.truth[distance.argmin(axis=1)]

    return Combined(rows.members, rows.classes, combine, {})


def test_with_copies_in_a_group_nested_is_honest_and_without_groups_the_audit_stops() -> None:
    """Four copies of each of 60 images, of which nothing can be learnt."""
    single = rows_of([0], num=60, group_size=1)
    probabilities = np.repeat(single.probabilities, 4, axis=1)
    rows = rows_of([0], num=240, group_size=4, labels=np.repeat(single.labels, 4), probabilities=probabilities)
    groups = dict(zip(rows.ids, rows.groups, strict=True))
    contents = dict(zip(rows.ids, rows.contents, strict=True))
    honest = run_nested("nearest", nearest, rows, meta_folds(rows))
    assert abs(score_of(honest.nested, rows) - 1 / 3) < 0.2
    judged(check_sides("nearest", honest.trails, groups, contents))
    ignored = replace(rows, groups=rows.ids)
    leaking = run_nested("nearest", nearest, ignored, meta_folds(ignored))
    assert score_of(leaking.nested, rows) > 0.9
    with pytest.raises(DataError, match="nearest: no group on both sides of a fit: 5 fits, 60 on both sides"):
        judged(check_sides("nearest", leaking.trails, groups, contents))


# Temperatures, calibration errors by a loop, and the coverage of conformal sets.


SOFT: Fit = votes()["votes/soft"]


def drawn_from(probabilities: np.ndarray, several: bool, seed: int = 0, **others: object) -> Rows:
    """Labels drawn from the probabilities: a member that is calibrated."""
    generator = np.random.default_rng(seed + 1000)
    draws = generator.uniform(size=probabilities.shape)
    labels = draws < probabilities if several else (draws[:, :1] < probabilities.cumsum(axis=1)).argmax(axis=1)
    num, classes = probabilities.shape
    return rows_of(
        [1], num=num, classes=classes, several=several, labels=labels, probabilities=probabilities[None], **others
    )


@pytest.mark.parametrize("several", [False, True])
def test_a_temperature_that_was_put_in_is_taken_out(several: bool) -> None:
    generator = np.random.default_rng(0)
    true = generator.uniform(0.05, 0.95, (4000, 3)) if several else generator.dirichlet(np.ones(3), 4000)
    rows = drawn_from(true, several)
    assert fit_temperature(true, rows) == pytest.approx(1, abs=0.06)
    sharp = tempered(true, 0.4, several)
    assert fit_temperature(sharp, rows) == pytest.approx(2.5, abs=0.15)
    before, after = calibration_of(sharp, rows), calibration_of(tempered(sharp, 2.5, several), rows)
    assert after["ece"] < 0.03 < 0.1 < before["ece"]
    np.testing.assert_array_equal(sharp.argmax(axis=1), true.argmax(axis=1))


def test_errors_of_calibration_are_those_of_a_loop() -> None:
    rows = rows_of([0.5], num=90)
    rows = relabelled(rows, np.where(np.arange(90) % 5 == 0, -1, rows.labels))
    known, p = rows.labels >= 0, rows.probabilities[0]
    top, right = p[known].max(axis=1), p[known].argmax(axis=1) == rows.labels[known]
    ece = 0.0
    for low in range(15):
        inside = (top > low / 15) & (top <= (low + 1) / 15)
        ece += abs(right[inside].sum() - top[inside].sum()) / len(top)
    found = calibration_of(p, rows)
    assert found["ece"] == pytest.approx(ece)
    assert found["nll"] == pytest.approx(log_loss_of(p, rows))
    assert found["brier"] == pytest.approx(((p[known] - np.eye(3)[rows.labels[known]]) ** 2).sum(axis=1).mean())


def test_a_calibrated_stage_is_nested_and_keeps_its_decisions() -> None:
    rows = rows_of([1, 1, 1, 1], num=200)  # the mean of independent members is too unsure
    parts = meta_folds(rows)
    before, after = (run_nested("soft", fit, rows, parts) for fit in (SOFT, calibrated(SOFT)))
    assert after.combined.notes["temperature"] < 0.8
    assert log_loss_of(after.nested, rows) < log_loss_of(before.nested, rows) - 0.1
    assert calibration_of(after.nested, rows)["ece"] < calibration_of(before.nested, rows)["ece"]
    assert score_of(after.nested, rows) == score_of(before.nested, rows)
    sure = rows_of([9], num=60)
    assert calibrated(SOFT)(sure).notes["temperature"] == pytest.approx(0.05, abs=0.01)
    wrong = rows_of([-9], num=60)
    assert calibrated(SOFT)(wrong).notes["temperature"] == pytest.approx(20, rel=0.01)


def test_the_temperature_of_a_stage_that_overfits_is_from_rows_that_it_did_not_see() -> None:
    rows = rows_of([0.2, 0.1, 0], num=150)
    overfitted = stacking(trees=150)["stacking/gradient_boosting"]
    assert fit_temperature(overfitted(rows)(rows), rows) < 0.8
    assert calibrated(overfitted)(rows).notes["temperature"] > 1.3


def test_the_limit_with_groups_of_one_is_the_quantile_of_split_conformal_prediction() -> None:
    rows = rows_of([0.5], num=57, group_size=1)
    scores = np.sort(1 - rows.probabilities[0][np.arange(57), rows.labels])
    for level in (0.5, 0.8, 0.9):
        found = conformal_limits(rows.probabilities[0], rows, level)
        assert found.tolist() == [scores[int(np.ceil(58 * level)) - 1]] * 3
    few = rows.take(np.arange(8))
    assert np.isinf(conformal_limits(few.probabilities[0], few, 0.9)).all()  # 8 groups of 9 are below 0.9


def test_each_group_weighs_alike() -> None:
    groups = ["a"] * 7 + ["b", "c"]
    p = np.full((9, 2), 0.5)
    p[:7], p[7], p[8] = [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]
    rows = rows_of([1], num=9, classes=2, labels=[0] * 9, groups=groups, probabilities=p[None])
    assert conformal_limits(p, rows, 0.25)[0] == pytest.approx(0.1)
    assert conformal_limits(p, rows, 0.5)[0] == pytest.approx(0.4)
    assert conformal_limits(p, rows, 0.75)[0] == pytest.approx(0.7)
    assert np.isinf(conformal_limits(p, rows, 0.76)[0])


@pytest.mark.parametrize("several", [False, True])
def test_sets_cover_at_their_level_also_where_groups_agree_in_themselves(several: bool) -> None:
    coverages, generator = [], np.random.default_rng(0)
    for seed in range(60):
        shift = np.repeat(generator.normal(size=(60, 3)), 3, axis=0)
        logits = shift + generator.normal(size=(180, 3))
        true = 1 / (1 + np.exp(-logits)) if several else np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        rows = drawn_from(true, several, seed, group_size=3)
        coverages.append(conformal_sets(tempered(true, 0.3, several), rows, meta_folds(rows), 0.8).coverage)
    assert 0.79 < np.mean(coverages) < 0.83


def test_what_a_set_holds_is_measured() -> None:
    rows = rows_of([9], num=60)
    found = conformal_sets(rows.probabilities[0], rows, meta_folds(rows))
    assert found.coverage >= 0.85
    assert found.sets.shape == (60, 3)
    assert 0.8 <= found.mean_size <= 1.2
    assert found.certain >= 0.8
    few = rows.take(np.arange(8))
    everything = conformal_sets(few.probabilities[0], few, meta_folds(few, 2))
    assert (everything.mean_size, everything.coverage, everything.certain) == (3, 1, 0)
    with pytest.raises(ValueError, match=r"`level` should be in \(0, 1\)"):
        conformal_sets(rows.probabilities[0], rows, meta_folds(rows), 1.0)
