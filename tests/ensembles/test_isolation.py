"""Each check of the isolation audit passes what is right and finds what is planted."""

from dataclasses import replace

import numpy as np
import pytest
from tests.ensembles._inputs import rows_of

from hsl.ensembles.isolation import (
    Check,
    check_complete,
    check_gap,
    check_out_of_fold,
    check_sides,
    check_step,
    check_test_list,
    check_test_unopened,
    judged,
)
from hsl.ensembles.nested import Combined, Trail, meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.errors import DataError

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
        check_step("s", 0.88, 0.9),
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
    found = [check_step("s", score, 0.9).status for score in (0.95, 0.88, 0.87, float("nan"))]
    assert found == ["passed", "passed", "warning", "not checked"]
    assert check_step("s", 0.5, None).status == "not checked"
    judged([check_step("s", 0.5, 0.9)])


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
