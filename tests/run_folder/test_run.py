import json
import math
from dataclasses import replace

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.files.split_file import Fold, Split
from hsl.run_folder.provenance import find_run_folders
from hsl.run_folder.run import ScoredOn, gather, read_run


def test_a_finished_run(make_run):
    folder = make_run(fold=1, confusion=[[90, 10, 0], [0, 50, 0], [0, 0, 0]], source="hub:x/y")
    run = read_run(folder)
    assert (run.status, run.reason, run.fold, run.seed) == ("finished", "", 1, 0)
    assert run.initialisation == "hub:x/y (abababab)"
    np.testing.assert_array_equal(run.confusion(ScoredOn("val")), [[90, 10, 0], [0, 50, 0], [0, 0, 0]])
    assert run.confusion(ScoredOn(ScoredOn("val", "tta"))) is None
    assert run.confusion(ScoredOn("test")) is None
    assert run.images["val", "plain"]["p1_2"].miou == pytest.approx(0.52)
    assert run.images["val", "plain"]["p1_2"].group == "gp1_1"
    assert run.history["val/miou"] == [0.3, 0.5]
    assert list(run.problems) == []


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_an_unfinished_run_says_why(make_run, status):
    run = read_run(make_run(status=status, provenance={"error": "OutOfMemoryError: 3 GiB"}))
    assert run.status == status
    expected = {
        "failed": "OutOfMemoryError: 3 GiB",
        "interrupted": "signal",
        "running": "last sign of life 20",
    }
    assert expected[status] in run.reason
    assert list(run.problems) == []  # it is no wonder that files are missing


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.yaml", None, r"config.yaml` is missing"),
        ("config.yaml", "a: [1", "config.yaml` is not valid YAML"),
        ("config.yaml", "seed: 0", "integers `fold` and `seed`"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml` cannot be read"),
        ("provenance.json", None, "provenance.json` is missing"),
        ("provenance.json", '{"status": "fin', "provenance.json` is not valid JSON"),
        ("provenance.json", '{"status": "great"}', "should be one of finished, failed.* Found 'great'"),
        ("provenance.json", "[]", "should be a JSON object"),
        ("metrics.json", None, "metrics.json` is missing"),
        ("metrics.json", "{", "metrics.json` is not valid JSON"),
        ("metrics.json", "{}", "metrics.json`: `monitor`: Field required"),
    ],
)
def test_a_broken_file_makes_the_run_unreadable_and_names_the_file(make_run, name, content, reason):
    folder = make_run()
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        (folder / name).write_text(content)
    run = read_run(folder)
    assert run.status == "unreadable"
    assert run.metrics is None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(run.reason)


@pytest.mark.parametrize("confusion", [[[1, 2], [3, 4]], [[1, 0, 0], [0, 1, 0]], [[1, 0, -1], [0, 1, 0], [0, 0, 1]]])
def test_a_confusion_matrix_of_another_shape(make_run, confusion):
    folder = make_run()
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"]["confusion"] = confusion
    (folder / "metrics.json").write_text(json.dumps(page))
    run = read_run(folder)
    assert run.status == "unreadable"
    assert "val/plain should be 3 x 3 counts" in run.reason


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("splits.json", None, "splits.json` is missing"),
        ("splits.json", '{"method": "kfold"}', "splits.json` is damaged"),
        ("per_image.csv", None, "per_image.csv` is missing"),
        ("per_image.csv", "id,miou\n", "columns id, group, part, inference, miou"),
        (
            "per_image.csv",
            "id,group,part,inference,miou\na,g,val,plain,x\n",
            "should hold numbers. Found `x`",
        ),
        (
            "per_image.csv",
            "id,group,part,inference,miou\na,g,val,plain,1\na,g,val,plain,1\n",
            "Found `a` twice",
        ),
        (
            "per_image.csv",
            "id,group,part,inference,miou,prediction\na,g,val,plain,1,../../secret.png\n",
            "files of its own folder. Found `../../secret.png`",
        ),
        (
            "per_image.csv",
            "id,group,part,inference,miou,prediction\na,g,val,plain,1,/secret.png\n",
            "Found `/secret.png`",
        ),
        ("predictions/index.csv", "kind,rank,id,miou,confidence\n../../x,1,a,1,1\n", "`kind` should be best or worst"),
        ("history.csv", "", "history.csv` should have rows"),
        ("predictions/index.csv", "kind,rank\nbest,1\n", "index.csv` cannot be read"),
    ],
)
def test_a_broken_side_file_is_a_problem_of_a_finished_run(make_run, name, content, problem):
    folder = make_run()
    (folder / "predictions").mkdir()
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    run = read_run(folder)
    assert run.status == "finished"
    assert len(run.problems) == 1
    assert problem in run.problems[0]


def test_ids_stay_text_and_an_empty_score_is_nan(make_run):
    rows = [("007", "1", ""), ("nan", "NA", 0.5), ("a,b\nc", "2", 0.25)]
    images = read_run(make_run(rows=rows)).images["val", "plain"]
    assert sorted(images) == ["007", "a,b\nc", "nan"]
    assert images["nan"].group == "NA"
    assert math.isnan(images["007"].miou)


def test_initialisation_is_unknown_before_the_network_was_built(make_run):
    assert read_run(make_run(status="failed", provenance={"weights_used": None})).initialisation == "unknown"


def test_the_assignment_names_who_is_where_not_in_which_order():
    first = Split("kfold", 0, None, (Fold(("a", "b"), ("c",), "0"),), ("d",), "x")
    turned = replace(first, folds=(Fold(("b", "a"), ("c",), "0"),), sha256="y")
    moved = replace(first, folds=(Fold(("b",), ("a", "c"), "0"),))
    assert first.assignment == turned.assignment
    assert first.assignment != moved.assignment


def test_runs_are_found_at_and_below_a_match_each_once(make_run, tmp_path):
    first, second = make_run(fold=0), make_run(fold=1)
    other = make_run(name="b")
    patterns = [str(tmp_path / "outputs" / "a*"), str(first), str(tmp_path / "outputs" / "*" / "fold0")]
    assert find_run_folders(patterns) == sorted([first, second, other])


def test_folders_inside_a_run_and_hidden_ones_are_passed_over(make_run, tmp_path):
    folder = make_run()
    for inside in (folder / "evaluations" / "tta", tmp_path / "outputs" / ".sweeps" / "0"):
        inside.mkdir(parents=True)
        (inside / "config.yaml").write_text("fold: 0\nseed: 0\n")
    assert find_run_folders([str(tmp_path / "outputs")]) == [folder]


def test_a_half_written_folder_is_listed(make_run, tmp_path):
    make_run()
    half = tmp_path / "outputs" / "a" / "fold1" / "now"
    half.mkdir(parents=True)
    (half / "config.yaml").write_text("fold: 1\nseed: 0\n")
    runs = gather([str(tmp_path / "outputs")])
    assert [run.status for run in runs] == ["finished", "unreadable"]
    assert "provenance.json` is missing" in runs[1].reason


def test_a_relative_glob(make_run, tmp_path, monkeypatch):
    make_run()
    monkeypatch.chdir(tmp_path)
    assert str(gather(["outputs/a*"])[0].folder).startswith("outputs/a/fold0/")


def test_nothing_found_names_the_glob(tmp_path):
    with pytest.raises(DataError, match=r"Found none for `.*nothing\*, .*other`"):
        gather([str(tmp_path / "nothing*"), str(tmp_path / "other")])
