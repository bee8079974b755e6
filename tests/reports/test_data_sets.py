import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hsl.reports.data_sets import UNNAMED, data_sets
from hsl.reports.plots.plot_files import save_plots
from hsl.run_folder.run import gather
from hsl.verbs.report import report

FULL = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]


@pytest.fixture
def found(tmp_path):
    def sort():
        sets, unknown = data_sets(gather([str(tmp_path / "outputs")]))
        named = {one.name: sorted(run.folder.parent.parent.name for run in one.runs) for one in sets}
        return named, [run.folder.parent.parent.name for run in unknown]

    return sort


def on(name, **hashes):
    told = {"annotations_sha256": {"train": "t", "val": "v", "test": "w"} | hashes} if hashes else {}
    return {"data": name, **told}


def test_equal_runs_on_the_same_data_are_one_set(make_run, found):
    make_run("a", "a", 0, provenance=on("coral"))
    make_run("b", "b", 1, provenance=on("coral"))
    assert found() == ({"coral": ["a", "b"]}, [])


def test_runs_that_tell_nothing_of_their_data_are_still_a_set(make_run, found):
    make_run("a", "a")
    assert found() == ({UNNAMED: ["a"]}, [])


def test_names_pictures_and_test_parts_set_data_apart(make_run, found, split_of):
    make_run("a", "a", provenance=on("coral"))
    make_run("b", "b", provenance=on("steel"))
    make_run("c", "c", provenance=on("coral"), split=split_of(prefix="q"))
    make_run("d", "d", provenance=on("coral"), split={**split_of(), "test": ["t0"]})
    named, unknown = found()
    assert unknown == []
    assert named.pop("steel") == ["b"]
    assert sorted(named.values()) == [["a"], ["c"], ["d"]]
    assert all(name.startswith("coral (split ") for name in named)
    assert sum("(test part " in name for name in named) == 2


def test_masks_that_changed_between_runs_make_two_sets(make_run, found):
    for fold in (0, 1):
        make_run("a", "a", fold, provenance=on("coral", val=f"old {fold}"))
        later = on("coral", val=f"new {fold}")
        make_run("b", "b", fold, provenance=later, time="2026-02-02_00-00-00")
    named, _ = found()
    assert sorted(named.values()) == [["a", "a"], ["b", "b"]]
    assert all("annotations from" in name for name in named)


def test_a_run_of_another_fold_belongs_to_the_state_that_had_begun(make_run, found):
    make_run("a", "a", 0, provenance=on("coral", val="old"))
    make_run("a", "a", 1, provenance=on("coral", val="same"), time="2026-01-02_00-00-00")
    make_run("b", "b", 0, provenance=on("coral", val="new"), time="2026-02-02_00-00-00")
    make_run("b", "b", 1, provenance=on("coral", val="same"), time="2026-02-03_00-00-00")
    assert sorted(found()[0].values()) == [["a", "a"], ["b", "b"]]


def test_unlike_training_masks_are_the_same_data(make_run, found):
    make_run("a", "a", provenance=on("coral", train="masks"))
    make_run("b", "b", provenance=on("coral", train="pseudo-labels"))
    assert list(found()[0].values()) == [["a", "b"]]


def test_a_run_that_ended_early_goes_where_its_settings_are(make_run, found, split_of):
    early = {"provenance": {"split_sha256": None}, "status": "failed", "config": {"data": {"root": "/steel"}}}
    make_run("a", "a", provenance=on("coral"), config={"data": {"root": "/coral"}})
    make_run("b", "b", provenance=on("steel"), config={"data": {"root": "/steel"}}, split=split_of(prefix="q"))
    (make_run("c", "c", **early) / "splits.json").unlink()
    early["config"] = {"data": {"root": "/elsewhere"}}
    (make_run("d", "d", **early) / "splits.json").unlink()
    assert found() == ({"coral": ["a"], "steel": ["b", "c"]}, ["d"])


@pytest.fixture
def run_report(tmp_path, monkeypatch):
    monkeypatch.setattr("hsl.reports.report.save_plots", lambda plots, *rest: save_plots(plots[:1], *rest))

    def run(*overrides):
        common = [f"runs={tmp_path}/outputs/*", f"output={tmp_path}/report", "resamples=100", "num_pictures=0"]
        with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
            return report(compose("report", [*common, *overrides]))

    return run


def test_equal_settings_on_two_data_sets_never_replace_each_other(make_run, run_report, split_of, capsys):
    """The same model, fold and seed: by its settings alone the newer one would take the place of the other."""
    make_run("a", "net", 0, provenance=on("coral"))
    make_run("b", "net", 0, FULL, provenance=on("steel"), split=split_of(prefix="q"), time="2026-03-03_00-00-00")
    page = run_report()
    results = json.loads((page.parent / "cv_results.json").read_text())
    told = {one["data"]: one for one in results["data_sets"]}
    assert list(told) == ["coral", "steel"]
    assert [told[name]["models"][0]["label"] for name in told] == ["net", "net"]
    scores = [told[name]["models"][0]["parts"]["val"]["plain"]["pooled"]["miou"] for name in told]
    assert scores == [pytest.approx(50 / 100 / 2 + 50 / 150 / 2 + 1 / 3 - 1 / 3, abs=0.2), 1.0]
    for name in told:
        below = page.parent / told[name]["folder"]
        assert {"index.html", "cv_results.json", "tables"} <= {path.name for path in below.iterdir()}
    text, printed = page.read_text(encoding="utf8"), capsys.readouterr().out
    for name in told:
        assert f"{name}</h2>" in text
        assert f'href="{name}/index.html"' in text
        assert f"the only model with pixel scores on {name}" in " ".join(printed.split())


def test_one_data_set_is_written_where_it_was_and_named(make_run, run_report):
    make_run("a", "a", provenance=on("coral"))
    make_run("b", "b", 0, FULL, provenance=on("coral"))
    page = run_report()
    results = json.loads((page.parent / "cv_results.json").read_text())
    assert results["data"] == "coral"
    assert results["answer"]["pixels"][0].startswith("Nothing can be said between the 2 models on coral: too few")
    assert results["answer"]["pixels"][0][:60] in page.read_text(encoding="utf8")
    assert (page.parent / "tables" / "ranking.csv").is_file()
