"""Stacking and meta over nested parts: a fit never sees what it is scored on."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier
from tests.ensembles._inputs import relabelled, rows_of, shuffled

from hsl.ensembles.experts import experts
from hsl.ensembles.fusion import fusion
from hsl.ensembles.learners import logistic_regression
from hsl.ensembles.meta import meta, stage_rows
from hsl.ensembles.nested import Combined, Fit, log_loss_of, meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.ensembles.segmentation_vote import segmentation_vote
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import best_single, votes
from hsl.inference.combining import combined as apply_formula

STACKING = stacking()


def test_stacking_is_that_of_scikit_learn_with_the_same_folds() -> None:
    images, labels = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)
    new, _ = make_classification(50, 6, n_informative=4, n_classes=3, random_state=1)
    members = [
        ("bayes", GaussianNB()),
        ("l", LogisticRegression()),
        ("tree", DecisionTreeClassifier(random_state=0)),
    ]
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(images, labels))
    expected = StackingClassifier(members, logistic_regression(0.1), cv=folds, stack_method="predict_proba")
    expected.fit(images, labels)
    out_of_fold = [cross_val_predict(member, images, labels, cv=folds, method="predict_proba") for _, member in members]
    names = dict.fromkeys((name for name, _ in members), 1.0)
    rows = rows_of(names, num=200, labels=labels, probabilities=out_of_fold)
    refitted = [member.fit(images, labels).predict_proba(new) for _, member in members]
    ids = [f"n{i:02d}" for i in range(50)]
    found = STACKING["stacking/logistic"](rows)(Rows.unlabelled(ids, list(names), rows.classes, False, refitted))
    np.testing.assert_allclose(found, expected.predict_proba(new), atol=1e-12)


@pytest.mark.parametrize("several", [False, True])
def test_a_combination_that_numbers_can_say_is_the_same_from_a_file(several: bool) -> None:
    rows = rows_of([1.2, 0, -1], num=60, several=several)
    missing = rows.labels.copy()
    missing.T[1 if several else slice(None)] = 0  # of one class nothing is learnt; or it is the only one
    fits = {**votes(), **STACKING, **segmentation_vote(), "best": best_single}
    unsaid = {name for name, fit in fits.items() if fit(rows).formula is None}
    assert unsaid == {"stacking/mlp", "stacking/gradient_boosting"}
    for some in (rows, relabelled(rows, missing)):
        for name, fit in fits.items():
            combined = fit(some)
            if combined.formula is not None:
                formula, read = json.loads(json.dumps(combined.formula)), rows.of_members(combined.members)
                from_file = apply_formula(formula, read.probabilities, several)
                np.testing.assert_allclose(from_file, combined(rows), atol=1e-13, err_msg=name)
    with pytest.raises(ValueError, match="`kind` should be soft, hard"):
        apply_formula({"kind": "cubic"}, rows.probabilities, several)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", STACKING)
def test_a_stacker_finds_the_member_that_is_right(name: str, several: bool) -> None:
    rows = rows_of([1.2, 0, -1], num=200, several=several)  # one right, one noise, one always wrong
    result = run_nested(name, STACKING[name], rows, meta_folds(rows, 3))
    assert score_of(result.nested, rows) > score_of(rows.probabilities.mean(axis=0), rows) + 0.05
    if not several:
        np.testing.assert_allclose(result.nested.sum(axis=1), 1)


def test_a_class_that_no_fitted_row_has_gets_nothing_and_one_class_alone_is_certain() -> None:
    rows = rows_of([1, 0.5], num=90)
    two, one = rows.take(rows.labels != 2), rows.take(rows.labels == 1)
    for name, fit in STACKING.items():
        assert (fit(two)(rows)[:, 2] == 0).all(), name
        np.testing.assert_array_equal(fit(one)(rows), np.tile([0, 1, 0], (90, 1)))


def test_a_class_that_all_or_none_show_has_a_smoothed_share() -> None:
    rows = rows_of([1], num=40, several=True)
    labels = rows.labels.copy()
    labels[:, 0], labels[:, 1], labels[:10, 1] = 1, 0, np.nan
    found = STACKING["stacking/logistic"](relabelled(rows, labels))(rows)
    np.testing.assert_allclose(found[:, :2], np.tile([41 / 42, 1 / 32], (40, 1)))


def test_unknown_labels_and_member_names_change_no_fit() -> None:
    rows = rows_of([1, 0.5], num=60)
    known = np.arange(60) % 3 > 0
    some = relabelled(rows, np.where(known, rows.labels, -1))
    renamed = replace(rows, members=("x", "y"), features={}, foreground=None)
    for name, fit in STACKING.items():
        np.testing.assert_array_equal(fit(some)(rows), fit(rows.take(known))(rows), err_msg=name)
        np.testing.assert_array_equal(fit(renamed)(renamed), fit(rows)(rows), err_msg=name)


def test_settings_reach_the_learners() -> None:
    rows = rows_of([0.5, 0.2], num=60)
    weak = stacking(inverse_penalty=1e-6, penalty=1e4, trees=1)
    for name, fit in STACKING.items():
        assert np.abs(weak[name](rows)(rows) - fit(rows)(rows)).max() > 0.01, name
    assert isinstance(STACKING["stacking/mlp"], partial)


# Meta reads nested outputs, and what it applies to a part has read no label of it.


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


# Parts hold groups whole, and a fit never sees what it is scored on.


def class_shares(rows: Rows) -> Combined:
    """Predicts the shares of the classes that it was fitted on."""
    shares = rows.truth.mean(axis=0)
    return Combined(rows.members, rows.classes, lambda new: np.tile(shares, (len(new.ids), 1)), {"shares": shares[0]})


@pytest.mark.parametrize("several", [False, True])
def test_parts_keep_groups_and_equal_images_whole_and_are_stratified(several: bool) -> None:
    contents = [f"c{i:04d}" for i in range(150)]
    contents[149] = contents[0]  # two groups with one image
    rows = rows_of([1], num=150, several=several, group_size=3, contents=contents)
    parts = meta_folds(rows, 5)
    assert set(parts) == set(range(5))
    for names in (rows.groups, rows.contents):
        sides = {}
        for name, part in zip(names, parts.tolist(), strict=True):
            assert sides.setdefault(name, part) == part
    assert np.ptp(np.bincount(parts)) <= 6
    of_class = np.array([rows.truth[parts == part].sum(axis=0) for part in range(5)])
    assert np.ptp(of_class, axis=0).max() <= 6
    np.testing.assert_array_equal(meta_folds(shuffled(rows), 5), parts)
    assert (meta_folds(rows, 5, seed=1) != parts).any()


def test_every_part_has_rows_even_where_each_group_is_a_class() -> None:
    for seed in range(20):
        rows = rows_of([1], num=3, group_size=1, labels=[0, 1, 2])
        assert sorted(meta_folds(rows, 3, seed)) == [0, 1, 2]


def test_too_few_groups_are_refused_and_the_advice_works() -> None:
    rows = rows_of([1], num=3, group_size=1)
    with pytest.raises(ValueError, match=r"at most the number of groups that share no image, 3. Found `num_folds = 5`"):
        meta_folds(rows)
    assert len(set(meta_folds(rows, 3))) == 3
    with pytest.raises(ValueError, match="Predict images of more groups"):
        meta_folds(rows_of([1], num=3, group_size=3))
    with pytest.raises(ValueError, match=r"at least 2. Found `num_folds = 1`"):
        meta_folds(rows, 1)


def test_a_part_is_combined_by_the_fit_of_the_others() -> None:
    rows = rows_of([1], num=30)
    parts = meta_folds(rows, 3)
    result = run_nested("shares", class_shares, rows, parts)
    for part, trail, notes in zip(range(3), result.trails, result.choices, strict=True):
        others = rows.truth[parts != part].mean(axis=0)
        np.testing.assert_array_equal(result.nested[parts == part], np.tile(others, (sum(parts == part), 1)))
        assert notes["shares"] == others[0]
        assert set(trail.applied_ids) == {rows.ids[i] for i in np.flatnonzero(parts == part)}
        assert set(trail.fitted_ids) == set(rows.ids) - set(trail.applied_ids)
    np.testing.assert_array_equal(result.fitted, np.tile(rows.truth.mean(axis=0), (30, 1)))
    with pytest.raises(ValueError, match="two or more parts"):
        run_nested("shares", class_shares, rows, np.zeros(30, dtype=np.int64))


def test_what_is_combined_takes_members_by_name_and_no_other_classes() -> None:
    rows = rows_of([1, 0.5], num=8)
    combined = Combined(("m01",), rows.classes, lambda new: new.probabilities[0], {})
    np.testing.assert_array_equal(combined(rows), rows.probabilities[1])
    with pytest.raises(ValueError, match="Found m01"):
        combined(rows.of_members(["m00"]))
    with pytest.raises(ValueError, match=r"classes a, b, c. Found a, b, c, d"):
        combined(rows_of([1, 1], num=8, classes=4))


def test_scores_are_those_of_scikit_learn_over_known_labels() -> None:
    rows = rows_of([0.3], num=60)
    rows = relabelled(rows, np.where(np.arange(60) % 7 == 0, -1, rows.labels))
    known, p = rows.labels >= 0, rows.probabilities[0]
    assert score_of(p, rows) == pytest.approx(accuracy_score(rows.labels[known], p[known].argmax(1)))
    assert log_loss_of(p, rows) == pytest.approx(log_loss(rows.labels[known], p[known], labels=[0, 1, 2]))
    several = rows_of([0.3], num=60, several=True)
    p = several.probabilities[0]
    assert score_of(p, several) == pytest.approx(f1_score(several.labels, p >= 0.5, average="macro"))
    assert log_loss_of(p, several) == pytest.approx(
        np.mean([log_loss(several.labels[:, k], p[:, k]) for k in range(3)])
    )
    assert np.isnan(log_loss_of(p, relabelled(several, np.full((60, 3), np.nan))))


IN_A_PROCESS = """
import hashlib
import numpy as np
from hsl.ensembles.fusion import fusion
from hsl.ensembles.nested import meta_folds, run_nested
from hsl.ensembles.rows import Rows
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import votes

generator, ids = np.random.default_rng(0), [f"i{i:03d}" for i in range(200)]
labels = generator.integers(0, 5, 200)
probabilities = generator.dirichlet(np.ones(5), (4, 200)) / 2 + np.eye(5)[labels] / 2
features = {name: generator.normal(size=(200, 300)) + labels[:, None] / 9 for name in "abcd"}
rows = Rows.sorted(ids=ids, groups=ids, contents=ids, labels=labels, classes="vwxyz", several=False, members="abcd",
                   probabilities=probabilities, folds=labels, features=features)
sha = hashlib.sha256()
for name, fit in {**votes(), **stacking(trees=5), **fusion()}.items():
    sha.update(run_nested(name, fit, rows, meta_folds(rows, 2)).nested.tobytes())
print(sha.hexdigest())
"""


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit() -> None:
    """Also of the libraries that are loaded by the first fit."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True, text=True, check=True,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1
