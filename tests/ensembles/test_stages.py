"""What holds of every stage, and of the rows that it reads."""

from dataclasses import replace

import numpy as np
import pytest
from tests.ensembles._inputs import labels_shuffled_within_groups, relabelled, rows_of, shuffled

from hsl.ensembles.boosting import boosting
from hsl.ensembles.calibration import calibrated
from hsl.ensembles.cascade import cascade
from hsl.ensembles.experts import experts
from hsl.ensembles.fusion import fusion
from hsl.ensembles.meta import meta
from hsl.ensembles.nested import Fit, meta_folds, run_nested, score_of
from hsl.ensembles.referee import referee
from hsl.ensembles.rows import Rows
from hsl.ensembles.segmentation_vote import segmentation_vote
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import best_single, votes


def stages_of(rows: Rows, inner: bool = True) -> dict[str, Fit]:
    """Every variant that rows of these members allow, small; ``inner``: with those that fit others inside."""
    order = rows.members[:5]
    fits = {"single": best_single, **votes(bags=3), **stacking(hidden=2, trees=2), **fusion(sketch=16), **experts()}
    fits |= {**segmentation_vote(), **cascade(order), **boosting(order)}
    if len(order) > 1:
        fits |= referee(order[0])
    if inner:
        within = {name: fits[name] for name in ("votes/weighted", "stacking/logistic")}
        fits["meta/logistic"] = meta(within, 2)["meta/logistic"]
        fits["calibrated"] = calibrated(within["votes/weighted"], 2)
    return fits


def check(rows: Rows, num_folds: int = 2, inner: bool = True) -> dict[str, np.ndarray]:
    """Run every stage nested; its outputs are probabilities that read no label."""
    parts, found = meta_folds(rows, num_folds), {}
    unknown = relabelled(rows, np.full(rows.labels.shape, np.nan if rows.several else -1))
    for name, fit in stages_of(rows, inner).items():
        result = run_nested(name, fit, rows, parts)
        for values in (result.nested, result.fitted):
            assert np.isfinite(values).all(), name
            assert -1e-9 <= values.min() <= values.max() <= 1 + 1e-9, name
            if not rows.several:
                np.testing.assert_allclose(values.sum(axis=1), 1, atol=0.02, err_msg=name)
        np.testing.assert_array_equal(result.combined(unknown), result.fitted, err_msg=name)
        found[name] = result.nested
    return found


@pytest.mark.parametrize("several", [False, True])
def test_row_order_and_member_order_change_no_bit(several: bool) -> None:
    rows = rows_of([1, 0.5, 0], num=24, several=several)
    found, again = check(rows), check(shuffled(rows))
    assert len(found) == 20
    for name, values in found.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)


def with_probabilities(rows: Rows, probabilities: np.ndarray) -> Rows:
    return replace(rows, probabilities=probabilities)


@pytest.mark.parametrize("several", [False, True])
def test_one_member_and_equal_members(several: bool) -> None:
    rows = rows_of([1], num=24, several=several)
    found = check(rows)
    for name in ("single", "votes/soft", "votes/weighted", "votes/greedy", "experts/gate", "segmentation_vote/overall"):
        np.testing.assert_allclose(found[name], rows.probabilities[0], atol=1e-6, err_msg=name)
    two = rows_of([1, 1], num=24, several=several, probabilities=np.repeat(rows.probabilities, 2, axis=0))
    for name, values in check(two).items():
        if name.startswith(("votes/s", "votes/w", "votes/g", "exp", "cas", "ref")):
            np.testing.assert_allclose(values, rows.probabilities[0], atol=1e-6, err_msg=name)


def test_a_class_that_no_member_predicts_and_one_that_is_in_one_part_alone() -> None:
    rows = rows_of([1, 0.5], num=24)
    never = rows.probabilities.copy()
    never[..., 0], never[..., 1] = 0, rows.probabilities[..., :2].sum(axis=2)
    check(with_probabilities(rows, never))
    labels = np.where(rows.labels == 2, 0, rows.labels)
    labels[:2] = 2  # one group
    check(relabelled(rows, labels))
    check(relabelled(rows, np.zeros(24)))


