"""What a stage trains on follows from the rows of the training part alone."""

import numpy as np
import pytest
from tests.ensembles._inputs import rows_of

from hsl.ensembles.boosting import samme
from hsl.ensembles.cascade import still_wrong
from hsl.ensembles.referee import disputed
from hsl.ensembles.rows import Rows
from hsl.errors import DataError
from hsl.files.split_file import Fold, Split
from hsl.verbs.ensemble.planning.teachers import image_targets
from hsl.verbs.ensemble.planning.training_rounds import boosting_series, cascade_series, referee_series


def split_of(rows: Rows) -> Split:
    """The folds of the rows; one training picture of each fold is in its stop part."""
    folds = []
    for number in range(3):
        others = [name for name, fold in zip(rows.ids, rows.folds, strict=True) if fold != number]
        val = [name for name, fold in zip(rows.ids, rows.folds, strict=True) if fold == number]
        folds.append(Fold(tuple(others[1:]), tuple(val), str(number), (others[0],)))
    return Split("kfold", 0, "group", tuple(folds), (), "sha")


def training(rows: Rows, split: Split, fold: int) -> Rows:
    return rows.take(np.isin(rows.ids, split.folds[fold].train))


def test_a_cascade_grows_by_what_it_still_gets_wrong() -> None:
    rows = rows_of({"m00": 0.6, "cascade_2": 0.9, "m02": 0.8})
    split = split_of(rows)
    series = cascade_series(rows, split, "m00", ())
    assert ([each.name for each in series.rounds], series.ended) == (["cascade_2"], "")
    assert not series.rounds[0].weighed
    for fold, table in series.rounds[0].tables.items():
        assert tuple(table) == still_wrong(["m00"], training(rows, split, fold))
        assert set(table) < set(split.folds[fold].train)
        assert set(table.values()) == {1.0}
    longer = cascade_series(rows, split, "m00", ["cascade_2", "student_1"])
    assert [each.name for each in longer.rounds] == ["cascade_2", "cascade_3"]
    assert longer.rounds[0].tables == series.rounds[0].tables  # as it was
    assert tuple(longer.rounds[1].tables[1]) == still_wrong(["m00", "cascade_2"], training(rows, split, 1))
    done = cascade_series(rows, split, "m00", ["cascade_2"], most=2)
    assert (len(done.rounds), done.ended) == (1, "complete with 2 trained one after the other")


def test_labels_that_a_fold_holds_out_choose_nothing_for_it() -> None:
    rows = rows_of([0.7, 0.7])
    split = split_of(rows)
    flipped = np.where(rows.folds == 0, (rows.labels + 1) % 3, rows.labels)
    other = rows_of([0.7, 0.7], labels=flipped)
    for series in (cascade_series, boosting_series):
        one, two = (series(given, split, "m00", ()).rounds[0].tables[0] for given in (rows, other))
        assert one == two


def test_boosting_weighs_every_training_picture() -> None:
    rows = rows_of({"m00": 0.6, "boosting_2": 0.5})
    split = split_of(rows)
    series = boosting_series(rows, split, "m00", ["boosting_2"])
    assert [each.name for each in series.rounds] == ["boosting_2", "boosting_3"]
    for fold in range(3):
        part = training(rows, split, fold)
        table = series.rounds[1].tables[fold]
        assert tuple(table) == split.folds[fold].train
        np.testing.assert_allclose(list(table.values()), samme(["m00", "boosting_2"], part).row_weights)
    assert series.rounds[0].weighed


def test_a_series_ends_where_nothing_is_left_to_learn() -> None:
    perfect = rows_of([50.0])
    for series in (cascade_series, boosting_series):
        found = series(perfect, split_of(perfect), "m00", ())
        assert not found.rounds
        assert found.ended.startswith("no further member, since it")
        assert found.ended.endswith("in fold 0, 1, 2")
    alike = rows_of([0.5])
    assert "dispute no training picture" in referee_series(alike, split_of(alike), ["m00"], ()).ended


def test_a_referee_is_trained_on_what_the_others_dispute() -> None:
    rows = rows_of([0.3, 0.3, 0.3, 9.0])
    split = split_of(rows)
    members = ["m00", "m01", "m02"]
    (one,) = referee_series(rows, split, members, ()).rounds
    assert one.name == "referee_1"
    for fold, table in one.tables.items():
        part = training(rows, split, fold).of_members(members)
        assert tuple(table) == tuple(np.array(part.ids)[disputed(part)])


def test_teachers_are_the_mean_of_what_held_the_picture_out() -> None:
    rows = rows_of([0.5, 0.9, 0.7])
    split = split_of(rows)
    targets = image_targets(rows, split, "classification", ["m00", "m02"])
    np.testing.assert_allclose(targets.images["classification"], rows.probabilities[[0, 2]].mean(0), rtol=1e-6)
    assert (targets.members, targets.ids, targets.assignment) == (("m00", "m02"), rows.ids, split.assignment)
    planted = rows_of([0.5, 0.9, 0.7], folds=(rows.folds + 1) % 3)
    with pytest.raises(DataError, match="should not have trained on what they teach"):
        image_targets(planted, split, "classification", ["m00"])
