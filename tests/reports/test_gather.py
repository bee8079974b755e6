import pytest

from hsl.errors import DataError
from hsl.reports.gather import gather
from hsl.run_folder.provenance import find_run_folders


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