@pytest.mark.parametrize("several", [False, True])
def test_a_member_that_is_always_wrong(several: bool) -> None:
    rows = rows_of([1.5, 0.5], num=60, several=several)
    wrong = 1 - rows.truth if several else np.roll(rows.truth, 1, axis=1)
    rows = with_probabilities(rows, np.stack([rows.probabilities[0], wrong]))
    found = check(rows)
    alone = score_of(rows.probabilities[0], rows)
    for name in (
        "single",
        "votes/weighted",
        "votes/greedy",
        "boosting/samme",
        "stacking/logistic",
        "cascade/thresholds",
    ):
        assert score_of(found[name], rows) >= alone - 0.05, name
    all_wrong = with_probabilities(rows, np.stack([wrong, wrong]))
    assert score_of(check(all_wrong)["votes/soft"], all_wrong) == 0


def test_three_images_can_be_nested_in_three_parts_by_what_needs_no_folds_inside() -> None:
    rows = rows_of([1, 0.5], num=3, group_size=1, labels=[0, 1, 2])
    check(rows, 3, inner=False)
    with pytest.raises(ValueError, match=r"`num_folds` should be at most the number of groups that share no image, 3"):
        check(rows, num_folds=5, inner=False)


@pytest.mark.parametrize("several", [False, True])
def test_unknown_labels_are_in_no_fit_and_no_score(several: bool) -> None:
    rows = rows_of([1, 0.5], num=32, several=several)
    known = np.arange(32) % 4 > 0
    labels = rows.labels.copy()
    labels[~known] = np.nan if several else -1
    some = relabelled(rows, labels)
    check(some)
    for name, fit in stages_of(rows).items():
        np.testing.assert_array_equal(fit(some)(rows), fit(rows.take(known))(rows), err_msg=name)
    assert score_of(rows.probabilities[0], some) == score_of(rows.probabilities[0][known], rows.take(known))
    if several:
        labels = rows.labels.copy()
        labels[::3, 1] = np.nan  # of some images one class is not known
        check(relabelled(rows, labels))


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_where_labels_are_shuffled_every_stage_is_at_chance(several: bool) -> None:
    """Each nested score lies in its interval about chance, over shuffles of the labels of whole groups."""
    scores: dict[str, list[float]] = {}
    for seed in range(8):
        rows = labels_shuffled_within_groups(rows_of([1.5, 1, 0.5], num=120, several=several, seed=seed), seed)
        for name, values in check(rows).items():
            scores.setdefault(name, []).append(score_of(values, rows))
    chance = 0.5 if several else 1 / 3
    error = np.sqrt(chance * (1 - chance) / (8 * 60))  # groups of two agree: 60 of 120 are independent
    for name, values in scores.items():
        assert np.mean(values) < chance + 3 * error, name
        assert several or np.mean(values) > chance - 4 * error, name


@pytest.mark.slow
def test_thirty_members_of_noise_give_no_nested_score_above_that_of_new_images() -> None:
    skills = [0.6, 0.5, 0.4] + [0.0] * 30
    rows, new = (rows_of(skills, num=num, seed=seed) for num, seed in ((200, 1), (4000, 2)))
    # features of other images come from another projection: what reads features alone cannot be compared
    rows, new = replace(rows, features={}), replace(new, features={})
    parts = meta_folds(rows)
    fits = {"single": best_single, **votes(), **stacking(), **experts(), **meta({**votes(), **stacking()}, 3)}
    for name, fit in fits.items():
        result = run_nested(name, fit, rows, parts)
        nested, honest = score_of(result.nested, rows), score_of(result.combined(new), new)
        error = np.sqrt(honest * (1 - honest) / 100)
        assert nested < honest + 2.5 * error, (name, nested, honest)
    real = run_nested("real", fits["votes/weighted"], rows.of_members(rows.members[:3]), parts)
    assert (
        score_of(run_nested("all", fits["votes/weighted"], rows, parts).nested, rows)
        < score_of(real.nested, rows) + 0.05
    )


# Rows are canonical and refuse what does not fit.


@pytest.mark.parametrize("several", [False, True])
def test_the_order_in_which_rows_and_members_come_changes_nothing(several: bool) -> None:
    rows = rows_of([1, 0.5, 0], num=20, several=several)
    assert shuffled(rows).digest == rows.digest
    assert shuffled(rows).ids == rows.ids
    np.testing.assert_array_equal(shuffled(rows).probabilities, rows.probabilities)


