"""Parts hold groups whole, and a fit never sees what it is scored on."""

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss
from tests.ensembles._inputs import relabelled, rows_of, shuffled

from hsl.ensembles.nested import Combined, log_loss_of, meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows


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
