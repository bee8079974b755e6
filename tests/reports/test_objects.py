import json
import math

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.metrics.objects.average_precision import pool_precision
from hsl.metrics.objects.panoptic import panoptic_counts
from hsl.reports.models import models_of
from hsl.reports.objects import by_group, distances_of, failed, objects_are, partition_of, quality_of
from hsl.reports.tables.object_tables import EVERY, object_tables
from hsl.run_folder.run import ScoredOn, gather
from hsl.run_folder.stored_counts import ObjectRow, read_objects


def row_of(name, **metrics):
    return ObjectRow.model_validate({"id": name, "metrics": metrics, "errors": {}})


def panoptic(tp, fp, fn, iou_sum):
    return {"tp": [0, tp], "fp": [0, fp], "fn": [0, fn], "iou_sum": [0.0, iou_sum]}


def surface(values, predicted, present):
    return {"hd95": values, "assd": values, "prediction_contour": predicted, "target_contour": present}


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def dictionaries(table):
    return [dict(zip([column.key for column in table.columns], row, strict=True)) for row in table.rows]


def test_quality_is_that_of_the_summed_counts_not_the_mean_of_pictures():
    rows = [row_of("a", panoptic=panoptic(1, 0, 0, 1.0)), row_of("b", panoptic=panoptic(1, 4, 2, 0.6))]
    background, crack = quality_of(rows)
    counts = {"tp": 2, "fp": 4, "fn": 2}
    assert {name: crack[name] for name in counts} == counts
    assert [crack[name] for name in ("pq", "sq", "rq")] == pytest.approx([1.6 / 5, 0.8, 2 / 5])
    assert math.isnan(background["pq"])


def test_distances_over_the_pictures_that_score_the_class():
    values = [1.0, 2.0, 6.0, 50.0]
    rows = [row_of(str(i), surface=surface([v, None], [4, 0], [4 if i < 3 else 0, 0])) for i, v in enumerate(values)]
    rows.append(row_of("miss", surface=surface([50.0, 7.0], [0, 1], [9, 1])))
    first, second = distances_of(rows)
    assert (first.num_scored, first.num_missed, first.num_spurious, first.num_both_empty) == (5, 1, 1, 0)
    assert (first.hd95.median, first.hd95.mean) == (6.0, pytest.approx(21.8))
    assert first.hd95.p95 == pytest.approx(np.percentile([*values, 50.0], 95))
    assert (second.num_scored, second.num_both_empty, second.assd.median) == (1, 4, 7.0)


def test_partitions_average_seeds_before_pictures():
    scores = [("a", 1.0), ("a", 0.5), ("b", 0.25), ("c", None)]
    rows = [row_of(n, clustering={"ari": v, "voi": v, "voi_split": v, "voi_merge": v}) for n, v in scores]
    found = partition_of(rows)
    assert (found.scores["ari"].mean, found.scores["ari"].num) == (0.5, 2)
    assert found.scores["voi"].std == pytest.approx(np.std([0.75, 0.25], ddof=1))
    assert (found.num_unscored, found.num_failed) == (1, 0)
    assert partition_of([row_of("a", panoptic=panoptic(0, 0, 0, 0.0))]) is None


def test_a_failed_picture_is_counted_and_in_no_score():
    record = {"type": "MemoryError", "message": "", "traceback": ""}
    good = row_of("a", panoptic=panoptic(1, 0, 0, 0.9))
    bad = ObjectRow.model_validate({"id": "b", "metrics": {"panoptic": None}, "errors": {"panoptic": record}})
    dead = ObjectRow.model_validate({"id": "c", "metrics": {}, "errors": {"worker": record}})
    rows = [good, bad, dead]
    assert failed(rows, "panoptic") == {"b", "c"}
    assert failed(rows, "surface") == {"c"}
    assert quality_of(rows)[1]["pq"] == 0.9
    assert quality_of([bad]) == []
    assert partition_of(rows).num_failed == 1


def test_groups_only_where_one_holds_several_pictures():
    rows = [row_of(name) for name in "abc"]
    assert [[row.id for row in found] for found in by_group(rows, {"a": "x", "b": "x", "c": "y"}).values()] == [
        ["a", "b"],
        ["c"],
    ]
    assert by_group(rows, {}) == {}
    assert by_group(rows, dict.fromkeys("abc", "x")) == {}