def test_another_value_is_another_digest() -> None:
    rows = rows_of([1, 0.5], num=6)
    others = [relabelled(rows, np.roll(rows.labels, 2)), rows.of_members(["m00"]), rows.take(np.arange(4))]
    changed = rows.probabilities.copy()
    changed[0, 0] = changed[0, 0][::-1]
    others.append(replace(rows, probabilities=changed, foreground=None))
    assert len({rows.digest, *(other.digest for other in others)}) == 5


def test_taking_rows_keeps_what_belongs_together() -> None:
    rows = rows_of([1, 0.5], num=10)
    some = rows.take(np.array([7, 2, 2]))
    assert some.ids == ("i0002", "i0007")
    assert some.groups == (rows.groups[2], rows.groups[7])
    np.testing.assert_array_equal(some.probabilities, rows.probabilities[:, [2, 7]])
    np.testing.assert_array_equal(some.features["m01"], rows.features["m01"][[2, 7]])
    np.testing.assert_array_equal(rows.take(np.arange(10) > 6).foreground, rows.foreground[:, 7:])
    one = rows.of_members(["m01"])
    assert one.members == ("m01",)
    assert list(one.features) == ["m01"]
    np.testing.assert_array_equal(one.probabilities, rows.probabilities[1:])
    with pytest.raises(ValueError, match=r"among m00, m01. Found m02"):
        rows.of_members(["m02"])


def test_likelihoods_are_of_what_is_true() -> None:
    rows = rows_of([1.0], num=2, labels=[2, -1])
    assert rows.likelihoods[0, 0, 0] == rows.probabilities[0, 0, 2]
    assert np.isnan(rows.likelihoods[0, 1, 0])
    assert rows.labelled().ids == ("i0000",)
    several = rows_of([1.0], num=1, several=True, labels=[[1, 0, np.nan]])
    p = several.probabilities[0, 0]
    np.testing.assert_allclose(several.likelihoods[0, 0], [p[0], 1 - p[1], np.nan])
    with pytest.raises(ValueError, match="At least one row should have a label"):
        rows.take(np.array([1])).labelled()


def test_rows_that_do_not_fit_are_refused() -> None:
    rows = rows_of([1, 0.5], num=4)
    broken = rows.probabilities.copy()
    broken[1, 2, 0] = np.nan
    wrong = {
        "`ids` should be sorted": {"ids": ("b", "a", "c", "d")},
        "`members` should be sorted": {"members": ("m01", "m01")},
        "`ids` should hold": {"ids": ()},
        "`groups` should be of size 4. Found 3": {"groups": rows.groups[1:]},
        "`folds` should be of size": {"folds": rows.folds[1:]},
        r"`probabilities` should be of size \(2, 4, 3\)": {"probabilities": rows.probabilities[:1]},
        "of m01 for i0002": {"probabilities": broken},
        "add up to 1": {"probabilities": rows.probabilities / 2},
        r"`labels` should be -1 or in \[0, 3\). Found 3": {"labels": np.array([0, 1, 2, 3])},
        "`classes` should be two or more": {"classes": ("a", "a", "b")},
        "`features` should be finite. Found others of m00": {"features": {"m00": np.full((4, 2), np.inf)}},
        "`features` should be of members. Found others: x": {"features": {"x": np.zeros((4, 2))}},
        "`foreground` should be of size": {"foreground": np.zeros((1, 4))},
    }
    for message, change in wrong.items():
        with pytest.raises(ValueError, match=message):
            replace(rows, **change)
    several = rows_of([1], num=2, several=True)
    with pytest.raises(ValueError, match=r"0, 1 or NaN. Found [01].5"):
        relabelled(several, several.labels + 0.5)


def test_unlabelled_rows_are_those_of_new_images() -> None:
    probabilities = np.array([[[0.3, 0.7], [0.6, 0.4]]])
    rows = Rows.unlabelled(["b", "a"], ["m"], ("no", "yes"), False, probabilities)
    assert rows.ids == ("a", "b")
    assert rows.labels.tolist() == [-1, -1]
    np.testing.assert_array_equal(rows.probabilities, probabilities[:, ::-1])
    assert np.isnan(Rows.unlabelled(["a"], ["m"], ("no", "yes"), True, probabilities[:, :1]).labels).all()
