"""Meta reads nested outputs, and what it applies to a part has read no label of it."""

from dataclasses import replace

import numpy as np
import pytest
from tests.ensembles._inputs import rows_of

from hsl.ensembles.experts import experts
from hsl.ensembles.fusion import fusion
from hsl.ensembles.meta import meta, stage_rows
from hsl.ensembles.nested import Combined, Fit, meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import best_single, votes


def test_the_inputs_are_the_nested_outputs_and_the_members() -> None:
    rows = rows_of([1, 0.3], num=80)
    seen: list[Rows] = []

    def spy(new: Rows) -> Combined:
        seen.append(new)
        return best_single(new)

    combined = meta({"single": spy}, num_folds=2)["meta/logistic"](rows)
    assert combined.notes["inputs"] == ["individual/m00", "individual/m01", "single"]
    parts = meta_folds(rows, 2)
    assert [new.digest for new in seen] == [rows.take(parts != 0).digest, rows.take(parts != 1).digest, rows.digest]
    nested = run_nested("single", best_single, rows, parts).nested
    inner = stage_rows(rows, {"single": nested})
    expected = stacking()["stacking/logistic"](inner)(stage_rows(rows, {"single": best_single(rows)(rows)}))
    np.testing.assert_array_equal(combined(rows), expected)


def test_the_variants_share_the_outputs() -> None:
    rows = rows_of([1, 0.3], num=60)
    calls = []

    def counted(new: Rows) -> Combined:
        calls.append(new.digest)
        return best_single(new)

    for fit in meta({"single": counted}, num_folds=3, trees=2).values():
        fit(rows)
    assert len(calls) == 4


def shares_of_classes(rows: Rows) -> Combined:
    """Answers every row with the shares of the classes that it was fitted on."""
    shares = rows.truth.mean(axis=0)
    return Combined(rows.members, rows.classes, lambda new: np.tile(shares, (len(new.ids), 1)), {})


def test_what_was_left_out_does_not_betray_itself() -> None:
    """Without a row, the share of its class is lower: over outputs that parts share a learner reads the label off."""
    rows = rows_of([0], num=20, classes=2, group_size=1, seed=1)
    alone = np.arange(20)
    shared = stage_rows(rows, {"shares": run_nested("shares", shares_of_classes, rows, alone).nested})
    leaking = run_nested("shared", stacking(1e6)["stacking/logistic"], shared.of_members(["shares"]), alone)
    assert score_of(leaking.nested, rows) == 1
    honest = run_nested("meta", meta({"shares": shares_of_classes}, 2)["meta/logistic"], rows, alone)
    assert score_of(honest.nested, rows) < 0.7


def every_stage() -> dict[str, Fit]:
    return {"single": best_single, **votes(), **stacking(), **fusion(), **experts()}


@pytest.mark.slow
def test_meta_is_bit_equal_again_and_helps_where_a_stage_does() -> None:
    rows = rows_of([0.6, 0.5, 0.4, 0], num=150)
    parts = meta_folds(rows, 3)
    for name in ("meta/logistic", "meta/gradient_boosting"):
        one, two = (run_nested(name, meta(every_stage(), num_folds=3)[name], rows, parts) for _ in range(2))
        np.testing.assert_array_equal(one.nested, two.nested)
        assert score_of(one.nested, rows) > score_of(rows.probabilities[0], rows)


def test_too_few_groups_for_the_folds_inside_are_refused() -> None:
    rows = rows_of([1], num=6, group_size=2)
    with pytest.raises(ValueError, match="at most the number of groups that share no image, 3"):
        meta({"single": best_single})["meta/logistic"](rows)
    found = meta({"single": best_single}, num_folds=3)["meta/logistic"](rows)(replace(rows, features={}))
    assert found.shape == (6, 3)
