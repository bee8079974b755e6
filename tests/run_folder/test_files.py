"""The files of a run folder, written and read again."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hsl.errors import DataError
from hsl.metrics.objects.average_precision import THRESHOLDS
from hsl.metrics.pixels import formulas
from hsl.metrics.pixels.pixelwise import STATES
from hsl.reports.scores import picture_counts, total_counts
from hsl.run_folder.history import read_events, read_weighting
from hsl.run_folder.pictures import read_image_predictions
from hsl.run_folder.run import ScoredOn, read_run
from hsl.run_folder.scores import result_page, write_metrics
from hsl.run_folder.stored_counts import NUM_BINS, NUM_COUNTS, NUM_THRESHOLDS, _shapes, read_pixel_counts

CONFIG = {"name": "steel", "fold": 1, "seed": 3, "optimizer": {"lr": 1e-5}, "odd": math.inf}
METRICS: dict[str, Any] = {
    "monitor": {"name": "val/miou", "mode": "max", "value": 0.1 + 0.2, "epoch": 1},
    "classes": ["none", "crack"],
    "task_classes": {},
    "image_classes": {"classification": ["a", "b"]},
    "parts": {"val": {"plain": {"miou": 0.1 + 0.2, "confusion": [[1, 0], [0, 1]], "nll": None}}},
    "objects": None,
}
HISTORY = f"epoch,phase,step,lr,train/loss,val/miou\n0,A,11,1e-05,inf,\n1,B,22,{1 / 3!r},0.5,{0.1 + 0.2!r}\n"
HEAD = "id,group,part,inference,head,target,prediction,correct,loss,probability/a,probability/b"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "history.csv").write_text(HISTORY)
    return tmp_path


def test_the_page_repeats_what_the_files_say(folder: Path) -> None:
    page = result_page(folder, METRICS)
    assert page["config"] == {**CONFIG, "odd": None}
    assert (page["name"], page["fold"], page["seed"]) == ("steel", 1, 3)
    assert {key: page[key] for key in METRICS if key not in ("parts", "objects")} == {
        key: METRICS[key] for key in METRICS if key not in ("parts", "objects")
    }
    assert page["val"] == METRICS["parts"]["val"]
    assert page["test"] is None
    assert page["history"] == [
        {"epoch": 0, "phase": "A", "step": 11, "lr": 1e-5, "train/loss": None, "val/miou": None},
        {"epoch": 1, "phase": "B", "step": 22, "lr": 1 / 3, "train/loss": 0.5, "val/miou": 0.1 + 0.2},
    ]
    assert isinstance(page["history"][0]["epoch"], int)


def test_the_file_is_strict_json_and_equals_the_page(folder: Path) -> None:
    test = {"plain": {"miou": 0.25}}
    metrics = {**METRICS, "parts": {**METRICS["parts"], "test": test}}
    write_metrics(folder, metrics)
    stored = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert stored == result_page(folder, metrics)
    assert stored["test"] == test


def test_a_run_without_a_history(folder: Path) -> None:
    (folder / "history.csv").unlink()
    assert result_page(folder, METRICS)["history"] == []


def test_a_run_without_events(make_run):
    run = read_run(make_run())
    assert (run.events.phases, run.events.rollback, run.events.memory) == ({}, {}, ())
    assert not run.events.reverted


def test_all_three_files(tmp_path):
    (tmp_path / "phases.json").write_text(json.dumps({"A": {"status": "finished"}}))
    (tmp_path / "rollback.json").write_text(json.dumps({"decision": "reverted"}))
    (tmp_path / "oom.json").write_text(json.dumps([{"micro_batch_before": 8}]))
    found = read_events(tmp_path)
    assert found.phases == {"A": {"status": "finished"}}
    assert found.reverted
    assert found.memory == ({"micro_batch_before": 8},)


def test_weights_that_were_kept_are_not_reverted(tmp_path):
    (tmp_path / "rollback.json").write_text(json.dumps({"decision": "kept"}))
    assert not read_events(tmp_path).reverted


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("phases.json", "[", "is not valid JSON"),
        ("phases.json", "[]", "should be a JSON object. Found list"),
        ("phases.json", '{"A": 1}', "should hold JSON objects"),
        ("oom.json", "{}", "should be a JSON list. Found dict"),
        ("oom.json", "[1]", "should hold JSON objects"),
        ("rollback.json", "1", "should be a JSON object"),
    ],
)
def test_a_broken_file_is_named_and_the_run_can_still_be_read(make_run, name, content, reason):
    folder = make_run()
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}` {reason}"):
        read_events(folder)
    run = read_run(folder)
    assert run.status == "finished"
    assert any(name in problem for problem in run.problems)


def test_each_number_is_an_array_over_the_steps_with_gaps(tmp_path):
    path = tmp_path / "weighting.jsonl"
    path.write_text(
        '{"step": 10, "epoch": 0, "weight/a": 1.0, "weight/b": 0.4, "norm/a": 2.0, "norm/b": 0.0}\n'
        '{"step": 20, "epoch": 0, "weight/a": 3.0, "weight/b": null, "norm/a": 1.0, "norm/b": 4.0, "cosine/a/b": -0.5,'
        ' "solver_failures": 2, "steps": 20, "degraded": 1.0}\n'
        '{"step": 30, "epo'  # the process was killed
    )
    log = read_weighting(tmp_path)
    assert log.steps == [10, 20]
    np.testing.assert_array_equal(log.weights["a"], [1, 3])
    np.testing.assert_array_equal(log.weights["b"], [0.4, np.nan])
    np.testing.assert_array_equal(log.norms["b"], [np.nan, 4])  # no label in the batch: no gradient
    np.testing.assert_array_equal(log.cosines["a, b"], [np.nan, -0.5])
    assert (log.solver_failures, log.solver_steps) == (2, 20)


def test_no_file_and_no_line(tmp_path):
    path = tmp_path / "weighting.jsonl"
    assert read_weighting(tmp_path) is None
    path.write_text("")
    assert read_weighting(tmp_path) is None
    path.write_text('{"step": 10')
    assert read_weighting(tmp_path) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2, is not valid JSON"),
        ("[1]", "line 2, should be an object with a `step`"),
        ('{"epoch": 1}', "line 2, should be an object with a `step`"),
        ('{"step": 2, "weight/a": "x"}', "line 2: `weight/a` should be a number or null"),
    ],
)
def test_a_broken_line_is_named_and_costs_the_run_nothing_else(make_run, line, reason):
    folder = make_run()
    (folder / "weighting.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(DataError, match=reason):
        read_weighting(folder)
    run = read_run(folder)
    assert run.status == "finished"
    assert run.weighting is None
    assert reason in run.problems[0]


@pytest.fixture
def read(tmp_path):
    def go(*lines, several=False, head=HEAD):
        path = tmp_path / "image_predictions.csv"
        path.write_text("\n".join([head, *lines]) + "\n")
        return read_image_predictions(tmp_path, "classification", ["a", "b"], several)

    return go


def test_one_class_per_picture(read):
    found = read(
        "p0,g,val,plain,classification,a,a,1,0.1,0.9,0.1",
        "p1,g,val,plain,classification,,b,,,0.2,0.8",
        "p2,h,val,plain,classification,b,a,0,0.9,0.6,0.4",
        "p0,g,val,tta,classification,a,b,0,0.1,0.4,0.6",
        "p0,g,val,plain,other,x,y,0,0.1,0.4,0.6",
    )
    assert set(found) == {("val", "plain"), ("val", "tta")}
    plain = found["val", "plain"]
    assert (plain.ids, plain.groups) == (["p0", "p1", "p2"], ["g", "g", "h"])
    np.testing.assert_array_equal(plain.target, [[1, 0], [np.nan, np.nan], [0, 1]])
    np.testing.assert_array_equal(plain.labels, [0, -1, 1])
    assert plain.predicted.tolist() == [[True, False], [False, True], [True, False]]
    assert plain.probabilities.tolist() == [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    assert plain.confusion.tolist() == [[1, 0], [1, 0]]
    assert plain.places["p2"] == 2


def test_several_classes_per_picture_where_none_is_not_unknown(read):
    (found,) = read(
        "p0,g,val,plain,classification,a|b,a,0,0.1,0.9,0.1",
        "p1,g,val,plain,classification,,,1,0.1,0.1,0.1",
        "p2,g,val,plain,classification,,b,,,0.1,0.9",
        several=True,
    ).values()
    np.testing.assert_array_equal(found.target, [[1, 1], [0, 0], [np.nan, np.nan]])
    assert found.predicted.tolist() == [[True, False], [False, False], [False, True]]
    assert found.confusion is None
    assert picture_counts(found).right.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["p0,g,val,plain,classification,c,a,0,0.1,0.9,0.1"], "should hold the classes a, b. Found `c`"),
        (["p0,g,val,plain,classification,a|b,a,0,0.1,0.9,0.1"], "Found `a|b`"),
        (["p0,g,val,plain,classification,a,a,1,0.1,high,0.1"], "should hold numbers as probabilities"),
        (["p0,g,val,plain,classification,a,a,1,0.1,0.9,0.1"] * 2, "each picture once. Found one twice in val, plain"),
    ],
)
def test_what_is_wrong_is_named(read, lines, reason):
    with pytest.raises(DataError) as error:
        read(*lines)
    assert reason in str(error.value)


def test_missing_columns_and_files(read, tmp_path):
    with pytest.raises(DataError, match=r"should have the columns correct, probability/b"):
        read("p0", head="id,group,part,inference,head,target,prediction,probability/a")
    (tmp_path / "image_predictions.csv").write_text("")
    with pytest.raises(DataError, match=r"image_predictions\.csv` cannot be read"):
        read_image_predictions(tmp_path, "classification", ["a"], False)
    (tmp_path / "image_predictions.csv").unlink()
    with pytest.raises(DataError, match=r"image_predictions\.csv` is missing"):
        read_image_predictions(tmp_path, "classification", ["a"], False)


def test_the_schema_is_that_of_the_metrics():
    assert len(formulas.BOUNDARY_COUNTS) == NUM_COUNTS
    assert formulas.NUM_BINS == NUM_BINS
    assert len(THRESHOLDS) == NUM_THRESHOLDS
    assert set(_shapes(3)) == set(STATES)


def test_a_run_gives_its_pictures_apart_and_together(make_run):
    run = read_run(make_run(confusion=[[90, 10, 0], [0, 50, 0], [0, 0, 0]], tta=[[150, 0, 0], [0, 0, 0], [0, 0, 0]]))
    assert total_counts(run, ScoredOn("val")).confusion.tolist() == [[90, 10, 0], [0, 50, 0], [0, 0, 0]]
    assert total_counts(run, ScoredOn("val", "tta")).scores()["pixel_accuracy"] == 1
    assert total_counts(run, ScoredOn("test")) is None
    pictures = run.pictures["val", "plain"]
    assert list(pictures.ids) == ["p0_0", "p0_1", "p0_2", "p0_3"]
    assert pictures.confusion[3].tolist() == [[22, 2, 0], [0, 12, 0], [0, 0, 0]]
    # 140 right pixels at 0.97, 10 wrong at 0.63: |140 - 135.8| + 6.3 over 150
    assert total_counts(run, ScoredOn("val")).scores()["ece"] == pytest.approx((4.2 + 6.3) / 150)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("nll"), "should hold the array `nll`. Found none"),
        (lambda content: content.update(matrices=content["matrices"][:, :, :2]), r"`matrices` should have the shape"),
        (lambda content: content.update(ids=np.array(["a", "b", "a", "c"])), "should hold each picture once"),
    ],
)
def test_a_broken_file_is_named(make_run, change, message):
    path = make_run() / "pixel_counts.npz"
    content = dict(np.load(path))
    change(content)
    np.savez(path, **content)
    with pytest.raises(DataError, match=message):
        read_pixel_counts(path, 3)


@pytest.mark.parametrize("content", [b"", b"PK no archive", b"plain text"])
def test_a_file_that_is_no_archive(tmp_path, content):
    path = tmp_path / "pixel_counts.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pixel_counts\.npz` is damaged"):
        read_pixel_counts(path, 3)