def test_the_tables_of_two_models_over_two_folds(make_run, models, add_objects):
    for fold in range(2):
        add_objects(make_run("a", "a", fold), fold, failed=["p1_2"])
        add_objects(make_run("b", "b", fold), fold, shift=4)
    make_run("c", "c")  # without the pool
    tables = {table.name: table for table in object_tables(models(), ScoredOn("val"))}
    assert list(tables) == ["objects", "objects_folds", "distances", "clustering", "objects_groups", "distances_groups"]
    crack, stain, every = dictionaries(tables["objects"])[1:4]
    # per picture: a crack that moved by 1 of 3 rows, IoU 1/2, is no match, and a spot; two stains that became one
    assert (crack["model"], crack["class"], crack["tp"], crack["fp"], crack["fn"]) == ("a", "crack", 0, 16, 8)
    assert (stain["tp"], stain["fp"], stain["fn"]) == (0, 8, 16)
    assert (every["class"], every["fp"], every["fn"]) == (EVERY, 24, 24)
    first = dictionaries(tables["distances"])[1]
    assert (first["scored"], first["failed"]) == (7, 1)
    assert dictionaries(tables["objects"])[1]["failed"] == 0
    assert {row["group"] for row in dictionaries(tables["objects_groups"])} == {
        "gp0_0", "gp0_1", "gp1_0", "gp1_1",
    }  # fmt: skip
    assert not any(row["class"] == "background" for row in dictionaries(tables["objects_groups"]))
    assert [row["scored"] for row in dictionaries(tables["clustering"])] == [8, 8]


def instances(folder, rows, part="val/plain"):
    """Rows of ``metrics=instances``: per picture its panoptic counts, and the areas of AJI."""
    with (folder / "objects.jsonl").open("w") as file:
        for i, (counts, intersection, union) in enumerate(rows):
            tp, fp, fn, iou_sum = counts
            found = {"panoptic": {"tp": [0, tp, 0], "fp": [0, fp, 0], "fn": [0, fn, 0], "iou_sum": [0.0, iou_sum, 0.0]}}
            found["objects"] = {"tp": tp, "fp": fp, "fn": fn, "aji_intersection": intersection, "aji_union": union}
            file.write(json.dumps({"id": f"p{i}", "part": part, "metrics": found, "errors": {}}) + "\n")


def test_aji_is_pooled_and_spread_over_folds(make_run, models):
    folds = [[((2, 0, 0, 1.6), 30, 40), ((0, 2, 2, 0.0), 0, 60)], [((1, 1, 0, 0.75), 60, 100)]]
    for fold, rows in enumerate(folds):
        instances(make_run("a", "a", fold), rows)
    tables = {table.name: table for table in object_tables(models(), ScoredOn("val"))}
    assert list(tables) == ["objects", "objects_folds"], "tables without a row are left out"
    *classes, every = dictionaries(tables["objects"])
    assert (every["class"], every["aji"], every["tp"]) == (EVERY, pytest.approx(90 / 200), 3)
    assert [row["aji"] for row in classes] == [None, None, None]
    (row,) = dictionaries(tables["objects_folds"])
    assert (row["folds"], row["aji"].num) == ("2 of 3", 2)
    assert row["aji"].mean == pytest.approx((0.3 + 0.6) / 2)
    assert row["aji"].std == pytest.approx(0.3 / math.sqrt(2))
    assert row["rq"].mean == pytest.approx((4 / 8 + 2 / 3) / 2), "the F1 of each fold"
    assert row["pq"].mean == pytest.approx((1.6 / 4 + 0.75 / 1.5) / 2)


def test_runs_without_aji_have_no_column_of_it(make_run, models, add_objects):
    add_objects(make_run("a", "a"))
    tables = {table.name: table for table in object_tables(models(), ScoredOn("val"))}
    assert not any(column.key == "aji" for name in tables for column in tables[name].columns)
    assert "AJI" not in tables["objects"].caption
    instances(make_run("b", "b"), [((1, 0, 0, 0.9), 9, 10)])
    tables = {table.name: table for table in object_tables(models(), ScoredOn("val"))}
    found = {row["model"]: row["aji"] for row in dictionaries(tables["objects_folds"])}
    assert (found["a"].num, found["b"].mean) == (0, 0.9)


