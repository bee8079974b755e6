"""A run folder is read, and what an ensemble keeps of it is complete or not there."""

import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.files.split_file import Fold, Split
from hsl.run_folder import member_rows
from hsl.run_folder.member_rows import KeptRows, RowsWriter, checkpoint_sha256, read_features, read_kept, read_map
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


@pytest.mark.parametrize("spent", [{"energy_j": ["1"]}, {"device_time_s": {"processor": "long"}}])
def test_costs_that_are_no_numbers_are_told(make_run, spent):
    run = read_run(make_run(provenance=spent))
    assert run.status == "unreadable"
    assert "should be names with numbers" in run.reason


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


# What an ensemble keeps of a run: written piece by piece, complete or not there.


IDS = ["b", "a", "site 1/c"]
FEATURES = {name: np.arange(4, dtype=np.float32) + i for i, name in enumerate(IDS)}
MAPS = {name: np.random.default_rng(i).dirichlet([0.3] * 3, (5, 4)).transpose(2, 0, 1) for i, name in enumerate(IDS)}


def settings(**changes: object) -> KeptRows:
    return KeptRows(**{"checkpoint": "abc", "inference": "plain", "classes": ["x", "y", "z"], **changes})


def fill(run: Path, *, maps: bool = True, part: str = "val", kept: KeptRows | None = None) -> RowsWriter:
    writer = RowsWriter(run, kept or settings())
    writer.begin(part)
    for name in IDS:
        if writer.lacks_features(name):
            writer.add_features(name, FEATURES[name])
        if maps and writer.lacks_map(name):
            writer.add_map(name, MAPS[name])
    writer.finish(IDS, maps, {"maps": 0.5} if maps else {"features": 0.25})
    return writer


def test_there_and_back(tmp_path: Path) -> None:
    assert fill(tmp_path).is_complete("val", maps=True)
    assert list(read_features(tmp_path, "val")) == IDS
    for name in IDS:
        assert read_features(tmp_path, "val")[name].tolist() == FEATURES[name].tolist()
        assert np.abs(read_map(tmp_path, "val", name) / 255 - MAPS[name]).max() <= 1 / 510 + 1e-12
    with pytest.raises(DataError, match=r"should hold the rows of the part test. Found none"):
        read_features(tmp_path, "test")
    fill(tmp_path, part="test")
    assert read_kept(tmp_path).parts.keys() == {"val", "test"}


def test_maps_can_come_later(tmp_path: Path) -> None:
    writer = fill(tmp_path, maps=False)
    assert writer.is_complete("val", maps=False)
    assert not writer.is_complete("val", maps=True)
    assert not list(tmp_path.rglob("maps"))
    again = RowsWriter(tmp_path, settings())
    again.begin("val")
    assert not any(map(again.lacks_features, IDS))
    assert all(map(again.lacks_map, IDS))
    whole = fill(tmp_path)
    assert whole.is_complete("val", maps=True)
    assert whole.kept.parts["val"].seconds == {"features": 0.25, "maps": 0.5}


@pytest.mark.parametrize("change", [{"checkpoint": "def"}, {"inference": "tta"}, {"classes": ["x", "y", "w"]}])
def test_what_was_made_otherwise_is_made_anew(tmp_path: Path, change: dict[str, object]) -> None:
    fill(tmp_path)
    writer = RowsWriter(tmp_path, settings(**change))
    assert not writer.is_complete("val", maps=False)
    writer.begin("val")
    assert all(writer.lacks_map(name) and writer.lacks_features(name) for name in IDS)
    assert read_kept(tmp_path).parts == {}


def test_files_of_another_version_and_damaged_ones_are_made_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    page = tmp_path / "rows" / "rows.json"
    for text in (page.read_text().replace('"version": 1', '"version": 0'), "{", "[]"):
        page.write_text(text)
        assert read_kept(tmp_path) is None
        assert not RowsWriter(tmp_path, settings()).is_complete("val", maps=False)
        fill(tmp_path)
    (tmp_path / "rows" / "features_val.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="is damaged"):
        read_features(tmp_path, "val")
    writer = RowsWriter(tmp_path, settings())
    writer.begin("val")
    assert all(map(writer.lacks_features, IDS))


@pytest.mark.parametrize("last", range(5))
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """The pass is stopped at every file that it writes, and goes on to the same end."""
    monkeypatch.setattr(member_rows, "FLUSH_S", 0.0)
    fill(tmp_path / "whole")
    written = []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > last:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            fill(tmp_path / "run")
    assert str(caught.value.filename).startswith(str(tmp_path / "run"))
    assert not list((tmp_path / "run").rglob("*.partial"))
    kept = read_kept(tmp_path / "run")
    assert kept is None or kept.parts == {}
    fill(tmp_path / "run")
    names = [sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
             for root in (tmp_path / "whole", tmp_path / "run")]  # fmt: skip
    assert names[0] == names[1]
    for name in names[0]:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_the_folder_of_a_stranger_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rows").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leaves it"):
        RowsWriter(tmp_path / "run", settings())


def test_the_hash_names_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"best\.ckpt` is missing"):
        checkpoint_sha256(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    assert len(checkpoint_sha256(tmp_path)) == 64