def test_ap_is_pooled_over_pictures_and_unknown_for_older_runs(make_run, models, add_objects):
    folder = make_run("a", "a")
    add_objects(folder)
    instances(make_run("b", "b"), [((1, 0, 0, 0.9), 9, 10)])
    tables = {table.name: table for table in object_tables(models(), ScoredOn("val"))}
    rows = [row for row in dictionaries(tables["objects"]) if row["model"] == "a"]
    stored = [json.loads(line)["metrics"]["panoptic"] for line in (folder / "objects.jsonl").read_text().splitlines()]
    pooled = pool_precision(stored)
    assert [row["object_ap"] for row in rows[1:3]] == pooled["object_ap"][1:]
    assert (rows[-1]["class"], rows[-1]["object_ap"]) == (EVERY, np.nanmean(pooled["object_ap"]))
    assert "not the AP of COCO" in tables["objects"].caption
    found = {row["model"]: row["object_ap50"] for row in dictionaries(tables["objects_folds"])}
    assert (found["a"].num, found["b"].num) == (1, 0)


def test_counts_of_another_number_of_thresholds_are_told(make_run, models, add_objects):
    path = make_run("a", "a") / "objects.jsonl"
    add_objects(path.parent)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["metrics"]["panoptic"]["tp_above"] = [[0], [0], [0]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=r"`metrics.panoptic.tp_above.0`"):
        read_objects(path.parent, 3)


def test_what_an_object_is_follows_from_the_runs(make_run, models, add_objects):
    def config(weight):
        return {"task": {"network": {"evaluated": ["hv"]}}, "loss": {"weights": {"hv": weight}}}

    row = [((1, 0, 0, 0.9), 9, 10)]
    basins, maps = "basins of a watershed on the predicted distance map", "the instance maps of the data set"
    for name in ("a", "b", "c"):
        instances(make_run(name, name, config=config(1.0)), row)
    assert objects_are(models(), ScoredOn("val")) == f"true objects are {maps}; predicted objects are {basins}"
    instances(make_run("off", "off", config=config(0)), row)  # a part without weight has no head
    add_objects(make_run("plain", "plain"))
    found = models()
    off, plain = (next(one.label for one in found if one.label.startswith(name)) for name in ("off", "plain"))
    true, _, predicted = objects_are(found, ScoredOn("val")).partition("; predicted objects are ")
    assert true == f"true objects are {maps}; of {plain} connected components, or {maps} where it has any"
    assert predicted == f"{basins}; of {off}, {plain} connected components"
    assert objects_are(found, ScoredOn("val")) in object_tables(found, ScoredOn("val"))[0].caption


def test_nothing_without_the_pool(make_run, models):
    make_run("a", "a")
    assert object_tables(models(), ScoredOn("val")) == []


def test_the_rows_are_those_that_the_metrics_wrote(make_run, add_objects, masks):
    folder = make_run()
    add_objects(folder)
    found = read_objects(folder, 3)
    assert list(found) == [("val", "plain")]
    assert [row.id for row in found["val", "plain"]] == ["p0_0", "p0_1", "p0_2", "p0_3"]
    assert found["val", "plain"][2].metrics.panoptic.model_dump() == panoptic_counts(*masks(2, 1), 3)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"panoptic": panoptic(1, 0, 0, 1.0)}, r"picture 'a': `tp` should have 3 values"),
        ({"panoptic": {"tp": [0]}}, r"picture 'a': `metrics.panoptic.fp`: Field required"),
        ({"surface": surface(["x", None, None], [0] * 3, [0] * 3)}, r"`metrics.surface.hd95.0"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, metrics, message):
    path = tmp_path / "objects.jsonl"
    path.write_text(json.dumps({"id": "a", "part": "val/plain", "metrics": metrics, "errors": {}}) + "\n")
    with pytest.raises(DataError, match=message):
        read_objects(path.parent, 3)
